// The convolution layer.
#pragma once

#include "sd/core/parameter.hpp"
#include "sd/cpu/conv2d.hpp"
#include "sd/nn/cache.hpp"
#include "sd/nn/initializer.hpp"
#include "sd/nn/layer.hpp"
#include "sd/nn/visit.hpp"

SD_NAMESPACE_BEGIN

/// y = x * weight without bias, as convolutions before a batch norm have it. x (N, H, W, C) NHWC, plain or pending;
/// weight (O, C / groups, kernel, kernel), from N(0, 2 / fan_out).
template <class T, class Device = Cpu>
class Conv2d {
public:
    using value_type = T;
    using device_type = Device;

    /// A convolution with weights from initializer.he_normal_fan_out. Throws std::invalid_argument for extents or
    /// options that do not fit.
    Conv2d(Index in_channels, Index out_channels, Index kernel, const Conv2dOptions& options, Initializer& initializer)
        : options_(options) {
        if (in_channels < 1) refuse("Conv2d", "in_channels", in_channels, "1 or more");
        if (out_channels < 1) refuse("Conv2d", "out_channels", out_channels, "1 or more");
        if (kernel < 1) refuse("Conv2d", "kernel", kernel, "1 or more");
        if (options.groups < 1 || in_channels % options.groups != 0 || out_channels % options.groups != 0) {
            refuse("Conv2d", "groups", options.groups,
                   text("a divisor of ", in_channels, " and ", out_channels, " channels"));
        }
        weight_ = std::make_shared<Parameter<accumulate_t<T>, Device>>(
            to_device<Device>(initializer.he_normal_fan_out<accumulate_t<T>>(
                {out_channels, in_channels / options.groups, kernel, kernel})));
    }
    Conv2d(const Conv2d&) = delete;
    /// Moves; parameters keep their addresses.
    Conv2d(Conv2d&&) = default;
    Conv2d& operator=(Conv2d&&) = default;
    ~Conv2d() = default;

    /// If `moments` is given it receives the statistics of y's channels.
    [[nodiscard]] Tensor<T, Device> forward(const Pending<T, Device>& x, const Context& context,
                                            Moments<accumulate_t<T>, Device>* moments = nullptr) {
        const Pending<T, Device> operand = conv2d_operand(x);
        Tensor<T, Device> y = conv2d_forward<T>(operand, weight_->value, options_, moments);
        input_.keep(context, operand);
        return y;
    }

    /// The convolution and the batch norm of evaluation in one: act(scale (x * weight) + shift), scale and shift
    /// (out_channels). Keeps nothing for backward.
    [[nodiscard]] Tensor<T, Device> forward_with_batch_norm(const Pending<T, Device>& x,
                                                            const Tensor<accumulate_t<T>, Device>& scale,
                                                            const Tensor<accumulate_t<T>, Device>& shift,
                                                            Activation activation) const {
        return conv2d_batch_norm_forward<T>(x, weight_->value, options_, scale, shift, activation);
    }

    /// Adds the gradient by the weights to the parameter and returns the gradient by the value of x. If x came from a
    /// batch norm, `before` is that one's forward pass and `sums` receives the sums of its backward.
    [[nodiscard]] Tensor<T, Device> backward(const PendingGradient<T, Device>& dy,
                                             const BatchNormPass<T, Device>* before = nullptr,
                                             BatchNormSums<accumulate_t<T>, Device>* sums = nullptr) {
        const PendingGradient<T, Device> operand = conv2d_operand(dy);
        backward_by_weight(operand);
        return conv2d_by_input<T>(operand, weight_->value, options_, input_.get("Conv2d").shape(), before, sums);
    }

    /// Adds the gradient by the weights to the parameter: all of backward where nobody asks for the gradient by x.
    /// Frozen weights cost nothing.
    void backward_by_weight(const PendingGradient<T, Device>& dy) {
        if (!weight_->requires_grad) {
            weight_->skip_grad();
            return;
        }
        weight_->add_grad(conv2d_by_weight<T>(input_.get("Conv2d"), dy, options_, weight_->value.shape()));
    }

    /// Gives back what the last forward pass left for backward.
    void forget() { input_.forget(); }

    /// Stride, padding, dilation and groups.
    [[nodiscard]] const Conv2dOptions& options() const { return options_; }
    /// (out_channels, in_channels / groups, kernel, kernel).
    [[nodiscard]] const ParameterPtr<accumulate_t<T>, Device>& weight() const { return weight_; }

    /// Names the weight.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visit_members(*this, visitor);
    }
    /// The same, read only.
    template <class Visitor>
    void visit(Visitor&& visitor) const {
        visit_members(*this, visitor);
    }

private:
    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        visitor("weight", self.weight_);
    }

    Conv2dOptions options_;
    ParameterPtr<accumulate_t<T>, Device> weight_;
    Cache<Pending<T, Device>> input_;
};

static_assert(Layer<Conv2d<float>>);

SD_NAMESPACE_END
