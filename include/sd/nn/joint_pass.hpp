// A pass that several ranks make together, each on its part of one batch.
#pragma once

#include "sd/core/batch_part.hpp"
#include "sd/core/communicator.hpp"

#include <vector>

SD_NAMESPACE_BEGIN

/// Who makes a training pass together. From the parts any rank can tell the masks of every other one, without a
/// message.
struct JointPass {
    std::vector<BatchPart> parts;  ///< of the global batch, one a rank
    Index rank = 0;                ///< of this process
    /// Batch norm's statistics are those of all ranks, merged over this communicator; null: each rank's own.
    Communicator* batch_norm = nullptr;

    /// The part of this process.
    [[nodiscard]] const BatchPart& own_part() const { return parts.at(static_cast<std::size_t>(rank)); }
};

/// The pass of all ranks of a communicator on a batch of `samples`, which part_of_rank cuts; each rank's part goes
/// through the model in `microbatches` pieces as equal as can be, of which this pass takes number `microbatch`.
[[nodiscard]] inline JointPass joint_pass(Index samples, Communicator& communicator, bool synchronised_batch_norm,
                                          Index microbatch = 0, Index microbatches = 1) {
    JointPass pass{{}, communicator.rank(), synchronised_batch_norm ? &communicator : nullptr};
    for (Index rank = 0; rank < communicator.size(); ++rank) {
        const BatchPart part = part_of_rank(samples, rank, communicator.size());
        const Index first = microbatch * part.count / microbatches;
        const Index last = (microbatch + 1) * part.count / microbatches;
        pass.parts.push_back({part.first + first, last - first});
    }
    return pass;
}

SD_NAMESPACE_END
