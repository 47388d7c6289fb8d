// A convolution and its batch norm as one unit, with an activation, between pending tensors.
#pragma once

#include "sd/nn/batch_norm2d.hpp"
#include "sd/nn/conv2d.hpp"

SD_NAMESPACE_BEGIN

/// The gradient by the output of a batch norm, and the sums of its backward, which whoever wrote the gradient gathered.
template <class T, class Device = Cpu>
struct GradientWithSums {
    Tensor<T, Device> dy;                         ///< by the value of the output
    BatchNormSums<accumulate_t<T>, Device> sums;  ///< of all of dy
};

/// value = act(bn(conv(x))), handed on as a pending tensor: only the raw convolution is stored, and its statistics are
/// gathered as it is written.
///
///     forward:   x (pending) --conv--> z (stored) --scale, shift, act (pending)--> whoever loads it
///     backward:  dy (stored), its sums --batch norm (pending)--> conv --> dx (stored), the sums of the unit before
template <class T, class Device = Cpu>
class ConvBn {
public:
    /// A Conv2d of these settings, its batch norm, and an activation.
    ConvBn(Index in_channels, Index out_channels, Index kernel, const Conv2dOptions& options, Activation activation,
           Initializer& initializer)
        : conv_(in_channels, out_channels, kernel, options, initializer), bn_(out_channels), activation_(activation) {}

    /// The output (N, H', W', O) as a pending tensor on the raw convolution, of x (N, H, W, C), plain or pending.
    /// In evaluation without gradients batch norm is folded into the weights of the convolution, and nothing is left
    /// pending; the values are those of an evaluation with gradients but for rounding.
    [[nodiscard]] Pending<T, Device> forward(const Pending<T, Device>& x, const Context& context) {
        if (!context.gradients()) {
            const auto [scale, shift] = bn_.folded();
            return conv_.forward_with_batch_norm(x, scale, shift, activation_);
        }
        Moments<accumulate_t<T>, Device> moments;
        const Tensor<T, Device> z = conv_.forward(x, context, context.training() ? &moments : nullptr);
        return bn_.pending(z, moments, activation_, context);
    }

    /// dy is the gradient by the value of the output; returns the gradient by the value of x.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) { return backward(with_sums(dy)); }

    /// The same with the sums of batch norm's backward given.
    [[nodiscard]] Tensor<T, Device> backward(const GradientWithSums<T, Device>& dy) {
        return conv_.backward(bn_.pending_backward(dy.dy, dy.sums));
    }

    /// The same where x is the output of the unit `before`, whose sums are gathered on the way.
    [[nodiscard]] GradientWithSums<T, Device> backward(const GradientWithSums<T, Device>& dy, const ConvBn& before) {
        GradientWithSums<T, Device> dx;
        dx.dy = conv_.backward(bn_.pending_backward(dy.dy, dy.sums), &before.bn_.pass(), &dx.sums);
        return dx;
    }

    /// Adds the gradients of the parameters: all of backward where nobody asks for the gradient by x.
    void backward_by_parameters(const Tensor<T, Device>& dy) {
        conv_.backward_by_weight(bn_.pending_backward(dy, with_sums(dy).sums));
    }

    /// What batch norm's last forward pass left for backward.
    [[nodiscard]] const BatchNormPass<T, Device>& pass() const { return bn_.pass(); }

    /// The convolution.
    [[nodiscard]] Conv2d<T, Device>& conv() { return conv_; }
    /// The same, read only.
    [[nodiscard]] const Conv2d<T, Device>& conv() const { return conv_; }
    /// The batch norm.
    [[nodiscard]] BatchNorm2d<T, Device>& bn() { return bn_; }
    /// The same, read only.
    [[nodiscard]] const BatchNorm2d<T, Device>& bn() const { return bn_; }

private:
    [[nodiscard]] GradientWithSums<T, Device> with_sums(const Tensor<T, Device>& dy) const {
        return {dy, batch_norm_sums(dy, bn_.pass())};
    }

    Conv2d<T, Device> conv_;
    BatchNorm2d<T, Device> bn_;
    Activation activation_;
};

SD_NAMESPACE_END
