// What of a training batch one rank holds, and the score of what all of them hold.
#pragma once

#include "sd/core/batch_part.hpp"
#include "sd/core/communicator.hpp"
#include "sd/core/error.hpp"
#include "sd/core/storage.hpp"
#include "sd/cpu/residual_join.hpp"
#include "sd/train/data_parallel.hpp"
#include "sd/train/score.hpp"
#include "sd/train/state.hpp"
#include "sd/core/timestamp.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

SD_NAMESPACE_BEGIN

namespace detail {

/// How many samples the batch after the finished ones has, over all ranks.
[[nodiscard]] inline Index samples_of_batch(const Timestamp& finished, const RunLength& run) {
    return static_cast<Index>(
        std::min(run.batch_size, run.samples_per_epoch - finished.batch_in_epoch * run.batch_size));
}

/// Refuses a batch that is not this rank's part of one of so many samples; returns the size of the largest part.
template <class T, class Device>
Index expect_part_of_rank(const State<T, Device>& state, Index samples, const Communicator& communicator) {
    const Index expected = part_of_rank(samples, communicator.rank(), communicator.size()).count;
    if (static_cast<Index>(state.batch.labels.size()) != expected) {
        refuse("Trainer", text("samples of batch ", state.timestamp.batch_in_epoch), state.batch.labels.size(),
               text(expected, ", rank ", communicator.rank(), "'s part of ", samples));
    }
    return part_of_rank(samples, 0, communicator.size()).count;
}

/// The samples that `part` of a batch of `samples` names, out of this rank's.
template <class T, class Device>
[[nodiscard]] LabelledImages<T, Device> gather_part(const LabelledImages<T, Device>& batch, const BatchPart& part,
                                                    Index samples, const Communicator& communicator) {
    const Index first = part.first - part_of_rank(samples, communicator.rank(), communicator.size()).first;
    PooledVector<Index> own;
    for (Index n = first; n < first + part.count; ++n) own.push_back(n);
    return {gather_samples(batch.images, own),
            {batch.labels.begin() + first, batch.labels.begin() + first + part.count},
            batch.targets ? gather_samples(batch.targets, own) : Tensor<T, Device>()};
}

/// The score of all ranks.
[[nodiscard]] inline Score over_ranks(const Score& own, Communicator& communicator) {
    if (communicator.size() == 1) return own;
    std::array sums{own.loss_sum, static_cast<double>(own.correct), static_cast<double>(own.correct_in_top5),
                    static_cast<double>(own.samples)};
    sum_over_ranks(sums, communicator);
    return {sums[0], static_cast<std::uint64_t>(sums[1]), static_cast<std::uint64_t>(sums[2]),
            static_cast<std::uint64_t>(sums[3])};
}

}  // namespace detail

SD_NAMESPACE_END
