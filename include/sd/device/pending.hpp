// Pending tensors on a device: what a thread loads of them, and plain tensors made of them.
#pragma once

#include "sd/core/bfloat16.hpp"
#include "sd/core/pending_gradient.hpp"
#include "sd/core/window.hpp"
#include "sd/device/sample_room.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// The arguments of a kernel that loads a pending tensor without a gate, see ungated().
template <class T>
struct PendingView {
    using A = accumulate_t<T>;
    const T* raw;
    const A* scale;  ///< nullptr for 1
    const A* shift;
    Activation activation;

    template <class Device>
    explicit PendingView(const Pending<T, Device>& x)
        : raw(x.raw.data()), scale(x.scale.data()), shift(x.shift.data()), activation(x.activation) {}
};

/// The factors of a thread's channels, in registers; apply() gives the values.
template <class T, int width>
struct PendingChannels {
    using A = accumulate_t<T>;
    Pack<A, width> scale, shift;
    bool scaled;
    Activation activation;

    SD_HOST_DEVICE PendingChannels(const PendingView<T>& view, Index channel)
        : scaled(view.scale != nullptr), activation(view.activation) {
        for (int i = 0; i < width; ++i) scale.value[i] = A(1), shift.value[i] = A(0);
        if (scaled) {
            scale = load<width>(view.scale + channel);
            shift = load<width>(view.shift + channel);
        }
    }
    /// The value of the thread's channel i whose raw value is z.
    [[nodiscard]] SD_HOST_DEVICE A apply(const T& z, int i) const {
        return activate(activation, before_activation(z, i));
    }
    /// The value, and the activation's derivative there.
    [[nodiscard]] SD_HOST_DEVICE ValueAndDerivative<A> value_and_slope(const T& z, int i) const {
        return activate_with_derivative(activation, before_activation(z, i));
    }
    /// The gradient by what the activation is applied to there, of a gradient dy by the value.
    [[nodiscard]] SD_HOST_DEVICE A gradient(const A& dy, const T& z, int i) const {
        return activation_gradient(activation, dy, before_activation(z, i));
    }

private:
    [[nodiscard]] SD_HOST_DEVICE A before_activation(const T& z, int i) const {
        return scaled ? A(scale.value[i] * A(z) + shift.value[i]) : A(z);
    }
};

/// Rows of channels of a tensor of any rank.
[[nodiscard]] inline Index rows_of(const Shape& shape) {
    const Index channels = shape[shape.rank() - 1];
    return channels == 0 ? 0 : shape.size() / channels;
}
/// Those of a sample.
[[nodiscard]] inline Index rows_of_sample(const Shape& shape) { return shape[0] == 0 ? 0 : rows_of(shape) / shape[0]; }

/// The arguments of a kernel that loads a pending tensor, its gate included.
template <class T>
struct GatedView {
    PendingView<T> x;
    const T* gate;  ///< (N, C), or nullptr
    Index channels;
    Index pixels;  ///< of a sample

    template <class Device>
    explicit GatedView(const Pending<T, Device>& own)
        : x(own), gate(own.gate.data()), channels(own.channels()), pixels(rows_of_sample(own.shape())) {}
};

/// A thread's channels of a pending tensor; their factors are in registers.
template <class T, int width>
struct GatedChannels {
    using A = accumulate_t<T>;
    const GatedView<T>& view;
    Index channel;
    PendingChannels<T, width> output;

    SD_HOST_DEVICE GatedChannels(const GatedView<T>& own, Index first)
        : view(own), channel(first), output(own.x, first) {}
    /// The values of a row.
    [[nodiscard]] SD_HOST_DEVICE Pack<A, width> values(Index row) const {
        const Pack<T, width> z = load<width>(view.x.raw + row * view.channels + channel);
        Pack<A, width> result;
        for (int i = 0; i < width; ++i) result.value[i] = output.apply(z.value[i], i);
        if (view.gate == nullptr) return result;
        const Pack<T, width> factor = load<width>(view.gate + row / view.pixels * view.channels + channel);
        for (int i = 0; i < width; ++i) result.value[i] *= A(factor.value[i]);
        return result;
    }
};

/// The arguments of a kernel that loads a pending gradient.
template <class T>
struct GradientView {
    using A = accumulate_t<T>;
    const T* dy;
    PendingView<T> y;  ///< raw is nullptr for a plain gradient
    const A *center, *slope, *offset;
    const T *gate, *common;  ///< (N, C), or nullptr: GateGradient's
    Index channels;
    Index pixels;  ///< of a sample

    template <class Device>
    explicit GradientView(const PendingGradient<T, Device>& own)
        : dy(own.dy.data()),
          y(own.y),
          center(own.center.data()),
          slope(own.slope.data()),
          offset(own.offset.data()),
          gate(own.gate.factor.data()),
          common(own.gate.common.data()),
          channels(own.shape()[own.shape().rank() - 1]),
          pixels(rows_of_sample(own.shape())) {}
};

/// A thread's channels of a pending gradient; their factors are in registers.
template <class T, int width>
struct GradientChannels {
    using A = accumulate_t<T>;
    const GradientView<T>& view;
    Index channel;
    PendingChannels<T, width> output;
    Pack<A, width> center, slope, offset;

    SD_HOST_DEVICE GradientChannels(const GradientView<T>& own, Index first)
        : view(own), channel(first), output(own.y, first) {
        for (int i = 0; i < width; ++i) center.value[i] = slope.value[i] = offset.value[i] = A(0);
        if (view.y.raw == nullptr) return;
        center = load<width>(view.center + channel);
        slope = load<width>(view.slope + channel);
        offset = load<width>(view.offset + channel);
    }
    /// The values of a row, PendingGradient's formula.
    [[nodiscard]] SD_HOST_DEVICE Pack<A, width> values(Index row) const {
        const Pack<T, width> upstream = load<width>(view.dy + row * view.channels + channel);
        Pack<A, width> result;
        for (int i = 0; i < width; ++i) result.value[i] = A(upstream.value[i]);
        if (view.y.raw == nullptr) return result;
        if (view.gate != nullptr) {
            const Index own = row / view.pixels * view.channels + channel;
            const Pack<T, width> factors = load<width>(view.gate + own);
            const Pack<T, width> terms = load<width>(view.common + own);
            for (int i = 0; i < width; ++i) {
                result.value[i] = A(factors.value[i]) * result.value[i] + A(terms.value[i]);
            }
        }
        const Pack<T, width> z = load<width>(view.y.raw + row * view.channels + channel);
        for (int i = 0; i < width; ++i) {
            const A g = output.gradient(result.value[i], z.value[i], i);
            result.value[i] =
                output.scale.value[i] * g + slope.value[i] * (A(z.value[i]) - center.value[i]) + offset.value[i];
        }
        return result;
    }
};

/// Stores values as elements of type T.
template <class T, int width>
SD_HOST_DEVICE Pack<T, width> store_rounded(const Pack<accumulate_t<T>, width>& values, T* target) {
    Pack<T, width> rounded;
    for (int i = 0; i < width; ++i) rounded.value[i] = T(values.value[i]);
    store<width>(rounded, target);
    return rounded;
}

/// y = the values of what is pending, a View that a thread loads by Channels.
template <class T, int width, class View, class Channels>
struct MaterializeRows {
    Sweep sweep;
    View x;
    T* y;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const Channels channels(x, at.channel);
        sweep.for_each_row(
            at, [&](Index row, Index element) { store_rounded<T, width>(channels.values(row), y + element); });
    }
};
template <class T, int width>
using Materialize = MaterializeRows<T, width, GatedView<T>, GatedChannels<T, width>>;
template <class T, int width>
using MaterializeGradient = MaterializeRows<T, width, GradientView<T>, GradientChannels<T, width>>;

}  // namespace cuda

/// The values of a pending tensor, with room for as many samples; the tensor itself if it is plain.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> materialize(const Pending<T, Device>& x) {
    if (x.is_plain()) return x.raw;
    auto y = cuda::empty_with_cleared_room<T, Device>(x.shape(), cuda::sample_room(x.raw));
    cuda::launch_sweep<Device, T, cuda::Materialize>(cuda::rows_of(x.shape()), x.channels(), 8, cuda::GatedView<T>(x),
                                                     y.data());
    return y;
}

/// The values of a pending gradient, with as much room as batch norm's input; the tensor itself if it is plain.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> materialize(const PendingGradient<T, Device>& dy) {
    if (dy.is_plain()) return dy.dy;
    auto dz = cuda::empty_with_cleared_room<T, Device>(dy.shape(), cuda::sample_room(dy.y.raw));
    cuda::launch_sweep<Device, T, cuda::MaterializeGradient>(cuda::rows_of(dy.shape()), dy.y.channels(), 8,
                                                             cuda::GradientView<T>(dy), dz.data());
    return dz;
}

/// The device's convolutions take plain tensors: one pass makes it, and all that load it share it. Depthwise ones, of
/// weights of this shape, apply what is pending on load.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Pending<T, Device> conv2d_operand(const Pending<T, Device>& x, const Shape& weight,
                                                const Conv2dOptions& options) {
    return is_depthwise(weight, options) ? x : Pending<T, Device>(materialize(x));
}
/// The same for a gradient.
template <class T, cuda::Accelerator Device>
[[nodiscard]] PendingGradient<T, Device> conv2d_operand(const PendingGradient<T, Device>& dy, const Shape& weight,
                                                        const Conv2dOptions& options) {
    return is_depthwise(weight, options) ? dy : PendingGradient<T, Device>(materialize(dy));
}

SD_NAMESPACE_END
