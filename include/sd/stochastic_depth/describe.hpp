// What stochastic depth does to a model, in numbers and words.
#pragma once

#include "sd/stochastic_depth/blocks.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iomanip>
#include <ostream>
#include <string>
#include <vector>

SD_NAMESPACE_BEGIN

/// What describe() tells of one block.
struct BlockDescription {
    std::string name;      ///< full name in the model, such as "layer1.0"
    std::string method;    ///< "plain", "block", "sample", or what a user's policy calls itself
    double drop_rate = 0;  ///< p
};

/// What describe() tells of a model. With p_i the drop rate of block i of L:
///
///     expected depth  sum over i of 1 - p_i: the mean number of branches that a sample passes in training
///     expected cost   of all branches against plain, in training: (sum over i of 1 - p_i) / L if what is dropped is
///                     not computed (method `block`; `sample` with compute `survivors`), 1 if it is (compute `all`).
///                     Branches count alike; in a ResNet they nearly are, since a halved image has twice the channels
struct Description {
    std::vector<BlockDescription> blocks;  ///< in forward order
    Index batch_size = 0;                  ///< samples of a training batch
    std::vector<std::string> warnings;     ///< in words

    /// The mean number of branches that a sample passes in training.
    [[nodiscard]] double expected_depth() const {
        double depth = 0;
        for (const BlockDescription& block : blocks) depth += 1 - block.drop_rate;
        return depth;
    }
    /// Against plain; `skips` says whether what is dropped is not computed.
    [[nodiscard]] double expected_cost(bool skips) const {
        return skips && !blocks.empty() ? expected_depth() / static_cast<double>(blocks.size()) : 1;
    }

    /// The table: a line a block, then depth, costs and warnings.
    friend std::ostream& operator<<(std::ostream& stream, const Description& description) {
        std::size_t width = 19;
        for (const BlockDescription& block : description.blocks) width = std::max(width, block.name.size());
        const int name_width = static_cast<int>(width) + 1;
        std::string table = text(std::left, std::setw(name_width), "block", std::setw(8), "method", std::right,
                                 std::setw(10), "drop rate", std::setw(16), "expected kept", '\n');
        for (const BlockDescription& block : description.blocks) {
            const double kept = (1 - block.drop_rate) * static_cast<double>(description.batch_size);
            table += text(std::left, std::setw(name_width), block.name, std::setw(8), block.method, std::right,
                          std::fixed, std::setprecision(3), std::setw(10), block.drop_rate, std::setw(8),
                          1 - block.drop_rate, std::setprecision(1), " = ", std::setw(5), kept, '\n');
        }
        table += text(std::fixed, std::setprecision(3), "expected depth ", description.expected_depth(), " of ",
                      description.blocks.size(), " branches\nexpected cost of the branches against plain: block ",
                      description.expected_cost(true), ", sample with compute all ", description.expected_cost(false),
                      ", sample with compute survivors ", description.expected_cost(true), '\n');
        for (const std::string& warning : description.warnings) table += "warning: " + warning + '\n';
        return stream << table;
    }
};

namespace detail {

/// Warnings that depend on the batch, for samples dropped one by one.
inline void warn_of_batch(Description& description) {
    const auto batch_size = static_cast<double>(description.batch_size);
    double all_keep = 1;  // the probability that every block keeps at least one sample
    for (const BlockDescription& block : description.blocks) {
        if (block.method != "sample") continue;
        all_keep *= 1 - std::pow(block.drop_rate, batch_size);
        const double kept = (1 - block.drop_rate) * batch_size;
        if (kept < 2) {
            description.warnings.push_back(text("block ", block.name, " keeps ", kept, " of ", description.batch_size,
                                                " samples on average, fewer than 2: its batch statistics mean little"));
        }
    }
    if (1 - all_keep > 0.01) {
        description.warnings.push_back(text("in ", 100 * (1 - all_keep),
                                            " % of the batches some block loses every sample; use larger batches or a "
                                            "smaller drop rate"));
    }
}

}  // namespace detail

/// Describes the stochastic depth of a model that trains with batches of `batch_size`: drop rate and expected kept
/// samples of every block, expected depth and cost, and warnings (fewer than 8 blocks; nothing dropped; fewer than 2
/// expected kept samples in a block; more than 1 % of the batches in which a block loses every sample).
/// Throws std::invalid_argument for a batch size below 1, or if two stochastic blocks share a number.
template <class Model>
[[nodiscard]] Description describe(Model& model, Index batch_size) {
    if (batch_size < 1) refuse("describe", "batch_size", batch_size, "1 or more");
    Description description;
    description.batch_size = batch_size;
    double largest = 0;
    const std::vector<detail::NamedBlock> blocks = detail::blocks_of(model);
    detail::expect_own_numbers("describe", blocks);
    for (const auto& [name, block] : blocks) {
        const PolicySummary policy = block->policy();
        description.blocks.push_back({name, std::string(policy.method), policy.drop_rate});
        largest = std::max(largest, policy.drop_rate);
    }
    if (largest == 0) description.warnings.emplace_back("no block is ever dropped");
    if (description.blocks.size() < 8) {
        description.warnings.push_back(text("the model has ", description.blocks.size(),
                                            " blocks to drop; stochastic depth is meant for networks of 8 and more"));
    }
    detail::warn_of_batch(description);
    return description;
}

SD_NAMESPACE_END
