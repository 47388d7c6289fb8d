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
using sd_test::activations;
using sd_test::check_close;
using sd_test::Draw;
using sd_test::gate_shape;
using sd_test::in_double;
using sd_test::is_gated;
using sd_test::pending_kinds;
using sd_test::random_selection;
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
    return sd::converted<T>(
        sd::to_device<Device>(sd_test::random_tensor<sd::accumulate_t<T>>(shape, stream, low, high)));
}

template <class T>
Pending<T> random_pending(const Shape& shape, std::uint64_t stream, Index kind) {
    using A = sd::accumulate_t<T>;
    if (is_gated(kind)) {
        return random_pending<T>(shape, stream, sd_test::ungated_kind(kind))
            .gated(random_tensor<T>(gate_shape(shape), stream + 60));
    }
    const Shape channels{shape[shape.rank() - 1]};
    if (kind == 0) return random_tensor<T>(shape, stream);
    const double reach = sd_test::largest_scale(kind);
    return {random_tensor<T>(shape, stream), random_tensor<A>(channels, stream + 1, -reach, reach),
            random_tensor<A>(channels, stream + 2), activation_of(kind - 1)};
}

template <class T>
Pass<T> random_pass(const Shape& shape, std::uint64_t stream, sd::Activation activation, bool batch_statistics) {
    using A = sd::accumulate_t<T>;
    const Shape channels{shape[shape.rank() - 1]};
    return {random_pending<T>(shape, stream, 1 + static_cast<Index>(activation)),
            random_tensor<A>(channels, stream + 3), random_tensor<A>(channels, stream + 4, 0.5, 2), batch_statistics};
}

template <class T>
sd::PendingGradient<T, Device> random_gradient(const Shape& shape, std::uint64_t stream, Index kind) {
    using A = sd::accumulate_t<T>;
    if (is_gated(kind)) {
        return random_gradient<T>(shape, stream, sd_test::ungated_gradient_kind(kind))
            .through(
                {random_tensor<T>(gate_shape(shape), stream + 60), random_tensor<T>(gate_shape(shape), stream + 61)});
    }
    const auto dy = random_tensor<T>(shape, stream);
    if (kind == 0) return dy;
    const Shape channels{shape[shape.rank() - 1]};
    return {dy, random_pending<T>(shape, stream + 1, kind), random_tensor<A>(channels, stream + 4),
            random_tensor<A>(channels, stream + 5), random_tensor<A>(channels, stream + 6)};
}

// Channels that threads take one by one, and those that they take 16 bytes at a time, few and many.
inline Index random_channels(Draw& draw) {
    constexpr Index choices[] = {1, 3, 8, 16, 24, 37, 64, 136, 300, 2048};
    return choices[draw(0, 9)];
}

}  // namespace cuda_cases
