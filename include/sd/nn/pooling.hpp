// Pooling layers: no parameters, but something to keep for backward.
#pragma once

#include "sd/cpu/pooling.hpp"
#include "sd/nn/cache.hpp"
#include "sd/nn/fusion.hpp"
#include "sd/nn/layer.hpp"

SD_NAMESPACE_BEGIN

/// The largest value of each window.
template <class T, class Device = Cpu>
class MaxPool2d : detail::FusedLayer {
public:
    using value_type = T;
    using device_type = Device;

    /// Window, stride and padding.
    explicit MaxPool2d(const Pool2dOptions& options) : options_(options) {}

    /// y (N, H', W', C) of x (N, H, W, C). Throws std::invalid_argument if the window does not fit.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return forward_fused(x, context);
    }
    /// dx of x's shape: dy at the first largest value of each window. Throws std::logic_error if the last forward pass
    /// kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return max_pool2d_by_input<T>(dy, input_.get("MaxPool2d"), options_);
    }
    /// Gives back what the last forward pass left for backward.
    void forget() { input_.forget(); }
    /// There is nothing to name.
    template <class Visitor>
    void visit(Visitor&&) const {}

private:
    friend class detail::Fusion;

    // Windows are loaded with what is pending applied.
    Tensor<T, Device> forward_fused(const Pending<T, Device>& x, const Context& context) {
        Tensor<T, Device> y = max_pool2d_forward<T>(x, options_);
        input_.keep(context, x);
        return y;
    }
    const BatchNormPass<T, Device>* output_pass(const BatchNormPass<T, Device>*) { return nullptr; }
    detail::FusedGradient<T, Device> backward_fused(const detail::FusedGradient<T, Device>& dy,
                                                    const BatchNormPass<T, Device>*, InputGradient) {
        return {backward(dy.dy)};
    }

    Pool2dOptions options_;
    Cache<Pending<T, Device>> input_;
};

/// The mean of each window; Pool2dOptions says whether padding counts.
template <class T, class Device = Cpu>
class AvgPool2d {
public:
    using value_type = T;
    using device_type = Device;

    /// Window, stride and padding.
    explicit AvgPool2d(const Pool2dOptions& options) : options_(options) {}

    /// y (N, H', W', C) of x (N, H, W, C). Throws std::invalid_argument if the window does not fit.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        input_shape_.keep(context, x.shape());
        return avg_pool2d_forward(x, options_);
    }
    /// dx of x's shape: an equal share of dy for each value of the window. Throws std::logic_error if the last forward
    /// pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return avg_pool2d_by_input(dy, options_, input_shape_.get("AvgPool2d"));
    }
    /// There is nothing to name.
    template <class Visitor>
    void visit(Visitor&&) const {}

private:
    Pool2dOptions options_;
    Cache<Shape> input_shape_;
};

/// The mean over all pixels: (N, H, W, C) to (N, C).
template <class T, class Device = Cpu>
class GlobalAvgPool : detail::FusedLayer {
public:
    using value_type = T;
    using device_type = Device;

    /// y (N, C) of x (N, H, W, C).
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return forward_fused(x, context);
    }
    /// dx = dy / (H W), of x's shape. Throws std::logic_error if the last forward pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return global_avg_pool_by_input(dy, input_shape_.get("GlobalAvgPool"));
    }
    /// There is nothing to name.
    template <class Visitor>
    void visit(Visitor&&) const {}

private:
    friend class detail::Fusion;

    Tensor<T, Device> forward_fused(const Pending<T, Device>& x, const Context& context) {
        input_shape_.keep(context, x.shape());
        return global_avg_pool_forward<T>(x);
    }
    const BatchNormPass<T, Device>* output_pass(const BatchNormPass<T, Device>*) { return nullptr; }
    detail::FusedGradient<T, Device> backward_fused(const detail::FusedGradient<T, Device>& dy,
                                                    const BatchNormPass<T, Device>*, InputGradient) {
        return {backward(dy.dy)};
    }

    Cache<Shape> input_shape_;
};

SD_NAMESPACE_END
