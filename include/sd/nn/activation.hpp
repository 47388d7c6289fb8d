// Activations as layers. Behind a convolution in a Sequential they cost no pass of their own, see nn/fusion.hpp.
#pragma once

#include "sd/cpu/activation.hpp"
#include "sd/nn/cache.hpp"
#include "sd/nn/layer.hpp"

SD_NAMESPACE_BEGIN

/// y = act(x), element by element; Activation has the formulas.
template <Activation function, class T, class Device = Cpu>
class ActivationLayer {
public:
    using value_type = T;
    using device_type = Device;
    /// act.
    static constexpr Activation activation = function;

    /// y of x's shape, which may be any.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        input_.keep(context, x);
        return activation_forward(x, activation);
    }
    /// dx = dy act'(x). Throws std::logic_error if the last forward pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return activation_by_input(dy, input_.get("ActivationLayer"), activation);
    }
    /// Gives back what the last forward pass left for backward.
    void forget() { input_.forget(); }
    /// There is nothing to name.
    template <class Visitor>
    void visit(Visitor&&) const {}

private:
    Cache<Tensor<T, Device>> input_;
};

/// max(x, 0).
template <class T, class Device = Cpu>
using Relu = ActivationLayer<Activation::relu, T, Device>;
/// min(max(x, 0), 6).
template <class T, class Device = Cpu>
using Relu6 = ActivationLayer<Activation::relu6, T, Device>;
/// x / (1 + exp(-x)).
template <class T, class Device = Cpu>
using Silu = ActivationLayer<Activation::silu, T, Device>;
/// x min(max(x + 3, 0), 6) / 6.
template <class T, class Device = Cpu>
using Hardswish = ActivationLayer<Activation::hardswish, T, Device>;
/// x (1 + erf(x / sqrt 2)) / 2.
template <class T, class Device = Cpu>
using Gelu = ActivationLayer<Activation::gelu, T, Device>;
/// 1 / (1 + exp(-x)).
template <class T, class Device = Cpu>
using Sigmoid = ActivationLayer<Activation::sigmoid, T, Device>;
/// min(max(x + 3, 0), 6) / 6.
template <class T, class Device = Cpu>
using Hardsigmoid = ActivationLayer<Activation::hardsigmoid, T, Device>;

SD_NAMESPACE_END
