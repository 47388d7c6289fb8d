// Activations of whole tensors, as layers of their own; the library's branches apply them through pending tensors.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/cpu/vector_activation.hpp"
#include "sd/reference/activation.hpp"

SD_NAMESPACE_BEGIN

using reference::activation_by_input;
using reference::activation_forward;

/// y = act(x), of any shape.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> activation_forward(const Tensor<T>& x, Activation activation) {
    Tensor<T> y = Tensor<T>::empty(x.shape());
    parallel_ranges(x.size(), cpu::sweep_elements, [&](Index first, Index last) {
        cpu::for_each_vector<T>(last - first, [&](Index i, auto count) {
            const cpu::Vector<T> value = cpu::load_some(x.data() + first + i, count);
            cpu::store_some<T>(
                activation == Activation::relu ? cpu::rectified<T>(value) : cpu::activated<T>(activation, value),
                y.data() + first + i, count);
        });
    });
    return y;
}

/// dx = dy act'(x), 0 where act'(x) is 0. Throws std::invalid_argument if shapes differ.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> activation_by_input(const Tensor<T>& dy, const Tensor<T>& x, Activation activation) {
    expect_shape("activation_by_input", "dy", dy.shape(), x.shape());
    Tensor<T> dx = Tensor<T>::empty(x.shape());
    parallel_ranges(x.size(), cpu::sweep_elements, [&](Index first, Index last) {
        cpu::for_each_vector<T>(last - first, [&](Index i, auto count) {
            const cpu::Vector<T> upstream = cpu::load_some(dy.data() + first + i, count);
            const cpu::Vector<T> value = cpu::load_some(x.data() + first + i, count);
            cpu::store_some<T>(activation == Activation::relu ? cpu::gradient_before_relu<T>(upstream, value)
                                                              : cpu::gradient_before<T>(activation, upstream, value),
                               dx.data() + first + i, count);
        });
    });
    return dx;
}

SD_NAMESPACE_END
