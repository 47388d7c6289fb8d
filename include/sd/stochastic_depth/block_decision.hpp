// Who keeps the branch of one residual block: its policy, its masks, its place in the network.
#pragma once

#include "sd/stochastic_depth/branch_plan.hpp"
#include "sd/stochastic_depth/mask_source.hpp"

#include <cstdint>
#include <optional>
#include <utility>

SD_NAMESPACE_BEGIN

/// Given in the place of a shortcut: the block has none, y = F(x), and nothing can be dropped. Such blocks stand between
/// residual ones where the shape changes, in EfficientNet, whose drop rates count them as places of the network.
struct NoShortcut {};

/// What StochasticResidual decides before it computes anything, and how that is changed.
template <class Policy, class Device>
class BlockDecision {
public:
    /// Which samples of the last training pass kept the branch.
    [[nodiscard]] const Mask& mask() const { return masks_.last(); }

    /// Uses this mask in training passes from now on, or draws masks again if there is none. The mask has one entry a
    /// sample, 0 or 1; for a block-wise policy all are equal. Throws std::invalid_argument otherwise, and for a mask of
    /// a block without a shortcut.
    void set_mask(std::optional<Mask> mask) {
        if (mask && !has_shortcut_) refuse("StochasticResidual", "mask", "one", "none of a block without a shortcut");
        masks_.give(policy_, std::move(mask));
    }

    /// Whether F is added to something. If not, the block drops nothing.
    [[nodiscard]] bool has_shortcut() const { return has_shortcut_; }

    /// How the block trains.
    [[nodiscard]] const Policy& policy() const { return policy_; }

    /// Changes how the block trains; parameters stay where they are. A mask that was given is forgotten.
    /// Throws std::invalid_argument, with nothing changed, if the policy's drop rate is not from 0 to 1, or if the block
    /// has no shortcut and the policy could drop something.
    void set_policy(Policy policy) {
        detail::expect_rate("StochasticResidual", "drop_rate", detail::drop_rate_of(policy));
        if (!has_shortcut_ && detail::is_stochastic(policy)) {
            refuse("StochasticResidual", "policy of a block without a shortcut", detail::method_of(policy),
                   "one that drops nothing");
        }
        policy_ = std::move(policy);
        masks_.give(policy_, std::nullopt);
    }

    /// The block's place among all blocks of its network, from 0: it decides which random numbers the block draws. The
    /// library's networks number their blocks when they are built, number_blocks() those of any other model.
    [[nodiscard]] std::uint32_t block_index() const { return block_index_; }
    /// Sets block_index(). Two blocks of one network must not share one.
    void set_block_index(std::uint32_t index) { block_index_ = index; }

    /// What F is multiplied by in evaluation, at the drop rate applied now: 1 - p or 1.
    [[nodiscard]] double evaluation_scale() const { return policy_.scale(false, {}); }

protected:
    /// Of a block that keeps every sample's branch until set_policy().
    explicit BlockDecision(bool has_shortcut) : has_shortcut_(has_shortcut) {}

    /// Who keeps the branch in a pass of so many samples, and what it computes for them: in evaluation, all.
    [[nodiscard]] detail::BranchPlan draw(const Context& context, Index samples) {
        if (!context.training()) {
            detail::BranchPlan plan;
            plan.scale = evaluation_scale();
            return plan;
        }
        const Mask& mask = masks_.next(policy_, context, block_index_, samples);
        // On a device, all samples are named even if all are kept, so that a step whose branches see all samples is the
        // same kernels whatever the masks, as a graph of it needs.
        const bool names_all =
            Device::replays_steps && detail::drop_rate_of(policy_) > 0 && detail::computes_dropped(policy_);
        return detail::branch_plan(policy_, mask, context, block_index_, names_all);
    }

private:
    Policy policy_;
    bool has_shortcut_ = true;
    std::uint32_t block_index_ = 0;
    detail::MaskSource masks_;
};

SD_NAMESPACE_END
