// Sliding windows: the settings of convolutions and pooling, and the shapes that follow from them.
#pragma once

#include "sd/core/shape.hpp"

#include <initializer_list>
#include <limits>

SD_NAMESPACE_BEGIN

/// Settings of a two-dimensional convolution, the same in both directions.
struct Conv2dOptions {
    Index stride = 1;    ///< 1 or more
    Index padding = 0;   ///< zeros on each side, 0 or more
    Index dilation = 1;  ///< distance between the taps, 1 or more
    Index groups = 1;    ///< divides the channels of input and output; 1 or more
    bool bias = false;   ///< whether the layer adds a bias per output channel; kernels take it as a shift
};

/// A part of an image: rows [top, bottom) and columns [left, right).
struct ImageBox {
    Index top = 0;     ///< first row
    Index left = 0;    ///< first column
    Index bottom = 0;  ///< past the last row
    Index right = 0;   ///< past the last column

    /// The number of pixels.
    [[nodiscard]] SD_HOST_DEVICE Index area() const { return (bottom - top) * (right - left); }
    /// Whether a pixel is in it.
    [[nodiscard]] SD_HOST_DEVICE bool contains(Index row, Index column) const {
        return row >= top && row < bottom && column >= left && column < right;
    }
};

/// Settings of a two-dimensional pooling window, the same in both directions.
struct Pool2dOptions {
    Index kernel = 2;   ///< 1 or more
    Index stride = 2;   ///< 1 or more
    Index padding = 0;  ///< on each side, at most kernel / 2
    /// A last window may reach past the input and its padding, as long as it begins before their end.
    bool ceil_mode = false;
    /// Averages divide by all positions of the window within the padded input, or by those within the input alone.
    bool count_include_pad = true;
};

namespace detail {

/// The number of windows along one axis: floor((extent + 2 padding - dilation (kernel - 1) - 1) / stride) + 1.
/// Throws std::invalid_argument if not even one window fits.
inline Index window_count(const char* where, Index extent, Index kernel, Index stride, Index padding, Index dilation) {
    constexpr Index largest = std::numeric_limits<Index>::max() / 8;  // what is computed below fits an Index
    if (padding > largest) refuse(where, "padding", padding, text("at most ", largest));
    if (dilation > largest / kernel) refuse(where, "dilation", dilation, text("at most ", largest / kernel));
    const Index span = dilation * (kernel - 1) + 1;
    if (extent + 2 * padding < span) {
        refuse(where, "input extent with padding", extent + 2 * padding, text("at least the window's span ", span));
    }
    return (extent + 2 * padding - span) / stride + 1;
}

/// How many positions of window `position` along one axis an average counts, as PyTorch's avg_pool2d does.
SD_HOST_DEVICE constexpr Index averaged_positions(const Pool2dOptions& options, Index position, Index extent) {
    const Index padding = options.count_include_pad ? options.padding : 0;
    const Index first = position * options.stride - options.padding;
    const Index last = first + options.kernel;
    return (last < extent + padding ? last : extent + padding) - (first > -padding ? first : -padding);
}

}  // namespace detail

/// Whether a convolution with weights (O, C / groups, KH, KW) takes each channel for itself.
[[nodiscard]] inline bool is_depthwise(const Shape& weight, const Conv2dOptions& options) {
    return weight[1] == 1 && weight[0] == options.groups;
}

/// All extents of one convolution, checked against each other.
///
///     x (batch, in_height, in_width, in_channels)         NHWC
///     weight (out_channels, group_in, kernel_height, kernel_width)    OIHW
///     y (batch, out_height, out_width, out_channels)      NHWC
///
///     y(n, oh, ow, o) = sum over i, kh, kw of weight(o, i, kh, kw) x(n, h, w, g group_in + i)
///     with h = oh stride - padding + kh dilation, w = ow stride - padding + kw dilation, g = o / group_out,
///     and x = 0 outside its extents
struct Conv2dGeometry {
    /// @{ Extents, as above.
    Index batch = 0, in_height = 0, in_width = 0, in_channels = 0;
    Index out_height = 0, out_width = 0, out_channels = 0;
    Index kernel_height = 0, kernel_width = 0;
    /// @}
    /// @{ Channels of one group.
    Index group_in = 0, group_out = 0;
    /// @}
    Conv2dOptions options;  ///< stride, padding, dilation, groups

    /// Throws std::invalid_argument, naming setting or shape, if anything does not fit.
    Conv2dGeometry(const Shape& x, const Shape& weight, const Conv2dOptions& settings) : options(settings) {
        expect_rank("conv2d", "x", x, 4);
        expect_rank("conv2d", "weight", weight, 4);
        if (options.stride < 1) refuse("conv2d", "stride", options.stride, "1 or more");
        if (options.padding < 0) refuse("conv2d", "padding", options.padding, "0 or more");
        if (options.dilation < 1) refuse("conv2d", "dilation", options.dilation, "1 or more");
        if (options.groups < 1) refuse("conv2d", "groups", options.groups, "1 or more");
        for (const Index extent : weight) {
            if (extent < 1) refuse("conv2d", "shape of weight", weight, "extents of 1 or more");
        }
        batch = x[0], in_height = x[1], in_width = x[2], in_channels = x[3];
        out_channels = weight[0], group_in = weight[1], kernel_height = weight[2], kernel_width = weight[3];
        if (in_channels % options.groups != 0 || in_channels / options.groups != group_in) {
            refuse("conv2d", "channels of x", in_channels,
                   text(group_in, " x ", options.groups, " for weight ", weight, " in ", options.groups, " groups"));
        }
        if (out_channels % options.groups != 0) {
            refuse("conv2d", "output channels", out_channels, text("a multiple of the groups, ", options.groups));
        }
        group_out = out_channels / options.groups;
        out_height =
            detail::window_count("conv2d", in_height, kernel_height, options.stride, options.padding, options.dilation);
        out_width =
            detail::window_count("conv2d", in_width, kernel_width, options.stride, options.padding, options.dilation);
    }

    /// (batch, in_height, in_width, in_channels)
    [[nodiscard]] Shape input_shape() const { return {batch, in_height, in_width, in_channels}; }
    /// (out_channels, group_in, kernel_height, kernel_width)
    [[nodiscard]] Shape weight_shape() const { return {out_channels, group_in, kernel_height, kernel_width}; }
    /// (batch, out_height, out_width, out_channels)
    [[nodiscard]] Shape output_shape() const { return {batch, out_height, out_width, out_channels}; }
};

namespace detail {

/// Refuses images without pixels.
inline void expect_pixels(const char* where, const Shape& x) {
    if (x[1] * x[2] == 0) refuse(where, "shape of x", x, "at least one pixel");
}

/// The number of pooling windows along one axis: as window_count(), rounded up in ceil_mode, where a last window that
/// would begin in the padding behind the input is left out. Throws std::invalid_argument if not even one fits.
inline Index pool2d_count(const char* where, Index extent, const Pool2dOptions& options) {
    if (!options.ceil_mode) return window_count(where, extent, options.kernel, options.stride, options.padding, 1);
    if (extent < 1) refuse(where, "input extent", extent, "1 or more");
    const Index beyond_first = extent + 2 * options.padding - options.kernel;
    const Index count = beyond_first <= 0 ? 1 : (beyond_first + options.stride - 1) / options.stride + 1;
    return (count - 1) * options.stride < extent + options.padding ? count : count - 1;
}

/// The output shape (N, OH, OW, C) of a pooling over x (N, H, W, C). Throws std::invalid_argument if it does not fit.
inline Shape pool2d_shape(const char* where, const Shape& x, const Pool2dOptions& options) {
    expect_rank(where, "x", x, 4);
    if (options.kernel < 1) refuse(where, "kernel", options.kernel, "1 or more");
    if (options.stride < 1) refuse(where, "stride", options.stride, "1 or more");
    if (options.padding < 0 || options.padding > options.kernel / 2) {
        refuse(where, "padding", options.padding, text("0 to kernel / 2 = ", options.kernel / 2));
    }
    return {x[0], pool2d_count(where, x[1], options), pool2d_count(where, x[2], options), x[3]};
}

/// The same of a maximum, which images without pixels do not have.
inline Shape max_pool2d_shape(const char* where, const Shape& x, const Pool2dOptions& options) {
    const Shape shape = pool2d_shape(where, x, options);
    expect_pixels(where, x);
    return shape;
}

/// Refuses x of another rank than (N, H, W, C), or without pixels, which have no mean.
inline void expect_global_avg_pool(const Shape& x) {
    expect_rank("global_avg_pool_forward", "x", x, 4);
    expect_pixels("global_avg_pool_forward", x);
}

/// Refuses dy of another shape than (N, C), of x (N, H, W, C).
inline void expect_global_avg_pool_by_input(const Shape& dy, const Shape& x) {
    expect_rank("global_avg_pool_by_input", "x", x, 4);
    expect_shape("global_avg_pool_by_input", "dy", dy, {x[0], x[3]});
}

}  // namespace detail

SD_NAMESPACE_END
