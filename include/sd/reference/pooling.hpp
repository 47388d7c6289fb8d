// Maximum, average and global average pooling.
#pragma once

#include "sd/core/window.hpp"
#include "sd/reference/pending.hpp"

SD_NAMESPACE_BEGIN

namespace reference {

/// Calls visit(n, oh, ow, h, w) for every pixel (h, w) of x in every window (oh, ow), row-major, padding left out.
template <class Visit>
void for_each_window_pixel(const Shape& x, const Shape& y, const Pool2dOptions& options, const Visit& visit) {
    for (Index n = 0; n < y[0]; ++n) {
        for (Index oh = 0; oh < y[1]; ++oh) {
            for (Index ow = 0; ow < y[2]; ++ow) {
                for (Index kh = 0; kh < options.kernel; ++kh) {
                    for (Index kw = 0; kw < options.kernel; ++kw) {
                        const Index h = oh * options.stride - options.padding + kh;
                        const Index w = ow * options.stride - options.padding + kw;
                        if (h >= 0 && h < x[1] && w >= 0 && w < x[2]) visit(n, oh, ow, h, w);
                    }
                }
            }
        }
    }
}

/// How many positions the average of window (oh, ow) counts.
template <class A>
[[nodiscard]] A window_size(const Shape& x, const Pool2dOptions& options, Index oh, Index ow) {
    return static_cast<A>(static_cast<double>(detail::averaged_positions(options, oh, x[1]) *
                                              detail::averaged_positions(options, ow, x[2])));
}

/// For every window and channel, the pixel h * W + w of its largest value: the first one in row-major order, or the
/// last NaN if there are some. Shape (N, OH, OW, C). Throws std::invalid_argument if the window does not fit or x has
/// no pixels.
template <class T>
[[nodiscard]] Tensor<Index> max_pool2d_choice(const Pending<T>& x, const Pool2dOptions& options) {
    const Shape shape = detail::max_pool2d_shape("max_pool2d", x.shape(), options);
    const Index width = x.shape()[2];
    const Tensor<T> values = materialize(x);
    Tensor<Index> choice = Tensor<Index>::full(shape, Index{-1});
    for_each_window_pixel(x.shape(), shape, options, [&](Index n, Index oh, Index ow, Index h, Index w) {
        for (Index c = 0; c < shape[3]; ++c) {
            Index& best = choice(n, oh, ow, c);
            const T value = values(n, h, w, c);
            if (best < 0 || value != value || value > values(n, best / width, best % width, c)) best = h * width + w;
        }
    });
    return choice;
}

/// y(n, oh, ow, c) = the largest x of the window; padding is never chosen.
template <class T>
[[nodiscard]] Tensor<T> max_pool2d_forward(const Pending<T>& x, const Pool2dOptions& options) {
    const Tensor<Index> choice = max_pool2d_choice(x, options);
    const Tensor<T> values = materialize(x);
    Tensor<T> y(choice.shape());
    const Index width = x.shape()[2];
    for (Index n = 0; n < y.extent(0); ++n) {
        for (Index oh = 0; oh < y.extent(1); ++oh) {
            for (Index ow = 0; ow < y.extent(2); ++ow) {
                for (Index c = 0; c < y.extent(3); ++c) {
                    const Index pixel = choice(n, oh, ow, c);
                    y(n, oh, ow, c) = values(n, pixel / width, pixel % width, c);
                }
            }
        }
    }
    return y;
}

/// The gradient by the value of x: each dy goes to the pixel that was chosen.
template <class T>
[[nodiscard]] Tensor<T> max_pool2d_by_input(const Tensor<T>& dy, const Pending<T>& x, const Pool2dOptions& options) {
    const Tensor<Index> choice = max_pool2d_choice(x, options);
    expect_shape("max_pool2d_by_input", "dy", dy.shape(), choice.shape());
    Tensor<T> dx(x.shape());
    const Index width = x.shape()[2];
    for (Index n = 0; n < dy.extent(0); ++n) {
        for (Index oh = 0; oh < dy.extent(1); ++oh) {
            for (Index ow = 0; ow < dy.extent(2); ++ow) {
                for (Index c = 0; c < dy.extent(3); ++c) {
                    const Index pixel = choice(n, oh, ow, c);
                    T& target = dx(n, pixel / width, pixel % width, c);
                    target = T(target + dy(n, oh, ow, c));
                }
            }
        }
    }
    return dx;
}

/// y = the sum of the window / the number of its positions, those of the padding included or not (count_include_pad).
template <class T>
[[nodiscard]] Tensor<T> avg_pool2d_forward(const Tensor<T>& x, const Pool2dOptions& options) {
    const Shape shape = detail::pool2d_shape("avg_pool2d_forward", x.shape(), options);
    using A = accumulate_t<T>;
    Tensor<A> sums(shape);
    for_each_window_pixel(x.shape(), shape, options, [&](Index n, Index oh, Index ow, Index h, Index w) {
        for (Index c = 0; c < shape[3]; ++c) sums(n, oh, ow, c) = sums(n, oh, ow, c) + A(x(n, h, w, c));
    });
    Tensor<T> y(shape);
    for (Index n = 0; n < shape[0]; ++n) {
        for (Index oh = 0; oh < shape[1]; ++oh) {
            for (Index ow = 0; ow < shape[2]; ++ow) {
                const A count = window_size<A>(x.shape(), options, oh, ow);
                for (Index c = 0; c < shape[3]; ++c) y(n, oh, ow, c) = T(sums(n, oh, ow, c) / count);
            }
        }
    }
    return y;
}

/// dx += dy / the number of positions, for every window that a pixel is in. x_shape is the shape of x.
template <class T>
[[nodiscard]] Tensor<T> avg_pool2d_by_input(const Tensor<T>& dy, const Pool2dOptions& options, const Shape& x_shape) {
    const Shape shape = detail::pool2d_shape("avg_pool2d_by_input", x_shape, options);
    expect_shape("avg_pool2d_by_input", "dy", dy.shape(), shape);
    Tensor<T> dx(x_shape);
    for_each_window_pixel(x_shape, shape, options, [&](Index n, Index oh, Index ow, Index h, Index w) {
        const T count = window_size<T>(x_shape, options, oh, ow);
        for (Index c = 0; c < shape[3]; ++c) dx(n, h, w, c) = T(dx(n, h, w, c) + dy(n, oh, ow, c) / count);
    });
    return dx;
}

/// y(n, c) = the mean of x(n, :, :, c). Throws std::invalid_argument for images without pixels.
template <class T>
[[nodiscard]] Tensor<T> global_avg_pool_forward(const Pending<T>& x) {
    detail::expect_global_avg_pool(x.shape());
    using A = accumulate_t<T>;
    const Tensor<T> values = materialize(x);
    const A count = static_cast<A>(static_cast<double>(values.extent(1) * values.extent(2)));
    Tensor<T> y(Shape{values.extent(0), values.extent(3)});
    for (Index n = 0; n < values.extent(0); ++n) {
        for (Index c = 0; c < values.extent(3); ++c) {
            A sum(0);
            for (Index h = 0; h < values.extent(1); ++h) {
                for (Index w = 0; w < values.extent(2); ++w) sum = sum + A(values(n, h, w, c));
            }
            y(n, c) = T(sum / count);
        }
    }
    return y;
}

/// dx = dy / (H W) in every pixel. x_shape is the shape of x.
template <class T>
[[nodiscard]] Tensor<T> global_avg_pool_by_input(const Tensor<T>& dy, const Shape& x_shape) {
    detail::expect_global_avg_pool_by_input(dy.shape(), x_shape);
    const T count = static_cast<T>(static_cast<double>(x_shape[1] * x_shape[2]));
    Tensor<T> dx(x_shape);
    for (Index n = 0; n < x_shape[0]; ++n) {
        for (Index h = 0; h < x_shape[1]; ++h) {
            for (Index w = 0; w < x_shape[2]; ++w) {
                for (Index c = 0; c < x_shape[3]; ++c) dx(n, h, w, c) = dy(n, c) / count;
            }
        }
    }
    return dx;
}

}  // namespace reference

SD_NAMESPACE_END
