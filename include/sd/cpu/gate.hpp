// What the backward pass of a gate gathers, in one pass over memory: the sums for the gate itself, and those of which the
// batch norm before it needs its own.
#pragma once

#include "sd/core/moments.hpp"
#include "sd/core/parallel.hpp"
#include "sd/cpu/batch_norm.hpp"
#include "sd/cpu/elementwise.hpp"
#include "sd/cpu/sample_sums.hpp"
#include "sd/cpu/source.hpp"
#include "sd/cpu/vector_activation.hpp"
#include "sd/reference/gate.hpp"

SD_NAMESPACE_BEGIN

using reference::batch_norm_sums;
using reference::gate_sums;

namespace cpu {

/// The sums of a gate behind a batch norm: (N, 5, C), that of the gate first.
template <class T>
[[nodiscard]] Tensor<accumulate_t<T>> gate_sums_with_norm(const Tensor<T>& dy, const BatchNormPass<T>& pass) {
    using A = accumulate_t<T>;
    const Pending<T>& y = pass.y;
    const auto run = [&](const auto& value_and_slope) {
        return sums_of_samples<T, 5>(dy.shape(), 1, [&](Index element, Index pixels, Index c, auto count, auto& sums) {
            const Vector<T> scale = load_some(y.scale.data() + c, count);
            const Vector<T> shift = load_some(y.shift.data() + c, count);
            const Vector<T> center = load_some(pass.mean.data() + c, count);
            for (Index p = 0; p < pixels; ++p, element += y.channels()) {
                const Vector<T> z = load_some(y.raw.data() + element, count);
                const Vector<T> upstream = load_some(dy.data() + element, count);
                const auto [value, slope] = value_and_slope(scale * z + shift);
                const Vector<T> g = slope == Vector<T>{} ? Vector<T>{} : upstream * slope;
                const Vector<T> deviation = z - center;
                sums[0] += upstream * value;
                sums[1] += g * deviation;
                sums[2] += g;
                sums[3] += slope * deviation;
                sums[4] += slope;
            }
        });
    };
    if (!has_own_path(y.activation)) {
        return run([&](const Vector<T>& v) { return activated_with_slope<A>(y.activation, v); });
    }
    const Vector<T> ones = Vector<T>{} + A(1);
    if (y.activation == Activation::none) return run([&](const Vector<T>& v) { return ValueAndSlope<A>{v, ones}; });
    return run([&](const Vector<T>& v) { return ValueAndSlope<A>{rectified<T>(v), gradient_before_relu<T>(ones, v)}; });
}

}  // namespace cpu

/// The sums over the pixels of each sample's channel that GateSums says, of dy (N, H, W, C) and x of the same shape. If x
/// comes from a batch norm, `before` is its forward pass, and the norm's parts are gathered in the same pass over memory.
/// Throws std::invalid_argument if shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] GateSums<T> gate_sums(const Tensor<T>& dy, const Pending<T>& x,
                                    const BatchNormPass<T>* before = nullptr) {
    detail::expect_gate_sums(dy.shape(), x.shape(), before);
    const Shape of_channels{dy.extent(0), dy.extent(3)};
    if (before == nullptr) {
        const cpu::PendingSource<T> source(x);
        const auto add = [&](Index element, Index pixels, Index c, auto count, auto& sums) {
            source.with_channels(c, cpu::constant<1>, count, [&](const auto& value_at) {
                for (Index p = 0; p < pixels; ++p, element += x.channels()) {
                    sums[0] += cpu::load_some(dy.data() + element, count) * value_at(element, cpu::constant<0>);
                }
            });
        };
        return {converted<T>(cpu::sums_of_samples<T, 1>(dy.shape(), 1, add).reshape(of_channels)), {}};
    }
    using A = accumulate_t<T>;
    const Tensor<A> all = cpu::gate_sums_with_norm(dy, *before);
    GateSums<T> sums{Tensor<T>::empty(of_channels), Tensor<A>::empty({of_channels[0], 4, of_channels[1]})};
    const Index channels = of_channels[1];
    for (Index n = 0; n < of_channels[0]; ++n) {
        const A* own = all.data() + n * 5 * channels;
        for (Index c = 0; c < channels; ++c) sums.of_gate.data()[n * channels + c] = T(own[c]);
        std::copy(own + channels, own + 5 * channels, sums.of_norm.data() + n * 4 * channels);
    }
    return sums;
}

/// The sums of the backward of the batch norm before a gate, whose gradient by the norm's output is gate.factor dy +
/// gate.common: of what gate_sums() gathered of it. Throws std::invalid_argument if shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] BatchNormSums<accumulate_t<T>> batch_norm_sums(const GateSums<T>& sums, const GateGradient<T>& gate,
                                                             const Tensor<accumulate_t<T>>& inverse_std) {
    const Shape& shape = sums.of_gate.shape();
    detail::expect_sums_of_norm(shape, sums.of_norm.shape(), inverse_std.shape());
    using A = accumulate_t<T>;
    const Index channels = shape[1];
    Tensor<A> partial = Tensor<A>::empty({shape[0], 2, channels});
    for (Index n = 0; n < shape[0]; ++n) {
        const A* own = sums.of_norm.data() + n * 4 * channels;
        const T* factor = gate.factor.data() + n * channels;
        const T* common = gate.common.data() + n * channels;
        A* target = partial.data() + n * 2 * channels;
        for (Index k = 0; k < 2; ++k) {
            for (Index c = 0; c < channels; ++c) {
                target[k * channels + c] =
                    A(factor[c]) * own[k * channels + c] + A(common[c]) * own[(k + 2) * channels + c];
            }
        }
    }
    return cpu::merge_row_sums(partial, inverse_std);
}

SD_NAMESPACE_END
