// Maximum, average and global average pooling over NHWC images.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/window.hpp"
#include "sd/cpu/sample_sums.hpp"
#include "sd/cpu/source.hpp"
#include "sd/reference/pooling.hpp"

#include <algorithm>

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

/// What one position counts in the average of window (oh, ow).
template <class T>
[[nodiscard]] T window_share(const Shape& x, const Pool2dOptions& options, Index oh, Index ow) {
    return T(1) / static_cast<T>(detail::averaged_positions(options, oh, x[1]) *
                                 detail::averaged_positions(options, ow, x[2]));
}

/// Calls each(ow, c, count, maximum, position) for every vector of `count` channels from c on and every window of
/// output row (n, oh): the largest value, and the number of the position in the window that has it, the first one in
/// row-major order, or the last NaN if there are some.
template <class T, class Each>
void for_each_maximum(const PendingSource<T>& x, const Pool2dOptions& options, Index n, Index oh, Index out_width,
                      const Each& each) {
    const Extents& image = x.extents();
    const WindowRange rows(oh, options, image.height);
    for (Index ow = 0; ow < out_width; ++ow) {  // channels inside: the rows are then read from end to end, as they lie
        const WindowRange columns(ow, options, image.width);
        for_each_vector<T>(image.channels, [&](Index c, auto count) {
            x.with_channels(c, count, [&](const auto& value_at) {
                Vector<T> maximum = value_at(x.element(n, rows.first, columns.first) + c);
                Vector<T> position = {};
                T number = 0;
                for (Index h = rows.first; h < rows.last; ++h) {
                    for (Index w = columns.first; w < columns.last; ++w, number += T(1)) {
                        const Vector<T> value = value_at(x.element(n, h, w) + c);
                        const auto larger = (value > maximum) | (value != value);
                        maximum = larger ? value : maximum;
                        position = larger ? Vector<T>{} + number : position;
                    }
                }
                each(ow, c, count, maximum, position);
            });
        });
    }
}

}  // namespace cpu

/// y(n, oh, ow, c) = the largest x of the window; padding is never chosen and NaN always. Shapes as in pool2d_shape.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> max_pool2d_forward(const Pending<T>& x, const Pool2dOptions& options) {
    const Shape shape = detail::pool2d_shape("max_pool2d_forward", x.shape(), options);
    detail::expect_pixels("max_pool2d_forward", x.shape());
    Tensor<T> y = Tensor<T>::empty(shape);
    const cpu::PendingSource<T> source(x);
    parallel_for(shape[0] * shape[1], [&](Index row) {
        cpu::for_each_maximum(source, options, row / shape[1], row % shape[1], shape[2],
                              [&](Index ow, Index c, auto count, const cpu::Vector<T>& maximum, const cpu::Vector<T>&) {
                                  cpu::store_some<T>(maximum, y.data() + (row * shape[2] + ow) * shape[3] + c, count);
                              });
    });
    return y;
}

/// The gradient by the value of x: each dy goes to the pixel that was chosen forward (found again, not stored).
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> max_pool2d_by_input(const Tensor<T>& dy, const Pending<T>& x, const Pool2dOptions& options) {
    const Shape shape = detail::pool2d_shape("max_pool2d_by_input", x.shape(), options);
    detail::expect_pixels("max_pool2d_by_input", x.shape());
    expect_shape("max_pool2d_by_input", "dy", dy.shape(), shape);
    Tensor<T> dx = Tensor<T>::empty(x.shape());
    const cpu::PendingSource<T> source(x);
    const Index row = x.shape()[2] * x.shape()[3];
    const Index slab = x.shape()[1] * row;
    parallel_for(shape[0], [&](Index n) {  // windows of one sample overlap: one thread takes them in order
        Index cleared = 0;                 // rows, just before they are written, so that they still are in the cache
        const auto clear_rows = [&](Index end) {
            if (end > cleared) std::fill_n(dx.data() + n * slab + cleared * row, (end - cleared) * row, T(0));
            cleared = std::max(cleared, end);
        };
        for (Index oh = 0; oh < shape[1]; ++oh) {
            const cpu::WindowRange rows(oh, options, x.shape()[1]);
            clear_rows(rows.last);
            cpu::for_each_maximum(
                source, options, n, oh, shape[2],
                [&](Index ow, Index c, auto count, const cpu::Vector<T>&, const cpu::Vector<T>& position) {
                    const cpu::WindowRange columns(ow, options, x.shape()[2]);
                    const cpu::Vector<T> upstream =
                        cpu::load_some(dy.data() + ((n * shape[1] + oh) * shape[2] + ow) * shape[3] + c, count);
                    T number = 0;
                    for (Index h = rows.first; h < rows.last; ++h) {
                        for (Index w = columns.first; w < columns.last; ++w, number += T(1)) {
                            T* target = dx.data() + source.element(n, h, w) + c;
                            const cpu::Vector<T> chosen = position == number ? upstream : cpu::Vector<T>{};
                            cpu::store_some<T>(cpu::load_some(target, count) + chosen, target, count);
                        }
                    }
                });
        }
        clear_rows(x.shape()[1]);
    });
    return dx;
}

/// y = the sum of the window / the number of its positions, those of the padding included or not (count_include_pad).
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> avg_pool2d_forward(const Tensor<T>& x, const Pool2dOptions& options) {
    const Shape shape = detail::pool2d_shape("avg_pool2d_forward", x.shape(), options);
    Tensor<T> y(shape);
    parallel_for(shape[0] * shape[1], [&](Index row) {
        const cpu::WindowRange rows(row % shape[1], options, x.extent(1));
        for (Index ow = 0; ow < shape[2]; ++ow) {
            const cpu::WindowRange columns(ow, options, x.extent(2));
            const T share = cpu::window_share<T>(x.shape(), options, row % shape[1], ow);
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

/// dx = dy / the number of positions in every pixel of the window, summed over the windows. x_shape is the shape of x.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> avg_pool2d_by_input(const Tensor<T>& dy, const Pool2dOptions& options, const Shape& x_shape) {
    const Shape shape = detail::pool2d_shape("avg_pool2d_by_input", x_shape, options);
    expect_shape("avg_pool2d_by_input", "dy", dy.shape(), shape);
    Tensor<T> dx(x_shape);
    parallel_for(shape[0], [&](Index n) {
        for (Index oh = 0; oh < shape[1]; ++oh) {
            const cpu::WindowRange rows(oh, options, x_shape[1]);
            for (Index ow = 0; ow < shape[2]; ++ow) {
                const cpu::WindowRange columns(ow, options, x_shape[2]);
                const T share = cpu::window_share<T>(x_shape, options, oh, ow);
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

/// y(n, c) = the mean of x(n, :, :, c), what is pending of x applied as it is read. Throws std::invalid_argument for
/// images without pixels.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> global_avg_pool_forward(const Pending<T>& x) {
    expect_rank("global_avg_pool_forward", "x", x.shape(), 4);
    detail::expect_pixels("global_avg_pool_forward", x.shape());
    const cpu::PendingSource<T> source(x);
    const auto add = [&](Index element, Index pixels, Index c, auto count, auto& sums) {
        source.with_channels(c, count, [&](const auto& value_at) {
            for (Index p = 0; p < pixels; ++p, element += x.channels()) sums[0] += value_at(element);
        });
    };
    const double share = 1 / static_cast<double>(x.shape()[1] * x.shape()[2]);
    return cpu::sums_of_samples<T, 1>(x.shape(), share, add).reshape({x.shape()[0], x.channels()});
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
