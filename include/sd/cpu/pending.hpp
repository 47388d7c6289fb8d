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

/// values[0..count) = those of channels [channel, channel + count), whose raw values start at `raw`, before the gate.
template <class T>
void load_activated(const Pending<T>& x, const T* raw, Index channel, Index count, T* values) {
    const T* scale = x.scale.data() + channel;
    const T* shift = x.shift.data() + channel;
    if (!has_own_path(x.activation)) {
        for_each_vector<T>(count, [&](Index c, auto some) {
            Vector<T> value = load_some(raw + c, some);
            if (x.scale) value = load_some(scale + c, some) * value + load_some(shift + c, some);
            store_some<T>(activated<T>(x.activation, value), values + c, some);
        });
        return;
    }
    if (!x.scale) {
        const bool relu = x.activation == Activation::relu;
        for (Index c = 0; c < count; ++c) values[c] = relu && raw[c] < T(0) ? T(0) : raw[c];
        return;
    }
    if (x.activation == Activation::relu) {
        for (Index c = 0; c < count; ++c) {
            const T value = scale[c] * raw[c] + shift[c];
            values[c] = value < T(0) ? T(0) : value;
        }
    } else {
        for (Index c = 0; c < count; ++c) values[c] = scale[c] * raw[c] + shift[c];
    }
}

/// values[0..count) = the values of channels [channel, channel + count), whose raw values start at `raw`.
template <class T>
void load_pending(const Pending<T>& x, const T* raw, Index channel, Index count, T* values) {
    load_activated(x, raw, channel, count, values);
    if (!x.gate) return;
    const Index sample = (raw - x.raw.data()) / (x.raw.size() / x.gate.extent(0));
    const T* gate = x.gate.data() + sample * x.channels() + channel;
    for (Index c = 0; c < count; ++c) values[c] *= gate[c];
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
        const T* scale = dy.y.scale.data();
        const T* shift = dy.y.shift.data();
        const T* center = dy.center.data();
        const T* slope = dy.slope.data();
        const T* offset = dy.offset.data();
        const Index pixels = dy.gate ? dz.size() / channels / dy.gate.factor.extent(0) : 1;
        for (Index row = first; row < last; ++row) {
            const T* z = dy.y.raw.data() + row * channels;
            const T* upstream = dy.dy.data() + row * channels;
            T* target = dz.data() + row * channels;
            if (dy.gate) {  // in the target first, which the rest is then computed in
                const T* gate = dy.gate.factor.data() + row / pixels * channels;
                const T* common = dy.gate.common.data() + row / pixels * channels;
                for (Index c = 0; c < channels; ++c) target[c] = gate[c] * upstream[c] + common[c];
                upstream = target;
            }
            if (!cpu::has_own_path(dy.y.activation)) {
                cpu::for_each_vector<T>(channels, [&](Index c, auto some) {
                    using cpu::load_some;
                    const cpu::Vector<T> factor = load_some(scale + c, some);
                    const cpu::Vector<T> raw = load_some(z + c, some);
                    const cpu::Vector<T> g = cpu::gradient_before<T>(dy.y.activation, load_some(upstream + c, some),
                                                                     factor * raw + load_some(shift + c, some));
                    const cpu::Vector<T> deviation = raw - load_some(center + c, some);
                    cpu::store_some<T>(
                        factor * g + load_some(slope + c, some) * deviation + load_some(offset + c, some), target + c,
                        some);
                });
                continue;
            }
            const bool relu = dy.y.activation == Activation::relu;
            for (Index c = 0; c < channels; ++c) {
                const T g = !relu || scale[c] * z[c] + shift[c] > T(0) ? upstream[c] : T(0);
                target[c] = scale[c] * g + slope[c] * (z[c] - center[c]) + offset[c];
            }
        }
    });
    return dz;
}

SD_NAMESPACE_END
