// Pending tensors on a device: what a thread loads of them, and plain tensors made of them.
#pragma once

#include "sd/core/bfloat16.hpp"
#include "sd/core/pending_gradient.hpp"
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

/// y = the values of a pending tensor.
template <class T, int width>
struct Materialize {
    using A = accumulate_t<T>;
    Sweep sweep;
    PendingView<T> x;
    const T* gate;  ///< (N, C), or nullptr
    Index pixels;   ///< of a sample
    T* y;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const PendingChannels<T, width> channels(x, at.channel);
        sweep.for_each_row(at, [&](Index row, Index element) {
            const Pack<T, width> z = load<width>(x.raw + element);
            Pack<T, width> value;
            if (gate == nullptr) {
                for (int i = 0; i < width; ++i) value.value[i] = T(channels.apply(z.value[i], i));
            } else {
                const Pack<T, width> factor = load<width>(gate + row / pixels * sweep.channels + at.channel);
                for (int i = 0; i < width; ++i) {
                    value.value[i] = T(A(A(factor.value[i]) * channels.apply(z.value[i], i)));
                }
            }
            store<width>(value, y + element);
        });
    }
};

/// dz = the values of a pending gradient, PendingGradient's formula.
template <class T, int width>
struct MaterializeGradient {
    using A = accumulate_t<T>;
    Sweep sweep;
    PendingView<T> y;
    const T* dy;
    const A *center, *slope, *offset;
    const T *gate, *common;  ///< (N, C), or nullptr: GateGradient's
    Index pixels;            ///< of a sample
    T* dz;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const PendingChannels<T, width> output(y, at.channel);
        const Pack<A, width> centers = load<width>(center + at.channel);
        const Pack<A, width> slopes = load<width>(slope + at.channel);
        const Pack<A, width> offsets = load<width>(offset + at.channel);
        sweep.for_each_row(at, [&](Index row, Index element) {
            const Pack<T, width> z = load<width>(y.raw + element);
            const Pack<T, width> upstream = load<width>(dy + element);
            Pack<T, width> value;
            A through[width];
            for (int i = 0; i < width; ++i) through[i] = A(upstream.value[i]);
            if (gate != nullptr) {
                const Index own = row / pixels * sweep.channels + at.channel;
                const Pack<T, width> factors = load<width>(gate + own);
                const Pack<T, width> terms = load<width>(common + own);
                for (int i = 0; i < width; ++i) through[i] = A(factors.value[i]) * through[i] + A(terms.value[i]);
            }
            for (int i = 0; i < width; ++i) {
                const A g = output.gradient(through[i], z.value[i], i);
                value.value[i] = T(A(output.scale.value[i] * g + slopes.value[i] * (A(z.value[i]) - centers.value[i]) +
                                     offsets.value[i]));
            }
            store<width>(value, dz + element);
        });
    }
};

/// Rows of channels of a tensor of any rank.
[[nodiscard]] inline Index rows_of(const Shape& shape) {
    const Index channels = shape[shape.rank() - 1];
    return channels == 0 ? 0 : shape.size() / channels;
}
/// Those of a sample.
[[nodiscard]] inline Index rows_of_sample(const Shape& shape) { return shape[0] == 0 ? 0 : rows_of(shape) / shape[0]; }

}  // namespace cuda

/// The values of a pending tensor, with room for as many samples; the tensor itself if it is plain.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> materialize(const Pending<T, Device>& x) {
    if (x.is_plain()) return x.raw;
    auto y = cuda::empty_with_cleared_room<T, Device>(x.shape(), cuda::sample_room(x.raw));
    cuda::launch_sweep<Device, T, cuda::Materialize>(cuda::rows_of(x.shape()), x.channels(), 8, cuda::PendingView<T>(x),
                                                     x.gate.data(), cuda::rows_of_sample(x.shape()), y.data());
    return y;
}

/// The values of a pending gradient, with as much room as batch norm's input; the tensor itself if it is plain.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> materialize(const PendingGradient<T, Device>& dy) {
    if (dy.is_plain()) return dy.dy;
    auto dz = cuda::empty_with_cleared_room<T, Device>(dy.shape(), cuda::sample_room(dy.y.raw));
    cuda::launch_sweep<Device, T, cuda::MaterializeGradient>(
        cuda::rows_of(dy.shape()), dy.y.channels(), 8, cuda::PendingView<T>(dy.y), dy.dy.data(), dy.center.data(),
        dy.slope.data(), dy.offset.data(), dy.gate.factor.data(), dy.gate.common.data(),
        cuda::rows_of_sample(dy.shape()), dz.data());
    return dz;
}

/// The device's convolutions take plain tensors: one pass makes it, and all that load it share it.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Pending<T, Device> conv2d_operand(const Pending<T, Device>& x) {
    return materialize(x);
}
/// The same for a gradient.
template <class T, cuda::Accelerator Device>
[[nodiscard]] PendingGradient<T, Device> conv2d_operand(const PendingGradient<T, Device>& dy) {
    return materialize(dy);
}

SD_NAMESPACE_END
