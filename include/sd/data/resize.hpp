// Resizing and cutting out the centre, as models of photographs are evaluated.
#pragma once

#include "sd/core/shape.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

SD_NAMESPACE_BEGIN

/// Which square of an image is used.
struct CentreCrop {
    Index resize = 256;  ///< pixels of the shorter side after resizing, 1 to 16384
    Index size = 224;    ///< side of the square that is cut from the middle then, 1 to resize
};

namespace detail {

/// Refuses settings out of range: throws std::invalid_argument.
inline void check_centre_crop(const CentreCrop& options) {
    constexpr Index largest = 16384;
    if (options.resize < 1 || options.resize > largest) {
        refuse("CentreCrop", "resize", options.resize, text("1 to ", largest));
    }
    if (options.size < 1 || options.size > options.resize) {
        refuse("CentreCrop", "size", options.size, text("1 to ", options.resize, ", what is resized to"));
    }
}

// Weights are kept in units of 2^-22: 255 times their sum and a half for rounding fit 32 bits.
inline constexpr int resize_bits = 22;
inline constexpr std::int32_t resize_half = 1 << (resize_bits - 1);

/// The pixels of which a resized one is made, along one side.
struct ResizeWindow {
    Index first = 0;
    std::vector<std::int32_t> weights;
};

/// The windows of resized pixels [first, first + count), for a side of `from` pixels that becomes one of `to`.
inline std::vector<ResizeWindow> resize_windows(Index from, Index to, Index first, Index count) {
    const double scale = static_cast<double>(from) / static_cast<double>(to);
    const double reach = std::max(scale, 1.0);
    std::vector<ResizeWindow> windows(static_cast<std::size_t>(count));
    for (Index i = 0; i < count; ++i) {
        ResizeWindow& window = windows[static_cast<std::size_t>(i)];
        const double centre = (static_cast<double>(first + i) + 0.5) * scale;
        window.first = std::max<Index>(0, std::lround(centre - reach));
        const Index last = std::min<Index>(from, std::lround(centre + reach));
        std::vector<double> weights;
        double sum = 0;
        for (Index pixel = window.first; pixel < last; ++pixel) {
            const double distance = std::abs(static_cast<double>(pixel) - centre + 0.5) / reach;
            weights.push_back(std::max(0.0, 1 - distance));
            sum += weights.back();
        }
        for (const double weight : weights) {
            window.weights.push_back(static_cast<std::int32_t>(std::lround(weight / sum * (1 << resize_bits))));
        }
    }
    return windows;
}

inline std::uint8_t resized_byte(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::min(sum >> resize_bits, 255));
}

/// Resizes rows [first, first + count) of an image along its width.
inline std::vector<std::uint8_t> resize_rows(const std::uint8_t* image, const Shape& shape, Index first, Index count,
                                             const std::vector<ResizeWindow>& windows) {
    const Index channels = shape[2];
    std::vector<std::uint8_t> result;
    result.reserve(static_cast<std::size_t>(count * channels) * windows.size());
    for (Index row = first; row < first + count; ++row) {
        for (const ResizeWindow& window : windows) {
            const std::uint8_t* pixels = image + (row * shape[1] + window.first) * channels;
            for (Index c = 0; c < channels; ++c) {
                std::int32_t sum = resize_half;
                const std::uint8_t* value = pixels + c;
                for (const std::int32_t weight : window.weights) {
                    sum += *value * weight;
                    value += channels;
                }
                result.push_back(resized_byte(sum));
            }
        }
    }
    return result;
}

/// Half of an even number; of an odd one, the even number of the two beside its half.
inline Index half_to_even(Index number) { return number / 2 + (number % 4 == 3 ? 1 : 0); }

}  // namespace detail

/// Resizes an image so that its shorter side has `resize` pixels (of the longer one, the fraction is dropped) and cuts
/// the square from its middle, the evaluation of torchvision's models on Pillow images: Resize(resize),
/// CenterCrop(size). A resized pixel is a mean of pixels under a triangle, along the width and then along the height,
/// rounded to bytes after each:
///
///     resized(i) = sum_j w(i, j) image(j) / sum_j w(i, j)
///     w(i, j) = max(0, 1 - |j + 0.5 - (i + 0.5) s| / max(s, 1)),    s = pixels before / pixels after
///
/// so making an image smaller averages over all of its pixels. image (H, W, C), all 1 or more; cropped (size, size, C),
/// not the same memory. Throws std::invalid_argument for settings out of range.
inline void resize_and_crop(const std::uint8_t* image, const Shape& shape, const CentreCrop& options,
                            std::uint8_t* cropped) {
    detail::check_centre_crop(options);
    expect_rank("resize_and_crop", "an image", shape, 3);
    if (shape.size() < 1) refuse("resize_and_crop", "shape of an image", shape, "extents of 1 or more");
    const auto windows_along = [&](Index dimension) {
        const Index resized = options.resize * shape[dimension] / std::min(shape[0], shape[1]);
        return detail::resize_windows(shape[dimension], resized, detail::half_to_even(resized - options.size),
                                      options.size);
    };
    const std::vector<detail::ResizeWindow> rows = windows_along(0);
    const Index first = rows.front().first;
    const Index last = rows.back().first + static_cast<Index>(rows.back().weights.size());
    const std::vector<std::uint8_t> wide = detail::resize_rows(image, shape, first, last - first, windows_along(1));
    const Index row_size = options.size * shape[2];
    std::vector<std::int32_t> sums(static_cast<std::size_t>(row_size));
    for (const detail::ResizeWindow& window : rows) {
        std::fill(sums.begin(), sums.end(), detail::resize_half);
        const std::uint8_t* values = wide.data() + (window.first - first) * row_size;
        for (const std::int32_t weight : window.weights) {
            for (std::int32_t& sum : sums) sum += *values++ * weight;
        }
        cropped = std::transform(sums.begin(), sums.end(), cropped, detail::resized_byte);
    }
}

SD_NAMESPACE_END
