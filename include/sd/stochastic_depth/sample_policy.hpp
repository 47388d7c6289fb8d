// Sample-wise stochastic depth: the branch is dropped for single samples.
#pragma once

#include "sd/stochastic_depth/policy.hpp"

SD_NAMESPACE_BEGIN

/// Drops the branch for each sample with probability p.
/// MosaicML Composer's sample-wise stochastic depth; "drop path" and "row" mode elsewhere.
struct SamplePolicy {
    static constexpr std::string_view method = "sample";       ///< its name
    double drop_rate = 0.2;                                    ///< p, 0 to 1
    Compute compute = Compute::all;                            ///< whether dropped samples are computed
    Scaling scaling = Scaling::inference;                      ///< where survival is made up for
    SkippedGradient skipped_gradient = SkippedGradient::none;  ///< of parameters whose branch did not run

    /// A draw for each sample, by its index in the global batch.
    [[nodiscard]] Mask draw(const Context& context, std::uint32_t block, Index samples) const {
        Mask mask(static_cast<std::size_t>(samples));
        for (std::size_t n = 0; n < mask.size(); ++n) {
            const auto index = static_cast<std::uint32_t>(context.sample_offset() + n);
            mask[n] = keeps_branch(drop_rate, context.seed(), context.step(), block, index) ? 1 : 0;
        }
        return mask;
    }
    /// All samples, or with `survivors` those that are kept.
    [[nodiscard]] BranchRun runs(const Mask& mask) const {
        if (compute == Compute::all) return BranchRun::all_samples;
        return detail::any_kept(mask) ? BranchRun::kept_samples : BranchRun::nothing;
    }
    /// 1, and 1 - p in evaluation; or 1 / (1 - p), and 1 in evaluation.
    [[nodiscard]] double scale(bool training, const Mask&) const {
        return detail::survival_scale(drop_rate, scaling, training);
    }
};

SD_NAMESPACE_END
