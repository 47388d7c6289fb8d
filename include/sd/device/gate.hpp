// What the backward pass of a gate gathers, on a device.
#pragma once

#include "sd/core/moments.hpp"
#include "sd/device/batch_norm_backward.hpp"
#include "sd/device/sample_sums.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// of_gate(n, c) = the sum of dy x over the pixels of sample n; and, if `with_norm`, the parts of the batch norm whose
/// output x is: of_norm (N, 4, C).
template <class T, int width, bool with_norm>
struct GateProducts {
    using A = accumulate_t<T>;
    using Sums = SampleSums<T, width, with_norm ? 5 : 1>;
    using Shared = typename Sums::Shared;
    static constexpr int phases = 2;
    Sweep sweep;  ///< a block of rows is a sample
    PendingView<T> x;
    const T* dy;
    T* of_gate;
    const A* mean = nullptr;  ///< the norm's
    A* of_norm = nullptr;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const PendingChannels<T, width> channels(x, at.channel);
        Sums sums;
        sweep.for_each_row(at, [&](Index, Index element) {
            const Pack<T, width> z = load<width>(x.raw + element);
            const Pack<T, width> upstream = load<width>(dy + element);
            for (int i = 0; i < width; ++i) {
                const A g = A(upstream.value[i]);
                if constexpr (with_norm) {
                    const auto [value, slope] = channels.value_and_slope(z.value[i], i);
                    const A before = slope == A(0) ? A(0) : A(g * slope);
                    const A deviation = A(z.value[i]) - mean[at.channel + i];
                    sums.part[0][i] += g * value;
                    sums.part[1][i] += before * deviation;
                    sums.part[2][i] += before;
                    sums.part[3][i] += slope * deviation;
                    sums.part[4][i] += slope;
                } else {
                    sums.part[0][i] += g * channels.apply(z.value[i], i);
                }
            }
        });
        sums.share(thread.index, shared);
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active || at.row_thread != 0) return;
        const Sums sums(sweep, thread.index, shared);
        for (int i = 0; i < width; ++i) {
            of_gate[at.row_block * sweep.channels + at.channel + i] = T(sums.part[0][i]);
            for (int k = 0; with_norm && k < 4; ++k) {
                of_norm[(at.row_block * 4 + k) * sweep.channels + at.channel + i] = sums.part[k + 1][i];
            }
        }
    }
};

template <class T, int width>
using GateProductsAlone = GateProducts<T, width, false>;
template <class T, int width>
using GateProductsWithNorm = GateProducts<T, width, true>;

/// partial (N, 2, C), the sums of the norm before a gate over each sample.
template <class T>
struct SumsThroughGate {
    using A = accumulate_t<T>;
    Index channels;
    const A* of_norm;
    const T *factor, *common;
    A* partial;

    SD_HOST_DEVICE void operator()(Index i) const {
        const Index n = i / channels / 2;
        const Index k = i / channels % 2;
        const Index c = i % channels;
        const A* own = of_norm + n * 4 * channels + c;
        partial[i] =
            A(factor[n * channels + c]) * own[k * channels] + A(common[n * channels + c]) * own[(k + 2) * channels];
    }
};

}  // namespace cuda

/// The sums over the pixels of each sample's channel that GateSums says, as on the CPU; those of the gate with room for as
/// many samples. Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] GateSums<T, Device> gate_sums(const Tensor<T, Device>& dy, const Pending<T, Device>& x,
                                            const BatchNormPass<T, Device>* before = nullptr) {
    using A = accumulate_t<T>;
    if (x.gate) return gate_sums<T>(dy, ungated(x), before);
    detail::expect_gate_sums(dy.shape(), x.shape(), before);
    const Index samples = dy.extent(0);
    const Index channels = dy.extent(3);
    GateSums<T, Device> sums{cuda::empty_with_cleared_room<T, Device>({samples, channels}, cuda::sample_room(x.raw)),
                             {}};
    if (before == nullptr) {
        cuda::launch_by_sample<Device, T, cuda::GateProductsAlone>(dy.shape(), cuda::PendingView<T>(x), dy.data(),
                                                                   sums.of_gate.data());
        return sums;
    }
    sums.of_norm = Tensor<A, Device>::empty({samples, 4, channels});
    cuda::launch_by_sample<Device, T, cuda::GateProductsWithNorm>(dy.shape(), cuda::PendingView<T>(before->y),
                                                                  dy.data(), sums.of_gate.data(), before->mean.data(),
                                                                  sums.of_norm.data());
    return sums;
}

/// The sums of the backward of the batch norm before a gate, as on the CPU.
/// Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] BatchNormSums<accumulate_t<T>, Device> batch_norm_sums(
    const GateSums<T, Device>& sums, const GateGradient<T, Device>& gate,
    const Tensor<accumulate_t<T>, Device>& inverse_std) {
    const Shape& shape = sums.of_gate.shape();
    detail::expect_sums_of_norm(shape, sums.of_norm.shape(), inverse_std.shape());
    auto partial = Tensor<accumulate_t<T>, Device>::empty({shape[0], 2, shape[1]});
    cuda::launch_each<Device>(
        partial.size(), cuda::SumsThroughGate<T>{shape[1], sums.of_norm.data(), gate.factor.data(), gate.common.data(),
                                                 partial.data()});
    return cuda::merged_sums<Device>(partial, inverse_std);
}

SD_NAMESPACE_END
