// Random erasing: a box of an image is set to zero, as a pure function of seed, epoch and sample.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/philox.hpp"
#include "sd/core/shape.hpp"
#include "sd/core/window.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

SD_NAMESPACE_BEGIN

namespace detail {

/// How often a box is drawn anew if it does not fit.
inline constexpr std::uint64_t erasing_attempts = 10;

/// Refuses a chance that is none: throws std::invalid_argument.
inline void check_erasing_chance(const char* where, double chance) {
    if (!is_in_range(chance, 0, 1)) refuse(where, "chance of random erasing", chance, "a number from 0 to 1");
}

/// The box of one attempt, see draw_erased_box; none if it does not fit.
[[nodiscard]] inline std::optional<ImageBox> erasing_attempt(Index height, Index width, const PhiloxCounter& words) {
    const auto between = [](double low, double high, std::uint32_t word) {
        return low + (high - low) * uniform_from(word);
    };
    const double area = static_cast<double>(height * width) * between(0.02, 0.33, words[0]);
    const double ratio = std::exp(between(std::log(0.3), std::log(3.3), words[1]));
    const auto h = static_cast<Index>(std::nearbyint(std::sqrt(area * ratio)));
    const auto w = static_cast<Index>(std::nearbyint(std::sqrt(area / ratio)));
    if (h >= height || w >= width) return std::nullopt;
    const auto top = static_cast<Index>(uniform_below(words[2], static_cast<std::uint32_t>(height - h + 1)));
    const auto left = static_cast<Index>(uniform_below(words[3], static_cast<std::uint32_t>(width - w + 1)));
    return ImageBox{.top = top, .left = left, .bottom = top + h, .right = left + w};
}

}  // namespace detail

/// The box that is erased of one sample in one epoch: the same in any batch, order and thread. With the given chance a box
/// of h x w pixels is drawn in an image of H x W,
///
///     area = H W U(0.02, 0.33)                 ratio = exp(U(log 0.3, log 3.3))
///     h    = round(sqrt(area ratio))           w     = round(sqrt(area / ratio))         halves to even
///
/// up to ten times, until h < H and w < W; its place is uniform. Otherwise the box is empty, which it may also be where
/// an image has so few pixels that h or w is rounded to 0. Throws std::invalid_argument for a chance outside 0 to 1.
/// Z. Zhong et al., "Random erasing data augmentation", AAAI 2020; ranges and attempts as torchvision's RandomErasing.
[[nodiscard]] inline ImageBox draw_erased_box(double chance, Index height, Index width, std::uint64_t seed, Index epoch,
                                              Index sample) {
    detail::check_erasing_chance("draw_erased_box", chance);
    const auto number = static_cast<std::uint64_t>(sample);
    const auto words = [&](std::uint64_t draw) {
        constexpr std::uint64_t draws = detail::erasing_attempts + 1;  // of an epoch, the chance's first
        return random_words(seed, Stream::random_erasing, static_cast<std::uint64_t>(epoch) * draws + draw,
                            static_cast<std::uint32_t>(number >> 32), static_cast<std::uint32_t>(number));
    };
    if (uniform_from(words(0)[0]) >= chance) return {};
    for (std::uint64_t attempt = 1; attempt <= detail::erasing_attempts; ++attempt) {
        if (const auto box = detail::erasing_attempt(height, width, words(attempt))) return *box;
    }
    return {};
}

/// Sets a box of an image (H, W, C) to zero, in place. The box is inside the image.
template <class T>
void erase_box(T* image, const Shape& shape, const ImageBox& box) {
    const Index width = shape[1], channels = shape[2];
    for (Index h = box.top; h < box.bottom; ++h) {
        std::fill_n(image + (h * width + box.left) * channels, (box.right - box.left) * channels, T(0));
    }
}

SD_NAMESPACE_END
