// Pending tensors, applied on load.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/pending_gradient.hpp"
#include "sd/cpu/vector_activation.hpp"
#include "sd/reference/pending.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

using reference::materialize;

namespace cpu {

/// Elements that one thread takes at a time in sweeps over memory: enough to hide the cost of handing them out.
inline constexpr Index sweep_elements = 32768;

/// Rows of `columns` elements that make about sweep_elements.
[[nodiscard]] inline Index sweep_rows(Index columns) {
    return std::max<Index>(1, sweep_elements / std::max<Index>(1, columns));
}

/// values[0..count) = the values of channels [channel, channel + count), whose raw values start at `raw`.
template <class T>
void load_pending(const Pending<T>& x, const T* raw, Index channel, Index count, T* values) {
    const T* gate = nullptr;
    if (x.gate) {
        const Index sample = (raw - x.raw.data()) / (x.raw.size() / x.gate.extent(0));
        gate = x.gate.data() + sample * x.channels() + channel;
    }
    for_each_vector<T>(count, [&](Index c, auto some) {
        Vector<T> value = load_some(raw + c, some);
        if (x.scale) {
            const Vector<T> scale = load_some(x.scale.data() + channel + c, some);
            const Vector<T> shift = load_some(x.shift.data() + channel + c, some);
            value = scale * value + shift;
        }
        if (!has_own_path(x.activation)) {
            value = activated<accumulate_t<T>>(x.activation, value);
        } else if (x.activation == Activation::relu) {
            value = rectified<T>(value);
        }
        if (gate != nullptr) value *= load_some(gate + c, some);
        store_some<T>(value, values + c, some);
    });
}

/// The same gradient under other extents.
template <class T>
[[nodiscard]] PendingGradient<T> reshaped(PendingGradient<T> dy, const Shape& shape) {
    dy.dy = dy.dy.reshape(shape);
    if (!dy.is_plain()) dy.y.raw = dy.y.raw.reshape(shape);
    return dy;
}

}  // namespace cpu

/// The values of a pending tensor; the tensor itself if it is plain.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> materialize(const Pending<T>& x) {
    if (x.is_plain()) return x.raw;
    Tensor<T> y = Tensor<T>::empty(x.shape());
    const Index channels = x.channels();
    if (y.size() == 0) return y;
    parallel_ranges(y.size() / channels, cpu::sweep_rows(channels), [&](Index first, Index last) {
        for (Index row = first; row < last; ++row) {
            cpu::load_pending(x, x.raw.data() + row * channels, 0, channels, y.data() + row * channels);
        }
    });
    return y;
}

/// The values of a pending gradient; the tensor itself if it is plain.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> materialize(const PendingGradient<T>& dy) {
    if (dy.is_plain()) return dy.dy;
    Tensor<T> dz = Tensor<T>::empty(dy.shape());
    if (dz.size() == 0) return dz;
    const Index channels = dy.y.channels();
    parallel_ranges(dz.size() / channels, cpu::sweep_rows(channels), [&](Index first, Index last) {
        using cpu::load_some;
        const Index pixels = dy.gate ? dz.size() / channels / dy.gate.factor.extent(0) : 1;
        for (Index row = first; row < last; ++row) {
            const Index from = row * channels;
            const Index gate = row / pixels * channels;
            cpu::for_each_vector<T>(channels, [&](Index c, auto some) {
                const cpu::Vector<T> scale = load_some(dy.y.scale.data() + c, some);
                const cpu::Vector<T> shift = load_some(dy.y.shift.data() + c, some);
                const cpu::Vector<T> center = load_some(dy.center.data() + c, some);
                const cpu::Vector<T> slope = load_some(dy.slope.data() + c, some);
                const cpu::Vector<T> offset = load_some(dy.offset.data() + c, some);
                const cpu::Vector<T> z = load_some(dy.y.raw.data() + from + c, some);
                cpu::Vector<T> g = load_some(dy.dy.data() + from + c, some);
                if (dy.gate) {
                    const cpu::Vector<T> factor = load_some(dy.gate.factor.data() + gate + c, some);
                    const cpu::Vector<T> common = load_some(dy.gate.common.data() + gate + c, some);
                    g = factor * g + common;
                }
                if (!cpu::has_own_path(dy.y.activation)) {
                    g = cpu::gradient_before<accumulate_t<T>>(dy.y.activation, g, scale * z + shift);
                } else if (dy.y.activation == Activation::relu) {
                    g = cpu::gradient_before_relu<T>(g, scale * z + shift);
                }
                cpu::store_some<T>(scale * g + slope * (z - center) + offset, dz.data() + from + c, some);
            });
        }
    });
    return dz;
}

SD_NAMESPACE_END
