// Drop rates by depth.
#pragma once

#include "sd/core/shape.hpp"
#include "sd/stochastic_depth/options.hpp"

SD_NAMESPACE_BEGIN

/// The drop rate of block i of L, 0 <= i < L, at full rate r:
///
///     uniform       r
///     linear        r i / (L - 1), or r if L = 1
///     linear_huang  r (i + 1) / L
///     linear_efficientnet  r i / L
///
/// G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, "Deep networks with stochastic depth", ECCV 2016, section 3;
/// `linear` is MosaicML Composer's, `linear_efficientnet` that of EfficientNet's authors and of torchvision, whose bits it
/// gives. Throws std::invalid_argument for a rate outside [0, 1] or a block outside the
/// network.
[[nodiscard]] inline double drop_rate_of_block(DropDistribution distribution, double drop_rate, Index block,
                                               Index blocks) {
    detail::expect_rate("drop_rate_of_block", "drop_rate", drop_rate);
    if (block < 0 || block >= blocks) refuse("drop_rate_of_block", "block", block, text("0 to ", blocks - 1));
    const auto i = static_cast<double>(block);
    const auto count = static_cast<double>(blocks);
    switch (distribution) {
        case DropDistribution::uniform:
            return drop_rate;
        case DropDistribution::linear:
            return blocks == 1 ? drop_rate : drop_rate * i / (count - 1);
        case DropDistribution::linear_huang:
            return drop_rate * (i + 1) / count;
        case DropDistribution::linear_efficientnet:
            return drop_rate * i / count;
    }
    refuse("drop_rate_of_block", "drop_distribution", static_cast<int>(distribution),
           detail::allowed_names<DropDistribution>());
}

/// The same under these options, for a block whose shortcut is the identity or another one.
[[nodiscard]] inline double drop_rate_of_block(const StochasticDepthOptions& options, bool is_identity, Index block,
                                               Index blocks) {
    const double rate = drop_rate_of_block(options.drop_distribution, options.drop_rate, block, blocks);
    return is_identity || options.drop_at_projections ? rate : 0;
}

SD_NAMESPACE_END
