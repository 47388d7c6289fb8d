// Images that the library makes itself, so that training can be tried without a download.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/philox.hpp"
#include "sd/data/dataset.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// The waves of one class, in radians a pixel along width and height.
struct SyntheticWave {
    double along_width, along_height;
};

/// Classes are points of a grid of wavelengths (9 to 4.5 pixels, in equal ratios) and angles (between 0 and 90 degrees,
/// the ends left out). A mirrored image has the same angle, so flipping keeps the class.
inline SyntheticWave synthetic_wave(Index label, Index num_classes) {
    const Index wavelengths = std::max<Index>(1, std::llround(std::sqrt(0.4 * static_cast<double>(num_classes))));
    const Index angles = (num_classes + wavelengths - 1) / wavelengths;
    constexpr double pi = 3.14159265358979323846;
    const double place =
        wavelengths == 1 ? 0.5 : static_cast<double>(label % wavelengths) / static_cast<double>(wavelengths - 1);
    const double angle = pi / 2 * (static_cast<double>(label / wavelengths) + 0.5) / static_cast<double>(angles);
    const double frequency = 2 * pi / 9 * std::exp2(place);
    return {frequency * std::cos(angle), frequency * std::sin(angle)};
}

/// Writes the bytes (H, W, 3) of one image.
inline void draw_synthetic(const SyntheticWave& wave, Index height, Index width, std::uint64_t seed,
                           std::uint64_t sample, std::uint8_t* image) {
    std::array<double, 16> draw{};  // in [0, 1), one use each
    for (std::size_t i = 0; i < draw.size(); i += 4) {
        const PhiloxCounter words = random_words(seed, Stream::synthetic, sample, 0, static_cast<std::uint32_t>(i / 4));
        for (std::size_t j = 0; j < 4; ++j) draw[i + j] = uniform_from(words[j]);
    }
    constexpr double two_pi = 6.283185307179586476925286766559;
    const double phase0 = two_pi * draw[0];
    const double phase1 = two_pi * draw[1];
    const double amplitude0 = 0.5 + 0.5 * draw[2];
    const double amplitude1 = 0.5 + 0.5 * draw[3];
    const double contrast = 30 + 40 * draw[4];
    const double centre_row = (0.25 + 0.5 * draw[5]) * static_cast<double>(height);
    const double centre_column = (0.25 + 0.5 * draw[6]) * static_cast<double>(width);
    const double radius = (0.3 + 0.3 * draw[7]) * static_cast<double>(std::min(height, width));
    const std::array<double, 3> ground{70 + 115 * draw[8], 70 + 115 * draw[9], 70 + 115 * draw[10]};
    const std::array<double, 3> colour{0.4 + 0.6 * draw[11], 0.4 + 0.6 * draw[12], 0.4 + 0.6 * draw[13]};

    PhiloxCounter words{};
    std::uint32_t value = 0;  // counts the values of the image: four of them take their noise from one draw
    for (Index h = 0; h < height; ++h) {
        const auto row = static_cast<double>(h);
        for (Index w = 0; w < width; ++w) {
            const auto column = static_cast<double>(w);
            const double distance = std::hypot(row - centre_row, column - centre_column) / radius;
            const double waves = amplitude0 * std::cos(wave.along_width * column + wave.along_height * row + phase0) +
                                 amplitude1 * std::cos(wave.along_width * column - wave.along_height * row + phase1);
            const double pattern = contrast * waves * std::exp(-0.5 * distance * distance);
            for (std::size_t c = 0; c < 3; ++c, ++value) {
                if (value % 4 == 0) words = random_words(seed, Stream::synthetic, sample, 1, value / 4);
                const std::uint32_t word = words[value % 4];
                const auto sum =
                    static_cast<double>((word & 255U) + (word >> 8 & 255U) + (word >> 16 & 255U) + (word >> 24));
                const double noise = 0.2 * (sum - 510);  // nearly normal, deviation 30
                *image++ = static_cast<std::uint8_t>(
                    std::lround(std::clamp(ground[c] + colour[c] * pattern + noise, 0.0, 255.0)));
            }
        }
    }
}

}  // namespace detail

/// Synthetic colour images (height, width, 3) in num_classes classes. Sample i shows a pair of crossed waves whose
/// length and angle belong to its class, i mod num_classes; phases, amplitudes, place, size, contrast and colours are
/// drawn, and noise is added:
///
///     byte(h, w, c) = ground(c) + colour(c) contrast exp(-d^2 / 2) (a0 cos(u w + v h + f0) + a1 cos(u w - v h + f1))
///                     + noise
///
/// with d the distance from a drawn centre over a drawn radius. The phases make the mean image of every class the same,
/// so a linear model learns next to nothing, while a small ResNet reaches over 90 % in a few epochs.
///
/// Sample i is a pure function of (seed, first + i): sets whose ranges [first, first + count) do not overlap share no
/// image. Throws std::invalid_argument for a negative count or first, extents or a number of classes below 1.
[[nodiscard]] inline InMemoryDataset synthetic_images(Index count, Index num_classes, Index height, Index width,
                                                      std::uint64_t seed, Index first = 0) {
    if (count < 0) refuse("synthetic_images", "count", count, "0 or more");
    if (first < 0) refuse("synthetic_images", "first", first, "0 or more");
    if (num_classes < 1) refuse("synthetic_images", "number of classes", num_classes, "1 or more");
    const Shape shape{height, width, 3};
    if (shape.size() < 1) refuse("synthetic_images", "shape of an image", shape, "extents of 1 or more");
    const Shape all{count, height, width, 3};
    if (first > std::numeric_limits<Index>::max() - count) {
        refuse("synthetic_images", "first", first, text("at most ", std::numeric_limits<Index>::max() - count));
    }
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(all.size()));
    std::vector<Index> labels(static_cast<std::size_t>(count));
    parallel_for(count, [&](Index i) {
        const Index sample = first + i;
        const Index label = sample % num_classes;
        labels[static_cast<std::size_t>(i)] = label;
        detail::draw_synthetic(detail::synthetic_wave(label, num_classes), height, width, seed,
                               static_cast<std::uint64_t>(sample), pixels.data() + i * shape.size());
    });
    return {shape, std::move(pixels), std::move(labels), num_classes, {{0.5F, 0.5F, 0.5F}, {0.25F, 0.25F, 0.25F}}};
}

SD_NAMESPACE_END
