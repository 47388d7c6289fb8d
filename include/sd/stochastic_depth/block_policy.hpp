// Block-wise stochastic depth: the branch is dropped for the whole batch.
#pragma once

#include "sd/stochastic_depth/policy.hpp"

SD_NAMESPACE_BEGIN

/// Drops the branch for the whole batch with probability p. A dropped block with an identity shortcut returns its
/// input. G. Huang et al., "Deep networks with stochastic depth", ECCV 2016.
struct BlockPolicy {
    static constexpr std::string_view method = "block";  ///< its name
    double drop_rate = 0.2;                              ///< p, 0 to 1
    Scaling scaling = Scaling::inference;                ///< where survival is made up for
    bool use_same_gpu_seed = true;                       ///< ranks drop together; otherwise each rank draws for itself
    SkippedGradient skipped_gradient = SkippedGradient::none;  ///< of parameters whose branch did not run

    /// All samples or none, by one draw.
    [[nodiscard]] Mask draw(const Context& context, std::uint32_t block, Index samples) const {
        const std::uint32_t index = use_same_gpu_seed ? 0 : context.rank();
        const bool keep = keeps_branch(drop_rate, context.seed(), context.step(), block, index);
        return Mask(static_cast<std::size_t>(samples), keep ? 1 : 0);
    }
    /// All samples, or the block is skipped.
    [[nodiscard]] BranchRun runs(const Mask& mask) const {
        return detail::any_kept(mask) ? BranchRun::all_samples : BranchRun::skipped_block;
    }
    /// 1, and 1 - p in evaluation; or 1 / (1 - p), and 1 in evaluation.
    [[nodiscard]] double scale(bool training, const Mask&) const {
        return detail::survival_scale(drop_rate, scaling, training);
    }
};

SD_NAMESPACE_END
