// The fully connected layer.
#pragma once

#include "sd/core/kept_weights.hpp"
#include "sd/core/linear.hpp"
#include "sd/core/tensor.hpp"

SD_NAMESPACE_BEGIN

namespace reference {

/// y(n, o) = bias(o) + sum over i of x(n, i) weight(o, i).
template <class T>
[[nodiscard]] Tensor<T> linear_forward(const Tensor<T>& x, const Tensor<accumulate_t<T>>& weight,
                                       const Tensor<accumulate_t<T>>& bias, KeptWeights* = nullptr) {
    using A = accumulate_t<T>;
    detail::expect_linear(x.shape(), weight.shape(), bias.shape());
    Tensor<T> y(Shape{x.extent(0), weight.extent(0)});
    for (Index n = 0; n < y.extent(0); ++n) {
        for (Index o = 0; o < y.extent(1); ++o) {
            A sum = bias(o);
            for (Index i = 0; i < x.extent(1); ++i) sum = sum + A(x(n, i)) * weight(o, i);
            y(n, o) = T(sum);
        }
    }
    return y;
}

/// dx(n, i) = sum over o of dy(n, o) weight(o, i).
template <class T>
[[nodiscard]] Tensor<T> linear_by_input(const Tensor<T>& dy, const Tensor<accumulate_t<T>>& weight) {
    using A = accumulate_t<T>;
    detail::expect_linear_by_input(dy.shape(), weight.shape());
    Tensor<T> dx(Shape{dy.extent(0), weight.extent(1)});
    for (Index n = 0; n < dx.extent(0); ++n) {
        for (Index i = 0; i < dx.extent(1); ++i) {
            A sum(0);
            for (Index o = 0; o < dy.extent(1); ++o) sum = sum + A(dy(n, o)) * weight(o, i);
            dx(n, i) = T(sum);
        }
    }
    return dx;
}

/// dweight(o, i) = sum over n of dy(n, o) x(n, i).
template <class T>
[[nodiscard]] Tensor<accumulate_t<T>> linear_by_weight(const Tensor<T>& dy, const Tensor<T>& x) {
    using A = accumulate_t<T>;
    detail::expect_linear_by_weight(dy.shape(), x.shape());
    Tensor<A> dweight(Shape{dy.extent(1), x.extent(1)});
    for (Index n = 0; n < dy.extent(0); ++n) {
        for (Index o = 0; o < dy.extent(1); ++o) {
            for (Index i = 0; i < x.extent(1); ++i) dweight(o, i) = dweight(o, i) + A(dy(n, o)) * A(x(n, i));
        }
    }
    return dweight;
}

/// dbias(o) = sum over n of dy(n, o).
template <class T>
[[nodiscard]] Tensor<accumulate_t<T>> linear_by_bias(const Tensor<T>& dy) {
    using A = accumulate_t<T>;
    expect_rank("linear_by_bias", "dy", dy.shape(), 2);
    Tensor<A> dbias(Shape{dy.extent(1)});
    for (Index n = 0; n < dy.extent(0); ++n) {
        for (Index o = 0; o < dy.extent(1); ++o) dbias(o) = dbias(o) + A(dy(n, o));
    }
    return dbias;
}

}  // namespace reference

SD_NAMESPACE_END
