// A convolution and its batch norm as one unit, with an optional ReLU, between pending tensors.
#pragma once

#include "sd/nn/batch_norm2d.hpp"
#include "sd/nn/conv2d.hpp"

SD_NAMESPACE_BEGIN

/// value = act(bn(conv(x))), handed on as a pending tensor: only the raw convolution is stored, and its statistics are
/// gathered as it is written.
///
///     x (pending) --conv--> z (stored) --scale, shift, ReLU (pending)--> whoever loads it
template <class T, class Device = Cpu>
class ConvBn {
public:
    /// A Conv2d of these settings, its batch norm, and a ReLU if asked for.
    ConvBn(Index in_channels, Index out_channels, Index kernel, const Conv2dOptions& options, bool relu,
           Initializer& initializer)
        : conv_(in_channels, out_channels, kernel, options, initializer), bn_(out_channels), relu_(relu) {}

    /// The output (N, H', W', O) as a pending tensor on the raw convolution, of x (N, H, W, C), plain or pending.
    [[nodiscard]] Pending<T, Device> forward(const Pending<T, Device>& x, const Context& context) {
        Moments<accumulate_t<T>, Device> moments;
        const Tensor<T, Device> z = conv_.forward(x, context, context.training() ? &moments : nullptr);
        return bn_.pending(z, moments, relu_, context);
    }

    /// dy is the gradient by the value of the output; returns the gradient by the value of x.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) { return conv_.backward(bn_.backward(dy)); }

    /// The convolution.
    [[nodiscard]] Conv2d<T, Device>& conv() { return conv_; }
    /// The batch norm.
    [[nodiscard]] BatchNorm2d<T, Device>& bn() { return bn_; }

private:
    Conv2d<T, Device> conv_;
    BatchNorm2d<T, Device> bn_;
    bool relu_;
};

SD_NAMESPACE_END
