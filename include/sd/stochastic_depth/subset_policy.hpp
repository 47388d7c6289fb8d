// A fixed number of samples keeps the branch.
#pragma once

#include "sd/stochastic_depth/policy.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

SD_NAMESPACE_BEGIN

/// Exactly k = max(floor(b (1 - p)), 1) of the b samples of a batch keep the branch: those with the k smallest random
/// words, the first of two equal ones. The branch computes these alone, and is multiplied by b / k in training and by 1
/// in evaluation. A step so costs the same whatever is drawn.
///
/// The batch is that of the forward pass. Ranks and microbatches each choose among their own samples, so these masks,
/// unlike those of the other policies, depend on how a batch is split.
/// M. Oquab et al., "DINOv2", 2023: drop_add_residual_stochastic_depth of their code.
struct SubsetPolicy {
    static constexpr std::string_view method = "subset";  ///< its name
    double drop_rate = 0.2;                               ///< p, 0 to 1

    /// k of b samples.
    [[nodiscard]] Index kept_of(Index samples) const {
        const auto kept = static_cast<Index>(std::floor(static_cast<double>(samples) * (1 - drop_rate)));
        return std::min(std::max<Index>(kept, 1), samples);
    }
    /// The k samples with the smallest words, by their indices in the global batch.
    [[nodiscard]] Mask draw(const Context& context, std::uint32_t block, Index samples) const {
        PooledVector<std::uint32_t> words(static_cast<std::size_t>(samples));
        for (std::size_t n = 0; n < words.size(); ++n) {
            const auto index = static_cast<std::uint32_t>(context.sample_offset() + n);
            words[n] = random_words(context.seed(), Stream::mask, context.step(), block, index)[0];
        }
        PooledVector<std::size_t> order(words.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::sort(order.begin(), order.end(),
                  [&](std::size_t a, std::size_t b) { return words[a] != words[b] ? words[a] < words[b] : a < b; });
        Mask mask(words.size(), 0);
        for (Index i = 0; i < kept_of(samples); ++i) mask[order[static_cast<std::size_t>(i)]] = 1;
        return mask;
    }
    /// The kept samples.
    [[nodiscard]] BranchRun runs(const Mask& mask) const {
        return detail::any_kept(mask) ? BranchRun::kept_samples : BranchRun::nothing;
    }
    /// b / k in training, 1 in evaluation.
    [[nodiscard]] double scale(bool training, const Mask& mask) const {
        const auto kept = std::count(mask.begin(), mask.end(), 1);
        return training && kept > 0 ? static_cast<double>(mask.size()) / static_cast<double>(kept) : 1;
    }
};

SD_NAMESPACE_END
