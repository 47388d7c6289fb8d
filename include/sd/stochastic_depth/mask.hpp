// The random choice of stochastic depth, as a pure function.
#pragma once

#include "sd/core/philox.hpp"
#include "sd/core/storage.hpp"

#include <cstdint>

SD_NAMESPACE_BEGIN

/// Which samples of a batch keep a block's branch: 1 kept, 0 dropped, one entry per sample.
using Mask = PooledVector<std::uint8_t>;

namespace detail {

/// ceil(p 2^24): a 24-bit random integer below it drops. Exact for every p in [0, 1]: p = 0 never drops, p = 1 always.
SD_HOST_DEVICE constexpr std::uint32_t drop_threshold(double drop_rate) {
    const double scaled = drop_rate * 0x1p24;
    const auto below = static_cast<std::uint32_t>(scaled);
    return below < scaled ? below + 1 : below;
}

}  // namespace detail

/// Whether block `block` keeps its branch at `step`. `index` is the sample's index in the global batch for sample-wise
/// dropping; for block-wise dropping 0, or the rank if ranks differ.
///
///     keep iff (r >> 8) >= ceil(p 2^24),  r = the first Philox word of (seed, mask stream, step, block, index)
///
/// There is no state: the choice is the same on any thread, rank or device, and after a resume.
SD_HOST_DEVICE constexpr bool keeps_branch(double drop_rate, std::uint64_t seed, std::uint64_t step,
                                           std::uint32_t block, std::uint32_t index) {
    return (random_words(seed, Stream::mask, step, block, index)[0] >> 8) >= detail::drop_threshold(drop_rate);
}

SD_NAMESPACE_END
