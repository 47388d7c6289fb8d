// Philox4x32-10: random numbers as a pure function of a counter and a key, with no state to keep, share or restore.
// J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include "sd/core/config.hpp"

#include <array>
#include <cmath>
#include <cstdint>

SD_NAMESPACE_BEGIN

/// Four words that name a random number.
using PhiloxCounter = std::array<std::uint32_t, 4>;
/// Two words that name a sequence of random numbers: the seed, low word first.
using PhiloxKey = std::array<std::uint32_t, 2>;

/// Ten Philox rounds: four 32-bit words, equidistributed over the counters of one key.
SD_HOST_DEVICE constexpr PhiloxCounter philox4x32_10(PhiloxCounter counter, PhiloxKey key) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t product0 = std::uint64_t{0xD2511F53U} * counter[0];
        const std::uint64_t product1 = std::uint64_t{0xCD9E8D57U} * counter[2];
        counter = {
            static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
            static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
        key[0] += 0x9E3779B9U;
        key[1] += 0xBB67AE85U;
    }
    return counter;
}

/// What random numbers are drawn for. Each stream is independent of the others under the same seed.
enum class Stream : std::uint8_t {
    mask = 0,            ///< which samples keep a branch
    shuffle = 1,         ///< the order of an epoch
    augmentation = 2,    ///< crops and flips
    initialization = 3,  ///< start values
    synthetic = 4,       ///< images and tests
    mixup = 5,           ///< pairs of samples and their shares
    cutmix = 6,          ///< pairs of samples and the boxes that they exchange
    random_erasing = 7   ///< which images lose a box, and which box
};

/// The four words that belong to (seed, stream, step, block, index). `step` uses its low 56 bits.
///
///     key     = (seed low, seed high)
///     counter = (index, block, step bits 0..31, step bits 32..55 << 8 | stream)
SD_HOST_DEVICE constexpr PhiloxCounter random_words(std::uint64_t seed, Stream stream, std::uint64_t step,
                                                    std::uint32_t block, std::uint32_t index) {
    const auto step_high = static_cast<std::uint32_t>((step >> 32) & 0xFFFFFFU);
    return philox4x32_10(
        {index, block, static_cast<std::uint32_t>(step), (step_high << 8) | static_cast<std::uint32_t>(stream)},
        {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

/// A number in [0, 1) with 32 random bits.
SD_HOST_DEVICE constexpr double uniform_from(std::uint32_t word) { return word * 0x1p-32; }

/// An integer in [0, bound), bound > 0, by the high half of a product: a bias below bound / 2^32.
SD_HOST_DEVICE constexpr std::uint32_t uniform_below(std::uint32_t word, std::uint32_t bound) {
    return static_cast<std::uint32_t>((std::uint64_t{word} * bound) >> 32);
}

/// A standard normal number from two words (Box and Muller, 1958).
inline double normal_from(std::uint32_t word0, std::uint32_t word1) {
    constexpr double two_pi = 6.283185307179586476925286766559;
    const double radius = std::sqrt(-2.0 * std::log((word0 + 1.0) * 0x1p-32));  // in (0, 1]: the logarithm is finite
    return radius * std::cos(two_pi * uniform_from(word1));
}

SD_NAMESPACE_END
