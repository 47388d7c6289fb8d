// The fully connected layer on a device.
#pragma once

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

/// dbias(o) = sum over n of dy(n, o).
template <class T>
struct ColumnSums {
    using A = accumulate_t<T>;
    Index rows, columns;
    const T* dy;
    A* dbias;

    SD_HOST_DEVICE void operator()(Index o) const {
        A sum = A(0);
        for (Index n = 0; n < rows; ++n) sum += A(dy[n * columns + o]);
        dbias[o] = sum;
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

/// y = x weight^T + bias with x (N, I), weight (O, I), bias (O), y (N, O).
/// Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> linear_forward(const Tensor<T, Device>& x,
                                               const Tensor<accumulate_t<T>, Device>& weight,
                                               const Tensor<accumulate_t<T>, Device>& bias) {
    expect_rank("linear_forward", "x", x.shape(), 2);
    expect_rank("linear_forward", "weight", weight.shape(), 2);
    expect_shape("linear_forward", "bias", bias.shape(), {weight.extent(0)});
    expect_shape("linear_forward", "x", x.shape(), {x.extent(0), weight.extent(1)});
    auto y = Tensor<T, Device>::empty({x.extent(0), weight.extent(0)});
    if (y.size() > 0) cuda::LinearEngine<T, Device>::forward(x, weight, bias, y);
    return y;
}

/// dx = dy weight. Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> linear_by_input(const Tensor<T, Device>& dy,
                                                const Tensor<accumulate_t<T>, Device>& weight) {
    expect_rank("linear_by_input", "dy", dy.shape(), 2);
    expect_rank("linear_by_input", "weight", weight.shape(), 2);
    expect_shape("linear_by_input", "dy", dy.shape(), {dy.extent(0), weight.extent(0)});
    auto dx = Tensor<T, Device>::empty({dy.extent(0), weight.extent(1)});
    if (dx.size() > 0) cuda::LinearEngine<T, Device>::by_input(dy, weight, dx);
    return dx;
}

/// dweight = dy^T x. Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<accumulate_t<T>, Device> linear_by_weight(const Tensor<T, Device>& dy,
                                                               const Tensor<T, Device>& x) {
    expect_rank("linear_by_weight", "dy", dy.shape(), 2);
    expect_rank("linear_by_weight", "x", x.shape(), 2);
    expect_shape("linear_by_weight", "x", x.shape(), {dy.extent(0), x.extent(1)});
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
    auto dbias = Tensor<accumulate_t<T>, Device>::empty({dy.extent(1)});
    cuda::launch_each<Device>(dy.extent(1), cuda::ColumnSums<T>{dy.extent(0), dy.extent(1), dy.data(), dbias.data()});
    return dbias;
}

SD_NAMESPACE_END
