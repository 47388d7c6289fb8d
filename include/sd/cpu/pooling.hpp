// Maximum, average and global average pooling over NHWC images.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/window.hpp"
#include "sd/cpu/elementwise.hpp"
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
template <class A>
[[nodiscard]] A window_share(const Shape& x, const Pool2dOptions& options, Index oh, Index ow) {
    return A(1) / static_cast<A>(detail::averaged_positions(options, oh, x[1]) *
                                 detail::averaged_positions(options, ow, x[2]));
}

/// Calls each(ow, c, count, maximum, position) for every vector of `count` channels from c on and every window of
/// output row (n, oh): the largest value, and the number of the position in the window that has it, the first one in
/// row-major order, or the last NaN if there are some.
template <class T, class Each>
void for_each_maximum(const PendingSource<T>& x, const Pool2dOptions& options, Index n, Index oh, Index out_width,
                      const Each& each) {
    const Extents& image = x.view().extents;
    const WindowRange rows(oh, options, image.height);
    for (Index ow = 0; ow < out_width; ++ow) {  // channels inside: the rows are then read from end to end, as they lie
        const WindowRange columns(ow, options, image.width);
        for_each_vector<T>(image.channels, [&](Index c, auto count) {
            x.with_channels(c, constant<1>, count, [&](const auto& value_at) {
                Vector<T> maximum = value_at(x.view().element(n, rows.first, columns.first) + c, constant<0>);
                Vector<T> position = {};
                accumulate_t<T> number = 0;
                for (Index h = rows.first; h < rows.last; ++h) {
                    for (Index w = columns.first; w < columns.last; ++w, number += accumulate_t<T>(1)) {
                        const Vector<T> value = value_at(x.view().element(n, h, w) + c, constant<0>);
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

/// The rows of one sample's gradient that windows add to from the first row on, `kernel` rows at a time at most. Each
/// is cleared just before a window needs it, so that it still is in the cache, and rounded once, when no window needs
/// it any more.
template <class T>
class GradientRows {
    using A = accumulate_t<T>;
    static constexpr bool in_place = std::is_same_v<T, A>;

public:
    /// Memory of all threads for gradients of shape x.
    [[nodiscard]] static Tensor<A> memory(const Shape& x, Index kernel) {
        return Tensor<A>::empty({in_place ? 0 : num_threads(), std::min(kernel, x[1]) * x[2] * x[3]});
    }

    GradientRows(Tensor<T>& dx, Index n, Index kernel, Tensor<A>& memory)
        : height_(dx.extent(1)),
          row_(dx.extent(2) * dx.extent(3)),
          kept_(std::min(kernel, height_)),
          target_(dx.data() + n * height_ * row_),
          sums_(in_place ? nullptr : memory.data() + thread_index() * memory.extent(1)) {}

    /// Has all rows before `end` ready to be added to, but for those `kernel` rows back.
    void open(Index end) {
        for (; opened_ < end; ++opened_) {
            if (opened_ >= kept_) close(opened_ - kept_);
            std::fill_n(at(opened_), row_, A(0));
        }
    }
    /// Adds to `count` elements of a row, from an element on.
    [[gnu::always_inline]] void add(const Vector<T>& values, Index row, Index element, Index count) {
        A* to = at(row) + element;
        store_some<A>(load_some(to, count) + values, to, count);
    }
    /// To be called behind the last window.
    void finish() {
        open(height_);
        for (Index row = height_ - kept_; row < height_; ++row) close(row);
    }

private:
    [[nodiscard]] A* at(Index row) {
        if constexpr (in_place) {
            return target_ + row * row_;
        } else {
            return sums_ + row % kept_ * row_;
        }
    }
    void close(Index row) {
        if constexpr (!in_place) {
            const A* sums = at(row);
            T* to = target_ + row * row_;
            for_each_vector<T>(row_,
                               [&](Index i, auto count) { store_some<T>(load_some(sums + i, count), to + i, count); });
        }
    }

    Index height_, row_, kept_;
    T* target_;
    A* sums_;
    Index opened_ = 0;
};

}  // namespace cpu

/// y(n, oh, ow, c) = the largest x of the window; padding is never chosen and NaN always. Shapes as in pool2d_shape.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> max_pool2d_forward(const Pending<T>& x, const Pool2dOptions& options) {
    const Shape shape = detail::max_pool2d_shape("max_pool2d_forward", x.shape(), options);
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
    const Shape shape = detail::max_pool2d_shape("max_pool2d_by_input", x.shape(), options);
    expect_shape("max_pool2d_by_input", "dy", dy.shape(), shape);
    Tensor<T> dx = Tensor<T>::empty(x.shape());
    const cpu::PendingSource<T> source(x);
    Tensor<accumulate_t<T>> memory = cpu::GradientRows<T>::memory(x.shape(), options.kernel);
    parallel_for(shape[0], [&](Index n) {  // windows of one sample overlap: one thread takes them in order
        cpu::GradientRows<T> sums(dx, n, options.kernel, memory);
        for (Index oh = 0; oh < shape[1]; ++oh) {
            const cpu::WindowRange rows(oh, options, x.shape()[1]);
            sums.open(rows.last);
            cpu::for_each_maximum(
                source, options, n, oh, shape[2],
                [&](Index ow, Index c, auto count, const cpu::Vector<T>&, const cpu::Vector<T>& position) {
                    const cpu::WindowRange columns(ow, options, x.shape()[2]);
                    const cpu::Vector<T> upstream =
                        cpu::load_some(dy.data() + ((n * shape[1] + oh) * shape[2] + ow) * shape[3] + c, count);
                    accumulate_t<T> number = 0;
                    for (Index h = rows.first; h < rows.last; ++h) {
                        for (Index w = columns.first; w < columns.last; ++w, number += accumulate_t<T>(1)) {
                            const cpu::Vector<T> chosen = position == number ? upstream : cpu::Vector<T>{};
                            sums.add(chosen, h, w * shape[3] + c, count);
                        }
                    }
                });
        }
        sums.finish();
    });
    return dx;
}

/// y = the sum of the window / the number of its positions, those of the padding included or not (count_include_pad).
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> avg_pool2d_forward(const Tensor<T>& x, const Pool2dOptions& options) {
    const Shape shape = detail::pool2d_shape("avg_pool2d_forward", x.shape(), options);
    Tensor<T> y = Tensor<T>::empty(shape);
    parallel_for(shape[0] * shape[1], [&](Index row) {
        const cpu::WindowRange rows(row % shape[1], options, x.extent(1));
        for (Index ow = 0; ow < shape[2]; ++ow) {
            const cpu::WindowRange columns(ow, options, x.extent(2));
            const auto share = cpu::window_share<accumulate_t<T>>(x.shape(), options, row % shape[1], ow);
            T* target = y.data() + (row * shape[2] + ow) * shape[3];
            cpu::for_each_vector<T>(shape[3], [&](Index c, auto count) {
                cpu::Vector<T> sum = {};
                for (Index h = rows.first; h < rows.last; ++h) {
                    for (Index w = columns.first; w < columns.last; ++w) {
                        const Index pixel = (row / shape[1] * x.extent(1) + h) * x.extent(2) + w;
                        sum += cpu::load_some(x.data() + pixel * shape[3] + c, count);
                    }
                }
                cpu::store_some<T>(sum * share, target + c, count);
            });
        }
    });
    return y;
}

/// dx = dy / the number of positions in every pixel of the window, summed over the windows. x_shape is the shape of x.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> avg_pool2d_by_input(const Tensor<T>& dy, const Pool2dOptions& options, const Shape& x_shape) {
    const Shape shape = detail::pool2d_shape("avg_pool2d_by_input", x_shape, options);
    expect_shape("avg_pool2d_by_input", "dy", dy.shape(), shape);
    Tensor<T> dx = Tensor<T>::empty(x_shape);
    Tensor<accumulate_t<T>> memory = cpu::GradientRows<T>::memory(x_shape, options.kernel);
    parallel_for(shape[0], [&](Index n) {
        cpu::GradientRows<T> sums(dx, n, options.kernel, memory);
        for (Index oh = 0; oh < shape[1]; ++oh) {
            const cpu::WindowRange rows(oh, options, x_shape[1]);
            sums.open(rows.last);
            for (Index ow = 0; ow < shape[2]; ++ow) {
                const cpu::WindowRange columns(ow, options, x_shape[2]);
                const auto share = cpu::window_share<accumulate_t<T>>(x_shape, options, oh, ow);
                const T* upstream = dy.data() + ((n * shape[1] + oh) * shape[2] + ow) * shape[3];
                for (Index h = rows.first; h < rows.last; ++h) {
                    for (Index w = columns.first; w < columns.last; ++w) {
                        cpu::for_each_vector<T>(shape[3], [&](Index c, auto count) {
                            sums.add(share * cpu::load_some(upstream + c, count), h, w * shape[3] + c, count);
                        });
                    }
                }
            }
        }
        sums.finish();
    });
    return dx;
}

/// y(n, c) = the mean of x(n, :, :, c), what is pending of x applied as it is read. Throws std::invalid_argument for
/// images without pixels.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> global_avg_pool_forward(const Pending<T>& x) {
    detail::expect_global_avg_pool(x.shape());
    const cpu::PendingSource<T> source(x);
    const auto add = [&](Index element, Index pixels, Index c, auto count, auto& sums) {
        source.with_channels(c, cpu::constant<1>, count, [&](const auto& value_at) {
            for (Index p = 0; p < pixels; ++p, element += x.channels()) {
                sums[0] += value_at(element, cpu::constant<0>);
            }
        });
    };
    const double share = 1 / static_cast<double>(x.shape()[1] * x.shape()[2]);
    return converted<T>(cpu::sums_of_samples<T, 1>(x.shape(), share, add).reshape({x.shape()[0], x.channels()}));
}

/// dx = dy / (H W) in every pixel. x_shape is the shape of x.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> global_avg_pool_by_input(const Tensor<T>& dy, const Shape& x_shape) {
    detail::expect_global_avg_pool_by_input(dy.shape(), x_shape);
    const Index pixels = x_shape[1] * x_shape[2];
    const Index channels = x_shape[3];
    Tensor<T> dx = Tensor<T>::empty(x_shape);
    parallel_for(x_shape[0], [&](Index n) {
        const T* upstream = dy.data() + n * channels;
        for (Index pixel = 0; pixel < pixels; ++pixel) {
            T* target = dx.data() + (n * pixels + pixel) * channels;
            cpu::for_each_vector<T>(channels, [&](Index c, auto count) {
                const cpu::Vector<T> value = cpu::load_some(upstream + c, count);
                cpu::store_some<T>(value / static_cast<accumulate_t<T>>(pixels), target + c, count);
            });
        }
    });
    return dx;
}

SD_NAMESPACE_END
