// ReLU.
#pragma once

#include "sd/core/tensor.hpp"

SD_NAMESPACE_BEGIN

namespace reference {

/// y = max(x, 0); NaN stays NaN.
template <class T>
[[nodiscard]] Tensor<T> relu_forward(const Tensor<T>& x) {
    Tensor<T> y(x.shape());
    for (Index i = 0; i < x.size(); ++i) y.data()[i] = x.data()[i] < T(0) ? T(0) : x.data()[i];
    return y;
}

/// dx = dy where y > 0, else 0.
template <class T>
[[nodiscard]] Tensor<T> relu_by_input(const Tensor<T>& dy, const Tensor<T>& y) {
    expect_shape("relu_by_input", "dy", dy.shape(), y.shape());
    Tensor<T> dx(y.shape());
    for (Index i = 0; i < y.size(); ++i) dx.data()[i] = y.data()[i] > T(0) ? dy.data()[i] : T(0);
    return dx;
}

}  // namespace reference

SD_NAMESPACE_END
