// What the branch of a block computes in a pass, from the policy's answers and what other ranks do.
#pragma once

#include "sd/core/join.hpp"
#include "sd/nn/context.hpp"
#include "sd/stochastic_depth/policy.hpp"

#include <cstdint>

SD_NAMESPACE_BEGIN

namespace detail {

/// What the branch computes in a pass, and who joins what of it.
struct BranchPlan {
    bool runs = true;                        ///< F runs, on all samples, on some or on none
    bool kept_alone = false;                 ///< and is given the kept samples alone
    bool runs_elsewhere = false;             ///< dropped here, but not on every rank
    bool skips_block = false;                ///< y = x behind an identity shortcut
    PooledVector<Index> branch_sample = {};  ///< for each sample the branch's, -1 for none; empty: the same
    double scale = 1;                        ///< c
};

/// The samples that keep the branch, in order.
inline PooledVector<Index> kept_samples(const Mask& mask) {
    PooledVector<Index> kept;
    for (std::size_t n = 0; n < mask.size(); ++n) {
        if (mask[n] != 0) kept.push_back(static_cast<Index>(n));
    }
    return kept;
}

/// For each sample the branch's, -1 for one that drops it: the sample itself, or its place among the kept ones if the
/// branch is given those alone.
inline PooledVector<Index> branch_samples(const Mask& mask, bool kept_alone) {
    PooledVector<Index> samples;
    Index kept = 0;
    for (std::size_t n = 0; n < mask.size(); ++n) {
        samples.push_back(mask[n] == 0 ? -1 : kept_alone ? kept : static_cast<Index>(n));
        kept += mask[n];
    }
    return samples;
}

inline bool runs_branch(BranchRun run) { return run == BranchRun::all_samples || run == BranchRun::kept_samples; }

/// Whether some rank of a joint pass runs the branch: its mask is drawn as it draws it.
template <DropPolicy Policy>
bool runs_on_any_rank(const Policy& policy, const Context& context, std::uint32_t block) {
    return context.on_any_rank([&](const Context& of_rank, Index samples) {
        return runs_branch(policy.runs(policy.draw(of_rank, block, samples)));
    });
}

/// The plan of a training pass with this mask. names_all: name every sample's even if all are kept.
template <DropPolicy Policy>
BranchPlan branch_plan(const Policy& policy, const Mask& mask, const Context& context, std::uint32_t block,
                       bool names_all) {
    const BranchRun run = policy.runs(mask);
    BranchPlan plan{.runs = runs_branch(run),
                    .kept_alone = run == BranchRun::kept_samples,
                    .skips_block = run == BranchRun::skipped_block,
                    .scale = policy.scale(true, mask)};
    plan.runs_elsewhere = !plan.runs && runs_on_any_rank(policy, context, block);
    if (plan.runs_elsewhere && context.batch_norm_communicator() != nullptr) {
        // Batch norms of the ranks that run the branch wait for this one's: it runs too, on none of its samples.
        plan.runs = plan.kept_alone = true;
    }
    if (!all_kept(mask) || (names_all && run == BranchRun::all_samples)) {
        plan.branch_sample = branch_samples(mask, plan.kept_alone);
    }
    return plan;
}

}  // namespace detail

SD_NAMESPACE_END
