// Inputs of a device's kernels, drawn at random. KernelDevice is the device that the including unit tests: the
// emulator, or a GPU.
#pragma once

#include "kernel_inputs.hpp"

#include "sd/sd.hpp"

#include "sd/device/kernels.hpp"

#include <cstdint>

namespace cuda_cases {

using sd::Index;
using sd::Shape;
using sd_test::activation_of;
using sd_test::check_close;
using sd_test::Draw;
using sd_test::in_double;
using sd_test::pending_kinds;
using Device = KernelDevice;
template <class T>
using Tensor = sd::Tensor<T, Device>;
template <class T>
using Pending = sd::Pending<T, Device>;
template <class T>
using Pass = sd::BatchNormPass<T, Device>;
template <class T>
using Sums = sd::BatchNormSums<sd::accumulate_t<T>, Device>;

constexpr int repetitions = 30;

template <class T>
Tensor<T> random_tensor(const Shape& shape, std::uint64_t stream, double low = -1, double high = 1) {
    return sd_test::random_tensor<T, Device>(shape, stream, low, high);
}

template <class T>
Pending<T> random_pending(const Shape& shape, std::uint64_t stream, Index kind) {
    return sd_test::random_pending<T, Device>(shape, stream, kind);
}

template <class T>
Pass<T> random_pass(const Shape& shape, std::uint64_t stream, sd::Activation activation, bool batch_statistics) {
    return sd_test::random_pass<T, Device>(shape, stream, activation, batch_statistics);
}

template <class T>
sd::PendingGradient<T, Device> random_gradient(const Shape& shape, std::uint64_t stream, Index kind) {
    return sd_test::random_gradient<T, Device>(shape, stream, kind);
}

// Channels that threads take one by one, and those that they take 16 bytes at a time, few and many.
inline Index random_channels(Draw& draw) {
    constexpr Index choices[] = {1, 3, 8, 16, 24, 37, 64, 136, 300, 2048};
    return choices[draw(0, 9)];
}

}  // namespace cuda_cases
