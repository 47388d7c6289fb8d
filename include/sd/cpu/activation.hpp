// Activations of whole tensors, as layers of their own; the library's branches apply them through pending tensors.
#pragma once

#include "sd/cpu/elementwise.hpp"
#include "sd/cpu/vector_activation.hpp"
#include "sd/reference/activation.hpp"

SD_NAMESPACE_BEGIN

using reference::activation_by_input;
using reference::activation_forward;

/// y = act(x), of any shape.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> activation_forward(const Tensor<T>& x, Activation activation) {
    Tensor<T> y = Tensor<T>::empty(x.shape());
    cpu::sweep_vectors<T>(x.size(), [&](Index i, auto count) {
        const cpu::Vector<T> value = cpu::load_some(x.data() + i, count);
        cpu::store_some<T>(activation == Activation::relu ? cpu::rectified<T>(value)
                                                          : cpu::activated<accumulate_t<T>>(activation, value),
                           y.data() + i, count);
    });
    return y;
}

/// dx = dy act'(x), 0 where act'(x) is 0. Throws std::invalid_argument if shapes differ.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> activation_by_input(const Tensor<T>& dy, const Tensor<T>& x, Activation activation) {
    expect_shape("activation_by_input", "dy", dy.shape(), x.shape());
    Tensor<T> dx = Tensor<T>::empty(x.shape());
    cpu::sweep_vectors<T>(x.size(), [&](Index i, auto count) {
        const cpu::Vector<T> upstream = cpu::load_some(dy.data() + i, count);
        const cpu::Vector<T> value = cpu::load_some(x.data() + i, count);
        cpu::store_some<T>(activation == Activation::relu
                               ? cpu::gradient_before_relu<T>(upstream, value)
                               : cpu::gradient_before<accumulate_t<T>>(activation, upstream, value),
                           dx.data() + i, count);
    });
    return dx;
}

SD_NAMESPACE_END
