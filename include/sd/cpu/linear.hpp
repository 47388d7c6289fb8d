// The fully connected layer: a 1x1 convolution of images of one pixel, so the convolution's kernels serve.
#pragma once

#include "sd/core/linear.hpp"
#include "sd/cpu/conv2d.hpp"
#include "sd/cpu/merge_rows.hpp"
#include "sd/reference/linear.hpp"

SD_NAMESPACE_BEGIN

using reference::linear_by_bias;
using reference::linear_by_input;
using reference::linear_by_weight;
using reference::linear_forward;

namespace cpu {

/// (rows, columns) as `rows` images of one pixel with `columns` channels.
template <class T>
[[nodiscard]] Tensor<T> as_pixels(const Tensor<T>& matrix) {
    return matrix.reshape({matrix.extent(0), 1, 1, matrix.extent(1)});
}

}  // namespace cpu

/// y = x weight^T + bias with x (N, I), weight (O, I), bias (O), y (N, O). What is made of the weight is kept in `kept`, if
/// that is given, for the next call.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> linear_forward(const Tensor<T>& x, const Tensor<accumulate_t<T>>& weight,
                                       const Tensor<accumulate_t<T>>& bias, KeptWeights* kept = nullptr) {
    detail::expect_linear(x.shape(), weight.shape(), bias.shape());
    using A = accumulate_t<T>;
    return conv2d_batch_norm_forward<T>(Pending<T>(cpu::as_pixels(x)),
                                        weight.reshape({weight.extent(0), weight.extent(1), 1, 1}), {},
                                        Tensor<A>::full(bias.shape(), A(1)), bias, Activation::none, kept)
        .reshape({x.extent(0), weight.extent(0)});
}

/// dx = dy weight.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> linear_by_input(const Tensor<T>& dy, const Tensor<accumulate_t<T>>& weight) {
    detail::expect_linear_by_input(dy.shape(), weight.shape());
    const Index inputs = weight.extent(1);
    return conv2d_by_input<T>(cpu::as_pixels(dy), weight.reshape({weight.extent(0), inputs, 1, 1}), {},
                              {dy.extent(0), 1, 1, inputs})
        .reshape({dy.extent(0), inputs});
}

/// dweight = dy^T x.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<accumulate_t<T>> linear_by_weight(const Tensor<T>& dy, const Tensor<T>& x) {
    detail::expect_linear_by_weight(dy.shape(), x.shape());
    return conv2d_by_weight<T>(Pending<T>(cpu::as_pixels(x)), cpu::as_pixels(dy), {}, {dy.extent(1), x.extent(1), 1, 1})
        .reshape({dy.extent(1), x.extent(1)});
}

/// dbias = sum of the rows of dy.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<accumulate_t<T>> linear_by_bias(const Tensor<T>& dy) {
    expect_rank("linear_by_bias", "dy", dy.shape(), 2);
    using A = accumulate_t<T>;
    const Index columns = dy.extent(1);
    const Index grain = cpu::sweep_rows(columns);
    Tensor<A> partial(Shape{cpu::quotient_up(dy.extent(0), grain), columns});
    parallel_ranges(dy.extent(0), grain, [&](Index first, Index last) {
        A* sums = partial.data() + first / grain * columns;
        for (Index row = first; row < last; ++row) {
            const T* values = dy.data() + row * columns;
            cpu::for_each_vector<T>(columns, [&](Index o, auto count) {
                cpu::store_some<A>(cpu::load_some(sums + o, count) + cpu::load_some(values + o, count), sums + o,
                                   count);
            });
        }
    });
    const Tensor<double> total = cpu::merged_rows(partial);
    Tensor<A> dbias = Tensor<A>::empty({columns});
    for (Index o = 0; o < columns; ++o) dbias.data()[o] = static_cast<A>(total.data()[o]);
    return dbias;
}

SD_NAMESPACE_END
