// Inputs of kernels, and kernels' outputs against the plain loops of reference/ in double: for all devices.
#pragma once

#include "random.hpp"

#include "sd/core/bfloat16.hpp"
#include "sd/core/join.hpp"
#include "sd/core/moments.hpp"
#include "sd/core/pending_gradient.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace sd_test {

using sd::Index;
using sd::Pending;
using sd::Shape;
using sd::Tensor;

/// Small whole numbers for one test case, drawn one after the other.
class Draw {
public:
    explicit Draw(std::uint64_t stream) : stream_(stream) {}
    Index operator()(Index low, Index high) {
        const auto words = sd::random_words(sd_test::seed, sd::Stream::shuffle, stream_, 0, next_++);
        return low + static_cast<Index>(sd::uniform_below(words[0], static_cast<std::uint32_t>(high - low + 1)));
    }

private:
    std::uint64_t stream_;
    std::uint32_t next_ = 0;
};

/// The elements of a tensor of any device.
template <class T, class Device>
Tensor<double> in_double(const Tensor<T, Device>& x) {
    const Tensor<T> own = sd::to_host(x);
    Tensor<double> result(x.shape());
    std::transform(own.begin(), own.end(), result.begin(),
                   [](const T& value) { return static_cast<double>(sd::accumulate_t<T>(value)); });
    return result;
}

template <class T, class Device>
Pending<double> in_double(const Pending<T, Device>& x) {
    const auto result = x.scale
                            ? Pending<double>(in_double(x.raw), in_double(x.scale), in_double(x.shift), x.activation)
                            : Pending<double>(in_double(x.raw));
    return x.gate ? result.gated(in_double(x.gate)) : result;
}

template <class T, class Device>
sd::BatchNormPass<double> in_double(const sd::BatchNormPass<T, Device>& pass) {
    return {in_double(pass.y), in_double(pass.mean), in_double(pass.inverse_std), pass.batch_statistics};
}

template <class T, class Device>
sd::BatchNormSums<double> in_double(const sd::BatchNormSums<T, Device>& sums) {
    return {in_double(sums.dweight), in_double(sums.dbias)};
}

template <class T, class Device>
sd::PendingGradient<double> in_double(const sd::PendingGradient<T, Device>& dy) {
    if (dy.is_plain()) return in_double(dy.dy);
    const sd::PendingGradient<double> result{in_double(dy.dy), in_double(dy.y), in_double(dy.center),
                                             in_double(dy.slope), in_double(dy.offset)};
    return dy.gate ? result.through({in_double(dy.gate.factor), in_double(dy.gate.common)}) : result;
}

template <class T, class Device>
sd::GateSums<double> in_double(const sd::GateSums<T, Device>& sums) {
    return {in_double(sums.of_gate), in_double(sums.of_norm)};
}

/// What rounding may do to numbers of type T, relative to the largest.
template <class T>
inline constexpr double rounding = 8e-3;  // a format of 8 significant bits
template <>
inline constexpr double rounding<float> = 2e-5;
template <>
inline constexpr double rounding<double> = 1e-13;

template <class T, class Device>
void check_close(const Tensor<T, Device>& got, const Tensor<double>& expected, double tolerance = 1) {
    CHECK(relative_error(in_double(got), expected) < tolerance * rounding<T>);
}

/// What was computed in float and rounded once: each element, however small, is within half a unit in its own last
/// place of a number that float's rounding allows.
inline void check_close(const Tensor<sd::bfloat16>& got, const Tensor<double>& expected, double tolerance = 1) {
    REQUIRE(got.shape() == expected.shape());
    double largest = 1e-3;
    for (const double value : expected) largest = std::max(largest, std::abs(value));
    double excess = -1;
    for (Index i = 0; i < got.size(); ++i) {
        const double value = expected.data()[i];
        const double difference = std::abs(static_cast<double>(static_cast<float>(got.data()[i])) - value);
        if (!(difference <= std::abs(value) / 256 + tolerance * rounding<float> * largest)) excess = difference;
    }
    CHECK(excess < 0);
}

/// All activations.
inline constexpr Index activations = static_cast<Index>(std::size(sd::detail::EnumNames<sd::Activation>::names));
[[nodiscard]] inline sd::Activation activation_of(Index number) {
    return static_cast<sd::Activation>(number % activations);
}

/// Kinds of pending tensors: plain, scaled and shifted with each activation, gated, and gated behind an activation.
inline constexpr Index pending_kinds = 1 + activations + 2;
[[nodiscard]] inline bool is_gated(Index kind) { return kind > activations; }
/// A kind without its gate: plain, or SiLU.
[[nodiscard]] inline Index ungated_kind(Index kind) {
    if (!is_gated(kind)) return kind;
    return kind == activations + 1 ? 0 : 1 + static_cast<Index>(sd::Activation::silu);
}
/// The same of a gradient, which a gate has no plain kind of: ReLU or SiLU.
[[nodiscard]] inline Index ungated_gradient_kind(Index kind) {
    return is_gated(kind) ? std::max(ungated_kind(kind), 1 + static_cast<Index>(sd::Activation::relu)) : kind;
}
/// One number for each sample's channel.
[[nodiscard]] inline Shape gate_shape(const Shape& shape) { return {shape[0], shape[shape.rank() - 1]}; }
/// Where the scales of a kind end: values reach both ends of relu6 and hardswish.
[[nodiscard]] inline double largest_scale(Index kind) { return kind > 2 ? 7 : 1; }

/// Plain for kind 0, scaled and shifted, with the activation number kind - 1, or gated.
template <class T, class Device = sd::Cpu>
sd::Pending<T, Device> random_pending(const Shape& shape, std::uint64_t stream, Index kind) {
    if (is_gated(kind)) {
        return random_pending<T, Device>(shape, stream, ungated_kind(kind))
            .gated(random_tensor<T, Device>(gate_shape(shape), stream + 60));
    }
    const Shape channels{shape[shape.rank() - 1]};
    const auto raw = random_tensor<T, Device>(shape, stream);
    if (kind == 0) return raw;
    const double reach = largest_scale(kind);
    using A = sd::accumulate_t<T>;
    return {raw, random_tensor<A, Device>(channels, stream + 1, -reach, reach),
            random_tensor<A, Device>(channels, stream + 2), activation_of(kind - 1)};
}

/// The forward pass of a batch norm and an activation, whatever statistics it had.
template <class T, class Device = sd::Cpu>
sd::BatchNormPass<T, Device> random_pass(const Shape& shape, std::uint64_t stream, sd::Activation activation,
                                         bool batch_statistics) {
    const Shape channels{shape[shape.rank() - 1]};
    using A = sd::accumulate_t<T>;
    return {random_pending<T, Device>(shape, stream, 1 + static_cast<Index>(activation)),
            random_tensor<A, Device>(channels, stream + 3), random_tensor<A, Device>(channels, stream + 4, 0.5, 2),
            batch_statistics};
}

/// Plain for kind 0, else batch norm's, with the activation number kind - 1 behind it, or an activation and a gate.
template <class T, class Device = sd::Cpu>
sd::PendingGradient<T, Device> random_gradient(const Shape& shape, std::uint64_t stream, Index kind) {
    if (is_gated(kind)) {
        return random_gradient<T, Device>(shape, stream, ungated_gradient_kind(kind))
            .through({random_tensor<T, Device>(gate_shape(shape), stream + 60),
                      random_tensor<T, Device>(gate_shape(shape), stream + 61)});
    }
    const auto dy = random_tensor<T, Device>(shape, stream);
    if (kind == 0) return dy;
    const Shape channels{shape[shape.rank() - 1]};
    using A = sd::accumulate_t<T>;
    return {dy, random_pending<T, Device>(shape, stream + 1, kind), random_tensor<A, Device>(channels, stream + 4),
            random_tensor<A, Device>(channels, stream + 5), random_tensor<A, Device>(channels, stream + 6)};
}

template <class T, class Device>
void check_close(const sd::BatchNormSums<T, Device>& got, const sd::BatchNormSums<double>& expected) {
    check_close(got.dweight, expected.dweight);
    check_close(got.dbias, expected.dbias);
}

/// Each sample of a batch joins another sample of the branch, in a drawn order, or none.
inline std::vector<Index> random_selection(Index samples, Draw& draw, Index& branch_samples) {
    std::vector<Index> selection(static_cast<std::size_t>(samples), -1);
    branch_samples = 0;
    for (Index& sample : selection) {
        if (draw(0, 2) != 0) sample = branch_samples++;
    }
    for (Index& sample : selection) {
        if (sample >= 0) sample = branch_samples - 1 - sample;
    }
    return selection;
}

}  // namespace sd_test
