// Activations of whole tensors.
#pragma once

#include "sd/core/activation.hpp"
#include "sd/core/tensor.hpp"

SD_NAMESPACE_BEGIN

namespace reference {

/// y = act(x), of any shape.
template <class T>
[[nodiscard]] Tensor<T> activation_forward(const Tensor<T>& x, Activation activation) {
    Tensor<T> y(x.shape());
    for (Index i = 0; i < x.size(); ++i) y.data()[i] = activate(activation, x.data()[i]);
    return y;
}

/// dx = dy act'(x), 0 where act'(x) is 0. Throws std::invalid_argument if shapes differ.
template <class T>
[[nodiscard]] Tensor<T> activation_by_input(const Tensor<T>& dy, const Tensor<T>& x, Activation activation) {
    expect_shape("activation_by_input", "dy", dy.shape(), x.shape());
    Tensor<T> dx(x.shape());
    for (Index i = 0; i < x.size(); ++i) dx.data()[i] = activation_gradient(activation, dy.data()[i], x.data()[i]);
    return dx;
}

}  // namespace reference

SD_NAMESPACE_END
