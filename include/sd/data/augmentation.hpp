// Pad-and-crop, horizontal flip and random erasing, as pure functions of seed, epoch and sample.
#pragma once

#include "sd/core/philox.hpp"
#include "sd/core/shape.hpp"
#include "sd/core/window.hpp"
#include "sd/data/random_erasing.hpp"

#include <algorithm>
#include <cstdint>

SD_NAMESPACE_BEGIN

/// Settings of the usual augmentation of small images (K. He et al., "Deep residual learning for image recognition",
/// 2016, section 4.2), and of random erasing.
struct Augmentation {
    Index padding = 4;            ///< zeros on each side before a crop of the old size is taken; 0 or more, 0: no crop
    bool horizontal_flip = true;  ///< mirror every other image, by chance
    double random_erasing = 0;    ///< chance, 0 to 1, that a box is set to zero, see draw_erased_box; 0: never
};

/// Where an image is cropped, whether it is mirrored, and what is erased of it then.
struct AugmentationDraw {
    Index row = 0;      ///< first row of the crop in the padded image, 0 to 2 padding
    Index column = 0;   ///< first column of the crop in the padded image, 0 to 2 padding
    bool flip = false;  ///< mirror the crop
    ImageBox erased;    ///< of the crop, mirrored or not; empty: nothing
};

namespace detail {

/// Refuses settings that cannot be drawn from: throws std::invalid_argument.
inline void check_augmentation(const Augmentation& options) {
    constexpr Index largest = 1 << 20;
    if (options.padding < 0 || options.padding > largest) {
        refuse("Augmentation", "padding", options.padding, text("0 to ", largest));
    }
    check_erasing_chance("Augmentation", options.random_erasing);
}

}  // namespace detail

/// The draw for one sample, an image of shape (H, W, C), of a data set in one epoch: the same in any batch, order and
/// thread. Rows and columns are uniform on 0 to 2 padding, a flip has probability 1/2; what is erased is drawn apart and
/// changes neither. Throws std::invalid_argument for another shape or settings out of range.
[[nodiscard]] inline AugmentationDraw draw_augmentation(const Shape& shape, const Augmentation& options,
                                                        std::uint64_t seed, Index epoch, Index sample) {
    expect_rank("augmentation", "an image", shape, 3);
    detail::check_augmentation(options);
    const auto number = static_cast<std::uint64_t>(sample);
    const PhiloxCounter words =
        random_words(seed, Stream::augmentation, static_cast<std::uint64_t>(epoch),
                     static_cast<std::uint32_t>(number >> 32), static_cast<std::uint32_t>(number));
    const auto places = static_cast<std::uint32_t>(2 * options.padding + 1);
    return {static_cast<Index>(uniform_below(words[0], places)), static_cast<Index>(uniform_below(words[1], places)),
            options.horizontal_flip && uniform_below(words[2], 2) == 1,
            draw_erased_box(options.random_erasing, shape[0], shape[1], seed, epoch, sample)};
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

/// Augments one normalised image of shape (H, W, C): crop, flip, then erasing, as drawn for (seed, epoch, sample).
/// image and augmented must not be the same memory. Throws std::invalid_argument for another shape or settings out of range.
template <class T>
void augment(const T* image, const Shape& shape, const Augmentation& options, std::uint64_t seed, Index epoch,
             Index sample, T* augmented) {
    const AugmentationDraw draw = draw_augmentation(shape, options, seed, epoch, sample);
    pad_and_crop(image, shape, options.padding, draw.row, draw.column, augmented);
    if (draw.flip) horizontal_flip(augmented, shape);
    erase_box(augmented, shape, draw.erased);
}

SD_NAMESPACE_END
