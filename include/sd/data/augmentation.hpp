// Pad-and-crop and horizontal flip, as pure functions of seed, epoch and sample.
#pragma once

#include "sd/core/philox.hpp"
#include "sd/core/shape.hpp"

#include <algorithm>
#include <cstdint>

SD_NAMESPACE_BEGIN

/// Settings of the usual augmentation of small images (K. He et al., "Deep residual learning for image recognition",
/// 2016, section 4.2).
struct Augmentation {
    Index padding = 4;            ///< zeros on each side before a crop of the old size is taken; 0 or more, 0: no crop
    bool horizontal_flip = true;  ///< mirror every other image, by chance
};

/// Where an image is cropped and whether it is mirrored.
struct AugmentationDraw {
    Index row = 0;      ///< first row of the crop in the padded image, 0 to 2 padding
    Index column = 0;   ///< first column of the crop in the padded image, 0 to 2 padding
    bool flip = false;  ///< mirror the crop
};

namespace detail {

/// Refuses settings that cannot be drawn from: throws std::invalid_argument.
inline void check_augmentation(const Augmentation& options) {
    constexpr Index largest = 1 << 20;
    if (options.padding < 0 || options.padding > largest) {
        refuse("Augmentation", "padding", options.padding, text("0 to ", largest));
    }
}

}  // namespace detail

/// The draw for one sample of a data set in one epoch: the same in any batch, order and thread. Rows and columns are
/// uniform on 0 to 2 padding, a flip has probability 1/2.
[[nodiscard]] inline AugmentationDraw draw_augmentation(const Augmentation& options, std::uint64_t seed, Index epoch,
                                                        Index sample) {
    detail::check_augmentation(options);
    const auto number = static_cast<std::uint64_t>(sample);
    const PhiloxCounter words =
        random_words(seed, Stream::augmentation, static_cast<std::uint64_t>(epoch),
                     static_cast<std::uint32_t>(number >> 32), static_cast<std::uint32_t>(number));
    const auto places = static_cast<std::uint32_t>(2 * options.padding + 1);
    return {static_cast<Index>(uniform_below(words[0], places)), static_cast<Index>(uniform_below(words[1], places)),
            options.horizontal_flip && uniform_below(words[2], 2) == 1};
}

/// Pads an image with zeros and crops it to its old size:
///
///     cropped(h, w, c) = image(h + row - padding, w + column - padding, c),    0 outside the image
///
/// image, cropped (H, W, C), not the same memory.
template <class T>
void pad_and_crop(const T* image, const Shape& shape, Index padding, Index row, Index column, T* cropped) {
    const Index height = shape[0], width = shape[1], channels = shape[2];
    const Index shift = column - padding;
    const Index first = std::clamp<Index>(-shift, 0, width);  // columns [first, last) come from the image
    const Index last = std::clamp<Index>(width - shift, first, width);
    for (Index h = 0; h < height; ++h, cropped += width * channels) {
        const Index from = h + row - padding;
        if (from < 0 || from >= height || first == last) {
            std::fill_n(cropped, width * channels, T(0));
            continue;
        }
        const T* source = image + from * width * channels;
        std::fill_n(cropped, first * channels, T(0));
        std::copy(source + (first + shift) * channels, source + (last + shift) * channels, cropped + first * channels);
        std::fill(cropped + last * channels, cropped + width * channels, T(0));
    }
}

/// Mirrors an image (H, W, C) in place: image(h, w, c) becomes image(h, W - 1 - w, c).
template <class T>
void horizontal_flip(T* image, const Shape& shape) {
    const Index height = shape[0], width = shape[1], channels = shape[2];
    for (Index h = 0; h < height; ++h, image += width * channels) {
        for (Index w = 0; w < width / 2; ++w) {
            std::swap_ranges(image + w * channels, image + (w + 1) * channels, image + (width - 1 - w) * channels);
        }
    }
}

/// Augments one normalised image of shape (H, W, C): crop, then flip, as drawn for (seed, epoch, sample).
/// image and augmented must not be the same memory. Throws std::invalid_argument for settings out of range.
template <class T>
void augment(const T* image, const Shape& shape, const Augmentation& options, std::uint64_t seed, Index epoch,
             Index sample, T* augmented) {
    expect_rank("augment", "an image", shape, 3);
    const AugmentationDraw draw = draw_augmentation(options, seed, epoch, sample);
    pad_and_crop(image, shape, options.padding, draw.row, draw.column, augmented);
    if (draw.flip) horizontal_flip(augmented, shape);
}

SD_NAMESPACE_END
