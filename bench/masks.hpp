// Lists of masks whose mean cost is the expected one, so that the time of a step does not depend on luck.
#pragma once

#include "sd/stochastic_depth/mask.hpp"

#include "sd/core/shape.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace bench {

using sd::Index;

/// What the lists are made for.
struct BlockCost {
    double drop_rate;  ///< p
    double cost;       ///< of the branch for one sample, in any unit
};

/// masks[step][block]
using MaskList = std::vector<std::vector<sd::Mask>>;

namespace detail {

/// How often each block keeps its branch in `draws` draws: draws (1 - p) rounded down or up, so that what earlier
/// blocks cost too much or too little is made up for.
inline std::vector<Index> kept_draws(const std::vector<BlockCost>& blocks, Index draws) {
    std::vector<Index> kept;
    double surplus = 0;
    for (const BlockCost& block : blocks) {
        const double expected = static_cast<double>(draws) * (1 - block.drop_rate);
        const double count =
            std::clamp(std::round(expected - surplus / block.cost), std::floor(expected), std::ceil(expected));
        surplus += block.cost * (count - expected);
        kept.push_back(static_cast<Index>(count));
    }
    return kept;
}

/// Whether every block's expected number of kept draws is a whole one.
inline bool comes_out_even(const std::vector<BlockCost>& blocks, Index draws) {
    return std::all_of(blocks.begin(), blocks.end(), [&](const BlockCost& block) {
        const double expected = static_cast<double>(draws) * (1 - block.drop_rate);
        return std::abs(expected - std::round(expected)) < 1e-9;
    });
}

/// Whether a position is one of the `chosen` of `count` that are chosen evenly.
inline bool is_chosen(Index position, Index chosen, Index count) {
    return (position + 1) * chosen / count != position * chosen / count;
}

}  // namespace detail

/// The cost of the branches in a step, as the mean over the list, over its expectation: sum of (1 - p) cost.
inline double relative_cost(const MaskList& masks, const std::vector<BlockCost>& blocks) {
    double cost = 0;
    double expected = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        for (const std::vector<sd::Mask>& step : masks) {
            const auto kept = static_cast<double>(std::count(step[i].begin(), step[i].end(), 1));
            cost += blocks[i].cost * kept / static_cast<double>(step[i].size() * masks.size());
        }
        expected += blocks[i].cost * (1 - blocks[i].drop_rate);
    }
    return cost / expected;
}

/// Masks for batches of `batch` samples, that drop single samples or, if `whole_batch`, all of them at once. Over the
/// list each block keeps its branch as often as it is expected to, as nearly as whole numbers allow, evenly spread over
/// steps and samples. The list is the shortest where that comes out even, else one of ten steps or a few more, with a
/// mean cost within 0.2 % of the expected one. Throws std::logic_error if forty steps do not suffice.
inline MaskList stratified_masks(const std::vector<BlockCost>& blocks, Index batch, bool whole_batch) {
    constexpr double tolerance = 0.002;
    for (Index steps = 1; steps <= 40; ++steps) {
        const Index draws_per_step = whole_batch ? 1 : batch;
        const Index draws = steps * draws_per_step;
        if (steps < 10 && !detail::comes_out_even(blocks, draws)) continue;
        const std::vector<Index> kept = detail::kept_draws(blocks, draws);
        MaskList masks(static_cast<std::size_t>(steps), std::vector<sd::Mask>(blocks.size()));
        for (Index step = 0; step < steps; ++step) {
            for (std::size_t i = 0; i < blocks.size(); ++i) {
                sd::Mask& mask = masks[static_cast<std::size_t>(step)][i];
                for (Index n = 0; n < batch; ++n) {
                    const Index draw = step * draws_per_step + (whole_batch ? 0 : n);
                    const Index shifted = (draw + 3 * static_cast<Index>(i)) % draws;
                    mask.push_back(detail::is_chosen(shifted, kept[i], draws) ? 1 : 0);
                }
            }
        }
        if (std::abs(relative_cost(masks, blocks) - 1) <= tolerance) return masks;
    }
    throw std::logic_error("stratified_masks: got no list of up to 40 steps with the expected mean cost");
}

}  // namespace bench
