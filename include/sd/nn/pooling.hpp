// Pooling layers: no parameters, but something to keep for backward.
#pragma once

#include "sd/cpu/pooling.hpp"
#include "sd/nn/cache.hpp"

SD_NAMESPACE_BEGIN

/// The largest value of each window.
template <class T, class Device = Cpu>
class MaxPool2d {
public:
    using value_type = T;
    using device_type = Device;

    /// Window, stride and padding.
    explicit MaxPool2d(const Pool2dOptions& options) : options_(options) {}

    [[nodiscard]] Tensor<T, Device> forward(const Pending<T, Device>& x, const Context& context) {
        Tensor<T, Device> y = max_pool2d_forward<T>(x, options_);
        input_.keep(context, x);
        return y;
    }
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return max_pool2d_by_input<T>(dy, input_.get("MaxPool2d"), options_);
    }
    template <class Visitor>
    void visit(Visitor&&) {}

private:
    Pool2dOptions options_;
    Cache<Pending<T, Device>> input_;
};

/// The mean of each window, padding counted as zeros.
template <class T, class Device = Cpu>
class AvgPool2d {
public:
    using value_type = T;
    using device_type = Device;

    /// Window, stride and padding.
    explicit AvgPool2d(const Pool2dOptions& options) : options_(options) {}

    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        input_shape_.keep(context, x.shape());
        return avg_pool2d_forward(x, options_);
    }
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return avg_pool2d_by_input(dy, options_, input_shape_.get("AvgPool2d"));
    }
    template <class Visitor>
    void visit(Visitor&&) {}

private:
    Pool2dOptions options_;
    Cache<Shape> input_shape_;
};

/// The mean over all pixels: (N, H, W, C) to (N, C).
template <class T, class Device = Cpu>
class GlobalAvgPool {
public:
    using value_type = T;
    using device_type = Device;

    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        input_shape_.keep(context, x.shape());
        return global_avg_pool_forward(x);
    }
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return global_avg_pool_by_input(dy, input_shape_.get("GlobalAvgPool"));
    }
    template <class Visitor>
    void visit(Visitor&&) {}

private:
    Cache<Shape> input_shape_;
};

SD_NAMESPACE_END
