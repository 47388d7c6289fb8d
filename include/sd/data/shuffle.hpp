// Random orders, as a pure function of what they are drawn for.
#pragma once

#include "sd/core/philox.hpp"
#include "sd/core/shape.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// A random permutation of 0 to count - 1 that belongs to (seed, stream, step). It uses block 0 of the stream.
/// (R. Fisher and F. Yates, 1938; in place by R. Durstenfeld, 1964)
///
///     for i = count - 1 down to 1: swap order(i) with order(j), j uniform on 0 to i
///
/// Throws std::invalid_argument for a count that is negative or above 2^32 - 1.
[[nodiscard]] inline std::vector<Index> random_permutation(Index count, std::uint64_t seed, Stream stream,
                                                           std::uint64_t step) {
    constexpr auto largest = static_cast<Index>(std::numeric_limits<std::uint32_t>::max());
    if (count < 0 || count > largest) refuse("random_permutation", "count", count, text("0 to ", largest));
    std::vector<Index> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), Index{0});
    PhiloxCounter words{};
    Index drawn = -1;  // which four steps the words are for
    for (Index i = count - 1; i > 0; --i) {
        if (i / 4 != drawn) {
            drawn = i / 4;
            words = random_words(seed, stream, step, 0, static_cast<std::uint32_t>(drawn));
        }
        const std::uint32_t j =
            uniform_below(words[static_cast<std::size_t>(i % 4)], static_cast<std::uint32_t>(i + 1));
        std::swap(order[static_cast<std::size_t>(i)], order[j]);
    }
    return order;
}

/// The random order of `count` samples in an epoch.
/// Throws std::invalid_argument for a count that is negative or above 2^32 - 1, or a negative epoch.
[[nodiscard]] inline std::vector<Index> shuffled_order(Index count, std::uint64_t seed, Index epoch) {
    if (epoch < 0) refuse("shuffled_order", "epoch", epoch, "0 or more");
    return random_permutation(count, seed, Stream::shuffle, static_cast<std::uint64_t>(epoch));
}

SD_NAMESPACE_END
