// Maximum, average and global average pooling over NHWC images.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/pending.hpp"
#include "sd/core/window.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/reference/pooling.hpp"

#include <vector>

SD_NAMESPACE_BEGIN

using reference::avg_pool2d_by_input;
using reference::avg_pool2d_forward;
using reference::global_avg_pool_by_input;
using reference::global_avg_pool_forward;
using reference::max_pool2d_by_input;
using reference::max_pool2d_forward;

namespace cpu {

/// The rows or columns of the input that window `position` covers, cut to the input.
struct WindowRange {
    Index first, last;

    WindowRange(Index position, const Pool2dOptions& options, Index extent)
        : first(std::max<Index>(0, position * options.stride - options.padding)),
          last(std::min(extent, position * options.stride - options.padding + options.kernel)) {}
};

/// Walks over the windows of output row (n, oh) and tells, for every channel, the largest value and the input pixel
/// that has it: the first one in row-major order; NaN counts as largest. Calls each(ow, maximum, pixel).
template <class T, class Each>
void for_each_maximum(const Pending<T>& x, const Pool2dOptions& options, Index n, Index oh, Index out_width,
                      const Each& each) {
    const Index height = x.shape()[1];
    const Index width = x.shape()[2];
    const Index channels = x.channels();
    std::vector<T> values(static_cast<std::size_t>(channels));
    std::vector<T> maximum(static_cast<std::size_t>(channels));
    std::vector<Index> pixel(static_cast<std::size_t>(channels));
    const WindowRange rows(oh, options, height);
    for (Index ow = 0; ow < out_width; ++ow) {
        const WindowRange columns(ow, options, width);
        bool first = true;
        for (Index h = rows.first; h < rows.last; ++h) {
            for (Index w = columns.first; w < columns.last; ++w) {
                const Index at = (n * height + h) * width + w;
                load_pending(x, x.raw.data() + at * channels, 0, channels, values.data());
                for (std::size_t c = 0; c < values.size(); ++c) {
                    const bool larger = first || values[c] > maximum[c] || values[c] != values[c];
                    maximum[c] = larger ? values[c] : maximum[c];
                    pixel[c] = larger ? at : pixel[c];
                }
                first = false;
            }
        }
        each(ow, maximum.data(), pixel.data());
    }
}

}  // namespace cpu

/// y(n, oh, ow, c) = the largest x of the window; padding is never chosen and NaN always. Shapes as in pool2d_shape.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> max_pool2d_forward(const Pending<T>& x, const Pool2dOptions& options) {
    const Shape shape = pool2d_shape("max_pool2d_forward", x.shape(), options);
    Tensor<T> y = Tensor<T>::empty(shape);
    parallel_for(shape[0] * shape[1], [&](Index row) {
        cpu::for_each_maximum(x, options, row / shape[1], row % shape[1], shape[2],
                              [&](Index ow, const T* maximum, const Index*) {
                                  std::copy(maximum, maximum + shape[3], y.data() + (row * shape[2] + ow) * shape[3]);
                              });
    });
    return y;
}

/// The gradient by the value of x: each dy goes to the pixel that was chosen forward (found again, not stored).
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> max_pool2d_by_input(const Tensor<T>& dy, const Pending<T>& x, const Pool2dOptions& options) {
    const Shape shape = pool2d_shape("max_pool2d_by_input", x.shape(), options);
    expect_shape("max_pool2d_by_input", "dy", dy.shape(), shape);
    Tensor<T> dx(x.shape());
    parallel_for(shape[0], [&](Index n) {  // windows of one sample overlap: one thread takes them in order
        for (Index oh = 0; oh < shape[1]; ++oh) {
            cpu::for_each_maximum(x, options, n, oh, shape[2], [&](Index ow, const T*, const Index* pixel) {
                const T* upstream = dy.data() + ((n * shape[1] + oh) * shape[2] + ow) * shape[3];
                for (Index c = 0; c < shape[3]; ++c) dx.data()[pixel[c] * shape[3] + c] += upstream[c];
            });
        }
    });
    return dx;
}

/// y = the sum of the window / kernel^2; padding counts as zeros.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> avg_pool2d_forward(const Tensor<T>& x, const Pool2dOptions& options) {
    const Shape shape = pool2d_shape("avg_pool2d_forward", x.shape(), options);
    Tensor<T> y(shape);
    const T share = T(1) / static_cast<T>(options.kernel * options.kernel);
    parallel_for(shape[0] * shape[1], [&](Index row) {
        const cpu::WindowRange rows(row % shape[1], options, x.extent(1));
        for (Index ow = 0; ow < shape[2]; ++ow) {
            const cpu::WindowRange columns(ow, options, x.extent(2));
            T* target = y.data() + (row * shape[2] + ow) * shape[3];
            for (Index h = rows.first; h < rows.last; ++h) {
                for (Index w = columns.first; w < columns.last; ++w) {
                    const T* source = x.data() + ((row / shape[1] * x.extent(1) + h) * x.extent(2) + w) * shape[3];
                    for (Index c = 0; c < shape[3]; ++c) target[c] += source[c];
                }
            }
            for (Index c = 0; c < shape[3]; ++c) target[c] *= share;
        }
    });
    return y;
}

/// dx = dy / kernel^2 in every pixel of the window, summed over the windows. x_shape is the shape of x.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> avg_pool2d_by_input(const Tensor<T>& dy, const Pool2dOptions& options, const Shape& x_shape) {
    const Shape shape = pool2d_shape("avg_pool2d_by_input", x_shape, options);
    expect_shape("avg_pool2d_by_input", "dy", dy.shape(), shape);
    Tensor<T> dx(x_shape);
    const T share = T(1) / static_cast<T>(options.kernel * options.kernel);
    parallel_for(shape[0], [&](Index n) {
        for (Index oh = 0; oh < shape[1]; ++oh) {
            const cpu::WindowRange rows(oh, options, x_shape[1]);
            for (Index ow = 0; ow < shape[2]; ++ow) {
                const cpu::WindowRange columns(ow, options, x_shape[2]);
                const T* upstream = dy.data() + ((n * shape[1] + oh) * shape[2] + ow) * shape[3];
                for (Index h = rows.first; h < rows.last; ++h) {
                    for (Index w = columns.first; w < columns.last; ++w) {
                        T* target = dx.data() + ((n * x_shape[1] + h) * x_shape[2] + w) * shape[3];
                        for (Index c = 0; c < shape[3]; ++c) target[c] += share * upstream[c];
                    }
                }
            }
        }
    });
    return dx;
}

/// y(n, c) = the mean of x(n, :, :, c).
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> global_avg_pool_forward(const Tensor<T>& x) {
    expect_rank("global_avg_pool_forward", "x", x.shape(), 4);
    const Index pixels = x.extent(1) * x.extent(2);
    const Index channels = x.extent(3);
    if (pixels == 0) refuse("global_avg_pool_forward", "shape of x", x.shape(), "at least one pixel");
    Tensor<T> y(Shape{x.extent(0), channels});
    parallel_for(x.extent(0), [&](Index n) {
        T* target = y.data() + n * channels;
        for (Index pixel = 0; pixel < pixels; ++pixel) {
            const T* source = x.data() + (n * pixels + pixel) * channels;
            for (Index c = 0; c < channels; ++c) target[c] += source[c];
        }
        for (Index c = 0; c < channels; ++c) target[c] /= static_cast<T>(pixels);
    });
    return y;
}

/// dx = dy / (H W) in every pixel. x_shape is the shape of x.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> global_avg_pool_by_input(const Tensor<T>& dy, const Shape& x_shape) {
    expect_rank("global_avg_pool_by_input", "x", x_shape, 4);
    expect_shape("global_avg_pool_by_input", "dy", dy.shape(), {x_shape[0], x_shape[3]});
    const Index pixels = x_shape[1] * x_shape[2];
    const Index channels = x_shape[3];
    Tensor<T> dx = Tensor<T>::empty(x_shape);
    parallel_for(x_shape[0], [&](Index n) {
        const T* upstream = dy.data() + n * channels;
        for (Index pixel = 0; pixel < pixels; ++pixel) {
            T* target = dx.data() + (n * pixels + pixel) * channels;
            for (Index c = 0; c < channels; ++c) target[c] = upstream[c] / static_cast<T>(pixels);
        }
    });
    return dx;
}

SD_NAMESPACE_END
