// The fully connected layer on a device.
#pragma once

#include "sd/core/kept_weights.hpp"
#include "sd/core/linear.hpp"
#include "sd/device/batch_norm_backward.hpp"
#include "sd/device/elementwise.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// A matrix product whose every sum is one thread's, in order:
///
///     result(r, c) = start(c) + sum over k of a(r, k) b(c, k)
///
/// with elements a + r a_row + k a_step, and start 0 if there is none.
template <class Result, class X, class Y>
struct DirectProduct {
    using A = accumulate_t<Result>;
    Index columns, terms;
    const X* a;
    Index a_row, a_step;
    const Y* b;
    Index b_row, b_step;
    const A* start;
    Result* result;

    SD_HOST_DEVICE void operator()(Index element) const {
        const Index row = element / columns;
        const Index column = element % columns;
        A sum = start == nullptr ? A(0) : start[column];
        for (Index k = 0; k < terms; ++k) {
            sum += A(a[row * a_row + k * a_step]) * A(b[column * b_row + k * b_step]);
        }
        result[element] = Result(sum);
    }
};

/// The sums of columns over each block of rows: partial (row_blocks, 2, C), the second of the pair.
template <class T, int width>
struct ColumnSums {
    using A = accumulate_t<T>;
    using Sums = ChannelPairs<A, width>;
    using Shared = typename Sums::Shared;
    static constexpr int phases = 2;
    Sweep sweep;
    const T* dy;
    A* partial;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        Sums sums;
        sweep.for_each_row(at, [&](Index, Index element) {
            const Pack<T, width> value = load<width>(dy + element);
            for (int i = 0; i < width; ++i) sums.dbias[i] += A(value.value[i]);
        });
        sums.share(thread.index, shared);
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active || at.row_thread != 0) return;
        Sums::merge(sweep, at, thread.index, shared, partial + at.row_block * 2 * sweep.channels);
    }
};

/// The products of the layer. A device with a library for some T specialises it.
template <class T, class Device>
struct LinearEngine {
    using A = accumulate_t<T>;

    /// y (N, O) = x weight^T + bias.
    static void forward(const Tensor<T, Device>& x, const Tensor<A, Device>& weight, const Tensor<A, Device>& bias,
                        Tensor<T, Device>& y) {
        const Index inputs = x.extent(1);
        launch_each<Device>(y.size(), DirectProduct<T, T, A>{y.extent(1), inputs, x.data(), inputs, 1, weight.data(),
                                                             inputs, 1, bias.data(), y.data()});
    }
    /// dx (N, I) = dy weight.
    static void by_input(const Tensor<T, Device>& dy, const Tensor<A, Device>& weight, Tensor<T, Device>& dx) {
        const Index inputs = dx.extent(1), outputs = dy.extent(1);
        launch_each<Device>(dx.size(), DirectProduct<T, T, A>{inputs, outputs, dy.data(), outputs, 1, weight.data(), 1,
                                                              inputs, nullptr, dx.data()});
    }
    /// dweight (O, I) = dy^T x.
    static void by_weight(const Tensor<T, Device>& dy, const Tensor<T, Device>& x, Tensor<A, Device>& dweight) {
        const Index inputs = x.extent(1), outputs = dy.extent(1);
        launch_each<Device>(dweight.size(), DirectProduct<A, T, T>{inputs, dy.extent(0), dy.data(), 1, outputs,
                                                                   x.data(), 1, inputs, nullptr, dweight.data()});
    }
};

}  // namespace cuda

/// y = x weight^T + bias with x (N, I), weight (O, I), bias (O), y (N, O). Nothing is made of the weight, so nothing is kept.
/// Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> linear_forward(const Tensor<T, Device>& x,
                                               const Tensor<accumulate_t<T>, Device>& weight,
                                               const Tensor<accumulate_t<T>, Device>& bias,
                                               KeptWeights* /*kept*/ = nullptr) {
    detail::expect_linear(x.shape(), weight.shape(), bias.shape());
    auto y = Tensor<T, Device>::empty({x.extent(0), weight.extent(0)});
    if (y.size() > 0) cuda::LinearEngine<T, Device>::forward(x, weight, bias, y);
    return y;
}

/// dx = dy weight. Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> linear_by_input(const Tensor<T, Device>& dy,
                                                const Tensor<accumulate_t<T>, Device>& weight) {
    detail::expect_linear_by_input(dy.shape(), weight.shape());
    auto dx = Tensor<T, Device>::empty({dy.extent(0), weight.extent(1)});
    if (dx.size() > 0) cuda::LinearEngine<T, Device>::by_input(dy, weight, dx);
    return dx;
}

/// dweight = dy^T x. Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<accumulate_t<T>, Device> linear_by_weight(const Tensor<T, Device>& dy,
                                                               const Tensor<T, Device>& x) {
    detail::expect_linear_by_weight(dy.shape(), x.shape());
    auto dweight = Tensor<accumulate_t<T>, Device>::empty({dy.extent(1), x.extent(1)});
    if (x.extent(0) == 0) {
        dweight.fill(accumulate_t<T>(0));
    } else {
        cuda::LinearEngine<T, Device>::by_weight(dy, x, dweight);
    }
    return dweight;
}

/// dbias = sum of the rows of dy.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<accumulate_t<T>, Device> linear_by_bias(const Tensor<T, Device>& dy) {
    expect_rank("linear_by_bias", "dy", dy.shape(), 2);
    using A = accumulate_t<T>;
    Tensor<A, Device> partial;
    cuda::with_width<T>(dy.extent(1), [&](auto width) {
        const cuda::Sweep sweep(dy.extent(0), dy.extent(1), width, 16, cuda::reduction_blocks);
        partial = Tensor<A, Device>::empty({sweep.row_blocks, 2, dy.extent(1)});
        cuda::launch<Device>(cuda::ColumnSums<T, width()>{sweep, dy.data(), partial.data()}, sweep.blocks());
    });
    return cuda::merged_sums<Device>(partial, Tensor<A, Device>::full({dy.extent(1)}, A(1))).dbias;
}

SD_NAMESPACE_END
