// ReLU as a layer of its own; the library's branches apply it through pending tensors instead.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/reference/relu.hpp"

SD_NAMESPACE_BEGIN

using reference::relu_by_input;
using reference::relu_forward;

/// y = max(x, 0).
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> relu_forward(const Tensor<T>& x) {
    Tensor<T> y = Tensor<T>::empty(x.shape());
    parallel_ranges(x.size(), cpu::sweep_elements, [&](Index first, Index last) {
        const T* source = x.data();
        T* target = y.data();
        for (Index i = first; i < last; ++i) target[i] = source[i] < T(0) ? T(0) : source[i];
    });
    return y;
}

/// dx = dy where y > 0, else 0.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> relu_by_input(const Tensor<T>& dy, const Tensor<T>& y) {
    expect_shape("relu_by_input", "dy", dy.shape(), y.shape());
    Tensor<T> dx = Tensor<T>::empty(y.shape());
    parallel_ranges(y.size(), cpu::sweep_elements, [&](Index first, Index last) {
        const T* upstream = dy.data();
        const T* output = y.data();
        T* target = dx.data();
        for (Index i = first; i < last; ++i) target[i] = output[i] > T(0) ? upstream[i] : T(0);
    });
    return dx;
}

SD_NAMESPACE_END
