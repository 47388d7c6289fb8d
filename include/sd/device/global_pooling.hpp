// Global average pooling on a device.
#pragma once

#include "sd/core/window.hpp"
#include "sd/device/pending.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// y(n, c) = the mean of x(n, :, c); the rows of the sweep are samples.
template <class T, int width>
struct GlobalAvgPoolForward {
    using A = accumulate_t<T>;
    Sweep sweep;
    Index pixels;
    const T* x;
    T* y;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        sweep.for_each_row(at, [&](Index n, Index element) {
            A sum[width];
            for (int i = 0; i < width; ++i) sum[i] = A(0);
            for (Index pixel = 0; pixel < pixels; ++pixel) {
                const Pack<T, width> value = load<width>(x + (n * pixels + pixel) * sweep.channels + at.channel);
                for (int i = 0; i < width; ++i) sum[i] += A(value.value[i]);
            }
            Pack<T, width> result;
            for (int i = 0; i < width; ++i) result.value[i] = T(A(sum[i] / static_cast<A>(pixels)));
            store<width>(result, y + element);
        });
    }
};

/// dx(n, :, c) = dy(n, c) / pixels; the rows of the sweep are pixels of all samples.
template <class T, int width>
struct GlobalAvgPoolByInput {
    using A = accumulate_t<T>;
    Sweep sweep;
    Index pixels;
    const T* dy;
    T* dx;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        sweep.for_each_row(at, [&](Index row, Index element) {
            Pack<T, width> g = load<width>(dy + row / pixels * sweep.channels + at.channel);
            for (int i = 0; i < width; ++i) g.value[i] = T(A(A(g.value[i]) / static_cast<A>(pixels)));
            store<width>(g, dx + element);
        });
    }
};

}  // namespace cuda

/// y(n, c) = the mean of x(n, :, :, c). Throws std::invalid_argument for images without pixels.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> global_avg_pool_forward(const Tensor<T, Device>& x) {
    expect_rank("global_avg_pool_forward", "x", x.shape(), 4);
    detail::expect_pixels("global_avg_pool_forward", x.shape());
    auto y = Tensor<T, Device>::empty({x.extent(0), x.extent(3)});
    cuda::launch_sweep<Device, T, cuda::GlobalAvgPoolForward>(x.extent(0), x.extent(3), 1, x.extent(1) * x.extent(2),
                                                              x.data(), y.data());
    return y;
}

/// dx = dy / (H W) in every pixel. x_shape is the shape of x.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> global_avg_pool_by_input(const Tensor<T, Device>& dy, const Shape& x_shape) {
    expect_rank("global_avg_pool_by_input", "x", x_shape, 4);
    expect_shape("global_avg_pool_by_input", "dy", dy.shape(), {x_shape[0], x_shape[3]});
    auto dx = Tensor<T, Device>::empty(x_shape);
    cuda::launch_sweep<Device, T, cuda::GlobalAvgPoolByInput>(cuda::rows_of(x_shape), x_shape[3], 8,
                                                              x_shape[1] * x_shape[2], dy.data(), dx.data());
    return dx;
}

SD_NAMESPACE_END
