// Global average pooling on a device.
#pragma once

#include "sd/core/window.hpp"
#include "sd/device/pending.hpp"
#include "sd/device/sample_sums.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// y(n, c) = the mean of x(n, :, c), see SampleSums.
template <class T, int width>
struct GlobalAvgPoolForward {
    using A = accumulate_t<T>;
    using Sums = SampleSums<T, width, 1>;
    using Shared = typename Sums::Shared;
    static constexpr int phases = 2;
    Sweep sweep;  ///< a block of rows is a sample
    PendingView<T> x;
    const T* gate;  ///< (N, C), or nullptr
    T* y;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const PendingChannels<T, width> channels(x, at.channel);
        Sums sums;
        sweep.for_each_row(at, [&](Index, Index element) {
            const Pack<T, width> z = load<width>(x.raw + element);
            for (int i = 0; i < width; ++i) sums.part[0][i] += channels.apply(z.value[i], i);
        });
        sums.share(thread.index, shared);
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active || at.row_thread != 0) return;
        const Sums sums(sweep, thread.index, shared);
        const Index own = at.row_block * sweep.channels + at.channel;
        for (int i = 0; i < width; ++i) {
            A mean = sums.part[0][i] / static_cast<A>(sweep.rows_of_block);
            if (gate != nullptr) mean = A(gate[own + i]) * mean;
            y[own + i] = T(mean);
        }
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

/// y(n, c) = the mean of x(n, :, :, c), what is pending of x applied as it is read, with room for as many samples.
/// Throws std::invalid_argument for images without pixels.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> global_avg_pool_forward(const Pending<T, Device>& x) {
    detail::expect_global_avg_pool(x.shape());
    auto y = cuda::empty_with_cleared_room<T, Device>({x.shape()[0], x.channels()}, cuda::sample_room(x.raw));
    cuda::launch_by_sample<Device, T, cuda::GlobalAvgPoolForward>(x.shape(), cuda::PendingView<T>(x), x.gate.data(),
                                                                  y.data());
    return y;
}

/// dx = dy / (H W) in every pixel. x_shape is the shape of x.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> global_avg_pool_by_input(const Tensor<T, Device>& dy, const Shape& x_shape) {
    detail::expect_global_avg_pool_by_input(dy.shape(), x_shape);
    auto dx = Tensor<T, Device>::empty(x_shape);
    cuda::launch_sweep<Device, T, cuda::GlobalAvgPoolByInput>(cuda::rows_of(x_shape), x_shape[3], 8,
                                                              x_shape[1] * x_shape[2], dy.data(), dx.data());
    return dx;
}

SD_NAMESPACE_END
