// Which samples of a batch each rank holds.
#pragma once

#include "sd/core/shape.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

/// Samples first to first + count - 1 of a batch.
struct BatchPart {
    Index first = 0;  ///< its first sample in the batch
    Index count = 0;  ///< its samples
};

/// The part of one rank in a batch of `samples`: the ranks hold contiguous parts in rank order, the first
/// samples % ranks of them one sample more than the others. With fewer samples than ranks, the last ranks hold none.
/// Throws std::invalid_argument for fewer than 0 samples or a rank outside 0 to ranks - 1.
[[nodiscard]] inline BatchPart part_of_rank(Index samples, Index rank, Index ranks) {
    if (samples < 0) refuse("part_of_rank", "samples", samples, "0 or more");
    if (ranks < 1) refuse("part_of_rank", "ranks", ranks, "1 or more");
    if (rank < 0 || rank >= ranks) refuse("part_of_rank", "rank", rank, text("0 to ", ranks - 1));
    const Index each = samples / ranks;
    const Index larger = samples % ranks;
    return {rank * each + std::min(rank, larger), each + (rank < larger ? 1 : 0)};
}

SD_NAMESPACE_END
