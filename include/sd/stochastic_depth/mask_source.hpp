// Where a block's masks come from: its policy, or whoever gives one.
#pragma once

#include "sd/nn/context.hpp"
#include "sd/stochastic_depth/policy.hpp"

#include <cstdint>
#include <optional>
#include <utility>

SD_NAMESPACE_BEGIN

namespace detail {

/// The masks of one block.
class MaskSource {
public:
    /// The mask of the last training pass.
    [[nodiscard]] const Mask& last() const { return last_; }

    /// The mask of a training pass of a batch of `samples`: the given one, or one that the policy draws for the block of
    /// this number, which no other block of the pass may have.
    template <DropPolicy Policy>
    const Mask& next(const Policy& policy, const Context& context, std::uint32_t block, Index samples) {
        if (context.joint() != nullptr) expect_part(*context.joint(), samples);
        if (!given_) {
            if (is_stochastic(policy)) context.expect_own_number(block, this);
            last_ = policy.draw(context, block, samples);
        } else if (static_cast<Index>(given_->size()) == samples) {
            last_ = *given_;
        } else {
            refuse("StochasticResidual", "entries of the given mask", given_->size(), text(samples, ", one a sample"));
        }
        return last_;
    }

    /// Takes this mask from now on, or draws again if there is none. Refuses one that the policy could not draw.
    template <DropPolicy Policy>
    void give(const Policy& policy, std::optional<Mask> mask) {
        for (std::size_t n = 0; mask && n < mask->size(); ++n) {
            const std::uint8_t kept = (*mask)[n];
            if (kept > 1) refuse("StochasticResidual", "mask entry", static_cast<int>(kept), "0 or 1");
            if (kept != mask->front() && drops_whole_blocks(policy)) {
                refuse("StochasticResidual", "mask of a block-wise policy", "kept and dropped samples", "all equal");
            }
        }
        given_ = std::move(mask);
    }

private:
    // Ranks that would draw other masks for each other than they use would wait for each other forever.
    void expect_part(const JointPass& joint, Index samples) const {
        const Index expected = joint.own_part().count;
        if (samples != expected) refuse("StochasticResidual", "samples of this rank", samples, expected);
        if (given_ && joint.parts.size() > 1) {
            refuse("StochasticResidual", "mask of a pass that several ranks make", "a given one",
                   "one that every rank can draw");
        }
    }

    Mask last_;
    std::optional<Mask> given_;
};

}  // namespace detail

SD_NAMESPACE_END
