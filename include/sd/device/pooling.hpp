// Maximum and average pooling on a device. Backward passes gather: a thread adds up what the windows of its pixel send,
// in their order, so there is nothing to race for.
#pragma once

#include "sd/core/window.hpp"
#include "sd/device/pending.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// The extents of a pooling.
struct PoolGeometry {
    Index in_height, in_width, out_height, out_width, channels;
    Pool2dOptions options;

    PoolGeometry(const Shape& x, const Shape& y, const Pool2dOptions& settings)
        : in_height(x[1]), in_width(x[2]), out_height(y[1]), out_width(y[2]), channels(x[3]), options(settings) {}

    /// Positions [first, last) along an axis.
    struct Range {
        Index first, last;
    };
    /// What window `position` covers of an input axis.
    [[nodiscard]] SD_HOST_DEVICE Range covered(Index position, Index extent) const {
        const Index first = position * options.stride - options.padding;
        const Index last = first + options.kernel;
        return {first < 0 ? 0 : first, last < extent ? last : extent};
    }
    /// The windows that cover a position of an input axis.
    [[nodiscard]] SD_HOST_DEVICE Range windows(Index position, Index count) const {
        const Index last = (position + options.padding) / options.stride + 1;
        const Index before = position + options.padding - options.kernel + 1;  // the first window begins here or later
        const Index first = before <= 0 ? 0 : (before + options.stride - 1) / options.stride;
        return {first, last < count ? last : count};
    }
    /// What one position counts in the average of window (oh, ow).
    template <class A>
    [[nodiscard]] SD_HOST_DEVICE A share(Index oh, Index ow) const {
        return A(1) / static_cast<A>(detail::averaged_positions(options, oh, in_height) *
                                     detail::averaged_positions(options, ow, in_width));
    }
};

/// The largest values of a window for a thread's channels: the first one in row-major order, or the last NaN.
template <class T, int width>
struct WindowMaximum {
    T raw[width];
    Index pixel[width];

    SD_HOST_DEVICE WindowMaximum(const PoolGeometry& g, const PendingView<T>& x,
                                 const PendingChannels<T, width>& values, Index n, Index oh, Index ow, Index channel) {
        using A = accumulate_t<T>;
        A maximum[width];
        for (int i = 0; i < width; ++i) pixel[i] = -1, maximum[i] = A(0);
        const PoolGeometry::Range rows = g.covered(oh, g.in_height);
        const PoolGeometry::Range columns = g.covered(ow, g.in_width);
        for (Index h = rows.first; h < rows.last; ++h) {
            for (Index w = columns.first; w < columns.last; ++w) {
                const Index element = ((n * g.in_height + h) * g.in_width + w) * g.channels + channel;
                const Pack<T, width> z = load<width>(x.raw + element);
                for (int i = 0; i < width; ++i) {
                    const A value = values.apply(z.value[i], i);
                    if (pixel[i] >= 0 && !(value > maximum[i]) && value == value) continue;
                    maximum[i] = value;
                    raw[i] = z.value[i];
                    pixel[i] = h * g.in_width + w;
                }
            }
        }
    }
};

template <class T, int width>
struct MaxPoolForward {
    Sweep sweep;  ///< over output pixels
    PoolGeometry g;
    PendingView<T> x;
    T* y;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const PendingChannels<T, width> values(x, at.channel);
        sweep.for_each_row(at, [&](Index row, Index element) {
            const Index line = row / g.out_width;
            const WindowMaximum<T, width> window(g, x, values, line / g.out_height, line % g.out_height,
                                                 row % g.out_width, at.channel);
            Pack<T, width> result;
            for (int i = 0; i < width; ++i) result.value[i] = T(values.apply(window.raw[i], i));
            store<width>(result, y + element);
        });
    }
};

template <class T, int width>
struct MaxPoolByInput {
    using A = accumulate_t<T>;
    Sweep sweep;  ///< over input pixels
    PoolGeometry g;
    PendingView<T> x;
    const T* dy;
    T* dx;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const PendingChannels<T, width> values(x, at.channel);
        sweep.for_each_row(at, [&](Index row, Index element) {
            const Index line = row / g.in_width;
            const Index n = line / g.in_height;
            const Index pixel = row - n * g.in_height * g.in_width;
            const PoolGeometry::Range rows = g.windows(line % g.in_height, g.out_height);
            const PoolGeometry::Range columns = g.windows(row % g.in_width, g.out_width);
            A sum[width];
            for (int i = 0; i < width; ++i) sum[i] = A(0);
            for (Index oh = rows.first; oh < rows.last; ++oh) {
                for (Index ow = columns.first; ow < columns.last; ++ow) {
                    const WindowMaximum<T, width> window(g, x, values, n, oh, ow, at.channel);
                    const Index output = ((n * g.out_height + oh) * g.out_width + ow) * g.channels + at.channel;
                    const Pack<T, width> upstream = load<width>(dy + output);
                    for (int i = 0; i < width; ++i) {
                        if (window.pixel[i] == pixel) sum[i] += A(upstream.value[i]);
                    }
                }
            }
            Pack<T, width> result;
            for (int i = 0; i < width; ++i) result.value[i] = T(sum[i]);
            store<width>(result, dx + element);
        });
    }
};

/// target = the sum of the sources that a pixel meets, each times its window's share. Forward, the sources of an output
/// pixel are what its window covers; backward, those of an input pixel are the windows that cover it.
template <class T, int width, bool forward>
struct AvgPool {
    using A = accumulate_t<T>;
    Sweep sweep;  ///< over target pixels
    PoolGeometry g;
    const T* source;
    T* target;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const Index height = forward ? g.out_height : g.in_height;
        const Index row_pixels = forward ? g.out_width : g.in_width;
        const Index source_height = forward ? g.in_height : g.out_height;
        const Index source_width = forward ? g.in_width : g.out_width;
        sweep.for_each_row(at, [&](Index row, Index element) {
            const Index line = row / row_pixels;
            const PoolGeometry::Range rows = sources(line % height, source_height);
            const PoolGeometry::Range columns = sources(row % row_pixels, source_width);
            A sum[width];
            for (int i = 0; i < width; ++i) sum[i] = A(0);
            for (Index h = rows.first; h < rows.last; ++h) {
                for (Index w = columns.first; w < columns.last; ++w) {
                    const Index pixel = (line / height * source_height + h) * source_width + w;
                    const Pack<T, width> value = load<width>(source + pixel * g.channels + at.channel);
                    const A factor = forward ? A(1) : g.template share<A>(h, w);
                    for (int i = 0; i < width; ++i) sum[i] += A(value.value[i]) * factor;
                }
            }
            const A factor = forward ? g.template share<A>(line % height, row % row_pixels) : A(1);
            Pack<T, width> result;
            for (int i = 0; i < width; ++i) result.value[i] = T(A(sum[i] * factor));
            store<width>(result, target + element);
        });
    }

private:
    [[nodiscard]] SD_HOST_DEVICE PoolGeometry::Range sources(Index position, Index extent) const {
        return forward ? g.covered(position, extent) : g.windows(position, extent);
    }
};

template <class T, int width>
using AvgPoolForward = AvgPool<T, width, true>;
template <class T, int width>
using AvgPoolByInput = AvgPool<T, width, false>;

}  // namespace cuda

/// y(n, oh, ow, c) = the largest x of the window; padding is never chosen and NaN always. Shapes as in pool2d_shape.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> max_pool2d_forward(const Pending<T, Device>& x, const Pool2dOptions& options) {
    if (x.gate) return max_pool2d_forward<T>(ungated(x), options);
    const Shape shape = detail::max_pool2d_shape("max_pool2d_forward", x.shape(), options);
    auto y = Tensor<T, Device>::empty(shape);
    cuda::launch_sweep<Device, T, cuda::MaxPoolForward>(cuda::rows_of(shape), shape[3], 1,
                                                        cuda::PoolGeometry(x.shape(), shape, options),
                                                        cuda::PendingView<T>(x), y.data());
    return y;
}

/// The gradient by the value of x: each dy goes to the pixel that was chosen forward (found again, not stored).
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> max_pool2d_by_input(const Tensor<T, Device>& dy, const Pending<T, Device>& x,
                                                    const Pool2dOptions& options) {
    if (x.gate) return max_pool2d_by_input<T>(dy, ungated(x), options);
    const Shape shape = detail::max_pool2d_shape("max_pool2d_by_input", x.shape(), options);
    expect_shape("max_pool2d_by_input", "dy", dy.shape(), shape);
    auto dx = Tensor<T, Device>::empty(x.shape());
    cuda::launch_sweep<Device, T, cuda::MaxPoolByInput>(cuda::rows_of(x.shape()), shape[3], 1,
                                                        cuda::PoolGeometry(x.shape(), shape, options),
                                                        cuda::PendingView<T>(x), dy.data(), dx.data());
    return dx;
}

/// y = the sum of the window / the number of its positions, those of the padding included or not (count_include_pad).
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> avg_pool2d_forward(const Tensor<T, Device>& x, const Pool2dOptions& options) {
    const Shape shape = detail::pool2d_shape("avg_pool2d_forward", x.shape(), options);
    auto y = Tensor<T, Device>::empty(shape);
    cuda::launch_sweep<Device, T, cuda::AvgPoolForward>(
        cuda::rows_of(shape), shape[3], 1, cuda::PoolGeometry(x.shape(), shape, options), x.data(), y.data());
    return y;
}

/// dx = dy / the number of positions in every pixel of the window, summed over the windows. x_shape is the shape of x.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> avg_pool2d_by_input(const Tensor<T, Device>& dy, const Pool2dOptions& options,
                                                    const Shape& x_shape) {
    const Shape shape = detail::pool2d_shape("avg_pool2d_by_input", x_shape, options);
    expect_shape("avg_pool2d_by_input", "dy", dy.shape(), shape);
    auto dx = Tensor<T, Device>::empty(x_shape);
    cuda::launch_sweep<Device, T, cuda::AvgPoolByInput>(
        cuda::rows_of(x_shape), shape[3], 1, cuda::PoolGeometry(x_shape, shape, options), dy.data(), dx.data());
    return dx;
}

SD_NAMESPACE_END
