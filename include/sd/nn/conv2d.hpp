// The convolution layer.
#pragma once

#include "sd/core/kept_weights.hpp"
#include "sd/core/parameter.hpp"
#include "sd/cpu/batch_norm.hpp"
#include "sd/cpu/conv2d.hpp"
#include "sd/cpu/linear.hpp"
#include "sd/nn/cache.hpp"
#include "sd/nn/fusion.hpp"
#include "sd/nn/initializer.hpp"
#include "sd/nn/layer.hpp"
#include "sd/nn/visit.hpp"

SD_NAMESPACE_BEGIN

/// y = x * weight + bias; the bias only if options.bias. x (N, H, W, C) NHWC; weight (O, C / groups, kernel, kernel), from
/// N(0, 2 / fan_out); bias (O), from 0, as torchvision's models start.
template <class T, class Device = Cpu>
class Conv2d : detail::FusedLayer {
    using A = accumulate_t<T>;

public:
    using value_type = T;
    using device_type = Device;

    /// A convolution with weights from initializer.he_normal_fan_out. Throws std::invalid_argument for extents or
    /// options that do not fit.
    Conv2d(Index in_channels, Index out_channels, Index kernel, const Conv2dOptions& options, Initializer& initializer)
        : Conv2d(initializer.he_normal_fan_out<A>(weight_shape(in_channels, out_channels, kernel, options)), options) {}
    /// These start values, weight (O, C / groups, kernel, kernel); the bias begins as zeros. Throws
    /// std::invalid_argument if they do not fit.
    Conv2d(const Tensor<A>& weight, const Conv2dOptions& options) : Conv2d(weight, weight.shape(), options) {}
    Conv2d(const Conv2d&) = delete;
    /// Moves; parameters keep their addresses.
    Conv2d(Conv2d&&) = default;
    Conv2d& operator=(Conv2d&&) = default;
    ~Conv2d() = default;

    /// y (N, H', W', O). Throws std::invalid_argument for another number of channels, or an image smaller than the kernel.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return forward_activated(x, Activation::none, context);
    }

    /// Adds the gradients of weight and bias, those that are not frozen, and returns dx. Throws std::logic_error if the
    /// last forward pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return backward_fused({dy}, nullptr, InputGradient::computed).dy;
    }

    /// Gives back what the last forward pass left for backward.
    void forget() {
        input_.forget();
        pass_.forget();
    }

    /// Stride, padding, dilation and groups.
    [[nodiscard]] const Conv2dOptions& options() const { return options_; }
    /// (out_channels, in_channels / groups, kernel, kernel); of PixelLinear (out_channels, in_channels).
    [[nodiscard]] const ParameterPtr<A, Device>& weight() const { return weight_; }
    /// (out_channels), or null.
    [[nodiscard]] const ParameterPtr<A, Device>& bias() const { return bias_; }

    /// Names the weight, and the bias if there is one.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visit_members(*this, visitor);
    }
    /// The same, read only.
    template <class Visitor>
    void visit(Visitor&& visitor) const {
        visit_members(*this, visitor);
    }

protected:
    /// The parameter `weight` has a shape of its own; as the convolution's kernel it has `kernel_shape`.
    Conv2d(const Tensor<A>& weight, const Shape& kernel_shape, const Conv2dOptions& options)
        : options_(options), kernel_shape_(kernel_shape) {
        expect_rank("Conv2d", "weight", kernel_shape, 4);
        if (weight.size() < 1) refuse("Conv2d", "shape of weight", weight.shape(), "1 or more of each");
        expect_groups(kernel_shape[1] * options.groups, kernel_shape[0], options);
        weight_ = std::make_shared<Parameter<A, Device>>(to_device<Device>(weight));
        if (options.bias) bias_ = std::make_shared<Parameter<A, Device>>(Tensor<A, Device>(Shape{kernel_shape[0]}));
    }

private:
    friend class detail::Fusion;

    static void expect_groups(Index in_channels, Index out_channels, const Conv2dOptions& options) {
        if (options.groups >= 1 && in_channels % options.groups == 0 && out_channels % options.groups == 0) return;
        refuse("Conv2d", "groups", options.groups,
               text("a divisor of ", in_channels, " and ", out_channels, " channels"));
    }
    static Shape weight_shape(Index in_channels, Index out_channels, Index kernel, const Conv2dOptions& options) {
        if (in_channels < 1) refuse("Conv2d", "in_channels", in_channels, "1 or more");
        if (out_channels < 1) refuse("Conv2d", "out_channels", out_channels, "1 or more");
        if (kernel < 1) refuse("Conv2d", "kernel", kernel, "1 or more");
        expect_groups(in_channels, out_channels, options);
        return {out_channels, in_channels / options.groups, kernel, kernel};
    }

    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        visitor("weight", self.weight_);
        if (self.bias_) visitor("bias", self.bias_);
    }

    Tensor<T, Device> forward_fused(const Pending<T, Device>& x, const Context& context) {
        return forward_activated(x, Activation::none, context);
    }
    const BatchNormPass<T, Device>* output_pass(const BatchNormPass<T, Device>*) { return nullptr; }
    detail::FusedGradient<T, Device> backward_fused(const detail::FusedGradient<T, Device>& dy,
                                                    const BatchNormPass<T, Device>* before,
                                                    InputGradient input_gradient) {
        backward_bias(dy.dy);
        return backward_raw(dy.dy, before, input_gradient);
    }

    // z = x * weight, and the statistics of its channels if they are asked for.
    Tensor<T, Device> forward_raw(const Pending<T, Device>& x, const Context& context, Moments<A, Device>* moments) {
        const Pending<T, Device> operand = conv2d_operand(x, kernel_shape_, options_);
        if (context.gradients()) kept_.clear();
        Tensor<T, Device> z = conv2d_forward<T>(operand, kernel(), options_, moments);
        input_.keep(context, operand);
        return z;
    }

    // act(z + bias), applied as z is written.
    Tensor<T, Device> forward_activated(const Pending<T, Device>& x, Activation activation, const Context& context) {
        if (!bias_ && activation == Activation::none) return forward_raw(x, context, nullptr);
        const Pending<T, Device> operand = conv2d_operand(x, kernel_shape_, options_);
        Tensor<T, Device> y = forward_affine(operand, per_channel(1), shift(), activation, context);
        input_.keep(context, operand);
        return y;
    }

    // act(scale z + shift), applied as z is written. Keeps nothing for backward.
    Tensor<T, Device> forward_affine(const Pending<T, Device>& x, const Tensor<A, Device>& scale,
                                     const Tensor<A, Device>& shift, Activation activation, const Context& context) {
        if (context.gradients()) kept_.clear();
        return conv2d_batch_norm_forward<T>(x, kernel(), options_, scale, shift, activation,
                                            context.gradients() ? nullptr : &kept_);
    }

    // act(S + c (scale z + shift)), applied as z is written. Keeps nothing for backward.
    Tensor<T, Device> forward_joined(const Pending<T, Device>& x, const Tensor<A, Device>& scale,
                                     const Tensor<A, Device>& shift, const ResidualJoin<T, Device>& join) {
        return conv2d_join_forward<T>(x, kernel(), options_, scale, shift, join, &kept_);
    }

    // act(z + bias), pending on z: a norm of mean 0 and deviation 1.
    Pending<T, Device> pending(const Tensor<T, Device>& z, Activation activation, const Context& context) {
        const Pending<T, Device> y(z, per_channel(1), shift(), activation);
        pass_.keep(context, {y, per_channel(0), per_channel(1), false});
        return y;
    }
    const BatchNormPass<T, Device>& pass() const { return pass_.get("Conv2d"); }

    // Adds the gradient of the bias and returns the gradient by z, pending; dy is by act(z + bias).
    PendingGradient<T, Device> backward_pending(const detail::FusedGradient<T, Device>& dy) {
        if (bias_) {
            bias_->add_computed_grad(
                [&] { return dy.sums.dbias ? dy.sums.dbias : batch_norm_sums(dy.dy, pass()).dbias; });
        }
        if (dy.sums.of_written) return dy.dy;
        const Tensor<A, Device> zeros = per_channel(0);
        return PendingGradient<T, Device>(dy.dy, pass().y, zeros, zeros, zeros).through(dy.gate);
    }

    // Adds the gradient of the bias; dy is by z + bias.
    void backward_bias(const Tensor<T, Device>& dy) {
        if (!bias_) return;
        const Index channels = bias_->value.size();
        bias_->add_computed_grad([&] { return linear_by_bias(dy.reshape({dy.size() / channels, channels})); });
    }

    // Adds the gradient of the weight and returns dx, with the sums of `before` if it is given.
    detail::FusedGradient<T, Device> backward_raw(const PendingGradient<T, Device>& dz,
                                                  const BatchNormPass<T, Device>* before,
                                                  InputGradient input_gradient) {
        const PendingGradient<T, Device> operand = backward_weight(dz);
        detail::FusedGradient<T, Device> dx;
        if (input_gradient == InputGradient::computed) {
            dx.dy = conv2d_by_input<T>(operand, kernel(), options_, input_.get("Conv2d").shape(), before,
                                       before == nullptr ? nullptr : &dx.sums);
        }
        return dx;
    }

    // Adds the gradient of the weight and returns dshortcut + dx.
    Tensor<T, Device> backward_joined(const PendingGradient<T, Device>& dz, const Tensor<T, Device>& dshortcut) {
        expect_shape("Conv2d", "the shortcut's gradient", dshortcut.shape(), input_.get("Conv2d").shape());
        return conv2d_join_by_input<T>(backward_weight(dz), kernel(), options_, dshortcut);
    }

    // Adds the gradient of the weight and returns what the convolution by input loads.
    PendingGradient<T, Device> backward_weight(const PendingGradient<T, Device>& dz) {
        const PendingGradient<T, Device> operand = conv2d_operand(dz, kernel_shape_, options_);
        const Pending<T, Device>& x = input_.get("Conv2d");
        weight_->add_computed_grad(
            [&] { return conv2d_by_weight<T>(x, operand, options_, kernel_shape_).reshape(weight_->value.shape()); });
        return operand;
    }

    Tensor<T, Device> add_bias(const Tensor<T, Device>& z) const {
        return materialize(Pending<T, Device>(z, per_channel(1), bias_->value, Activation::none));
    }
    Tensor<A, Device> kernel() const { return weight_->value.reshape(kernel_shape_); }
    Tensor<A, Device> shift() const { return bias_ ? bias_->value : per_channel(0); }
    Tensor<A, Device> per_channel(int value) const { return Tensor<A, Device>::full({kernel_shape_[0]}, A(value)); }

    Conv2dOptions options_;
    Shape kernel_shape_;
    ParameterPtr<A, Device> weight_;
    ParameterPtr<A, Device> bias_;
    KeptWeights kept_;  ///< from passes without gradients; any other gives it back
    Cache<Pending<T, Device>> input_;
    Cache<BatchNormPass<T, Device>> pass_;  ///< of an activation that no norm is before
};

SD_NAMESPACE_END
