// Squeeze-and-excitation: each channel of an image is weighed by what the image holds in all channels.
#pragma once

#include "sd/cpu/elementwise.hpp"
#include "sd/cpu/gate.hpp"
#include "sd/cpu/pooling.hpp"
#include "sd/nn/activation.hpp"
#include "sd/nn/cache.hpp"
#include "sd/nn/conv2d.hpp"
#include "sd/nn/sequential.hpp"

SD_NAMESPACE_BEGIN

/// y(n, h, w, c) = x(n, h, w, c) gate(n, c) of x (N, H, W, C), with
///
///     gate(n, :) = scale(W2 act(W1 mean(n, :) + b1) + b2),    mean(n, c) = the mean of x(n, :, :, c)
///
/// W1 (Q, C, 1, 1) and W2 (C, Q, 1, 1) are 1x1 convolutions with bias, named fc1 and fc2 and started as Conv2d's. act is
/// SiLU and scale the sigmoid in EfficientNet, act ReLU in RegNetY, and scale hardsigmoid in MobileNetV3.
/// J. Hu, L. Shen, G. Sun, "Squeeze-and-excitation networks", CVPR 2018; as torchvision's SqueezeExcitation.
///
/// In a Sequential the mean is taken of a norm's output as it is read, and the gate is applied by the convolution that
/// follows as it reads. Backward, one pass gathers all sums, those of the norm before included, and writes nothing:
///
///     dx = dy gate + common,    common(n, c) = dmean(n, c) / (H W)
template <class T, class Device = Cpu, Activation activation = Activation::silu, Activation scale = Activation::sigmoid>
class SqueezeExcitation : detail::FusedLayer {
    using A = accumulate_t<T>;
    using Conv = Conv2d<T, Device>;

public:
    using value_type = T;
    using device_type = Device;

    /// Throws std::invalid_argument for channels or squeeze_channels below 1.
    SqueezeExcitation(Index channels, Index squeeze_channels, Initializer& initializer)
        : excitation_{named("fc1", Conv(channels, squeeze_channels, 1, {.bias = true}, initializer)),
                      named("activation", ActivationLayer<activation, T, Device>()),
                      named("fc2", Conv(squeeze_channels, channels, 1, {.bias = true}, initializer)),
                      named("scale_activation", ActivationLayer<scale, T, Device>())} {}

    /// y of x's shape. Throws std::invalid_argument for another number of channels, or images without pixels.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return materialize(forward_fused(x, context));
    }
    /// Adds the gradients of both convolutions and returns dx. Throws std::logic_error if the last forward pass kept no
    /// gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return backward_fused({dy}, nullptr, InputGradient::computed).dy;
    }
    /// Gives back what the last forward pass left for backward.
    void forget() { pass_.forget(); }

    /// C to Q.
    [[nodiscard]] Conv& fc1() { return excitation_.template layer<0>(); }
    /// Q to C.
    [[nodiscard]] Conv& fc2() { return excitation_.template layer<2>(); }

    /// Names fc1 and fc2.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        excitation_.visit(visitor);
    }
    /// The same, read only.
    template <class Visitor>
    void visit(Visitor&& visitor) const {
        excitation_.visit(visitor);
    }

private:
    friend class detail::Fusion;

    struct Pass {
        Pending<T, Device> x;    ///< without a gate of its own
        Tensor<T, Device> gate;  ///< (N, C)
    };

    Pending<T, Device> forward_fused(const Pending<T, Device>& input, const Context& context) {
        const Pending<T, Device> x = ungated(input);
        expect_rank("SqueezeExcitation", "x", x.shape(), 4);
        const Shape channels{x.shape()[0], x.channels()};
        const Tensor<T, Device> mean = global_avg_pool_forward<T>(x);
        const Tensor<T, Device> gate = excitation_.forward(as_pixel(mean), context).reshape(channels);
        pass_.keep(context, {x, gate});
        return x.gated(gate);
    }
    // What follows writes the gradient by the gated values, of which no norm before can use the sums.
    const BatchNormPass<T, Device>* output_pass(const BatchNormPass<T, Device>*) { return nullptr; }
    detail::FusedGradient<T, Device> backward_fused(const detail::FusedGradient<T, Device>& dy,
                                                    const BatchNormPass<T, Device>* before,
                                                    InputGradient input_gradient) {
        const Pass& pass = pass_.get("SqueezeExcitation");
        const Shape& shape = pass.x.shape();
        const GateSums<T, Device> sums = gate_sums<T>(dy.dy, pass.x, before);
        if (input_gradient == InputGradient::skipped) {
            (void)excitation_.backward(as_pixel(sums.of_gate), input_gradient);
            return {};
        }
        Tensor<T, Device> common = excitation_.backward(as_pixel(sums.of_gate)).reshape(pass.gate.shape());
        scale_by(common, A(1 / static_cast<double>(shape[1] * shape[2])));
        const GateGradient<T, Device> gate{pass.gate, common};
        if (before != nullptr) return {dy.dy, batch_norm_sums(sums, gate, before->inverse_std), gate};
        // No norm takes it over: it is applied as through one of mean 0 and deviation 1.
        const auto per_channel = [&](int value) { return Tensor<A, Device>::full({pass.x.channels()}, A(value)); };
        const Pending<T, Device> same(pass.x.raw, per_channel(1), per_channel(0), Activation::none);
        return {materialize(
            PendingGradient<T, Device>(dy.dy, same, per_channel(0), per_channel(0), per_channel(0)).through(gate))};
    }

    static Tensor<T, Device> as_pixel(const Tensor<T, Device>& x) {
        return x.reshape({x.extent(0), 1, 1, x.extent(1)});
    }

    Sequential<Conv, ActivationLayer<activation, T, Device>, Conv, ActivationLayer<scale, T, Device>> excitation_;
    Cache<Pass> pass_;
};

SD_NAMESPACE_END
