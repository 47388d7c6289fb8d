// A pass that several ranks make together, each on its part of one batch.
#pragma once

#include "sd/core/batch_part.hpp"
#include "sd/core/communicator.hpp"

#include <vector>

SD_NAMESPACE_BEGIN

/// Who makes a training pass together. From the parts any rank can tell the masks of every other one, without a message.
struct JointPass {
    std::vector<BatchPart> parts;  ///< of the global batch, one a rank
    Index rank = 0;                ///< of this process

    /// Batch norm's statistics are those of all ranks, merged over this communicator; null: each rank's own.
    Communicator* batch_norm = nullptr;
};

/// The pass of all ranks of a communicator on a batch of `samples`, cut by part_of_rank.
[[nodiscard]] inline JointPass joint_pass(Index samples, Communicator& communicator, bool synchronised_batch_norm) {
    JointPass pass{{}, communicator.rank(), synchronised_batch_norm ? &communicator : nullptr};
    for (Index rank = 0; rank < communicator.size(); ++rank) {
        pass.parts.push_back(part_of_rank(samples, rank, communicator.size()));
    }
    return pass;
}

SD_NAMESPACE_END
