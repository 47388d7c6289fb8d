// apply_stochastic_depth: makes the blocks of a network stochastic in place.
#pragma once

#include "sd/core/warning.hpp"
#include "sd/stochastic_depth/options.hpp"
#include "sd/stochastic_depth/policy.hpp"
#include "sd/stochastic_depth/schedule.hpp"

#include <string_view>

SD_NAMESPACE_BEGIN

/// The policy of a block whose drop rate is `drop_rate`.
[[nodiscard]] inline AnyPolicy make_policy(const StochasticDepthOptions& options, double drop_rate) {
    if (options.stochastic_method == StochasticMethod::block) {
        return BlockPolicy{.drop_rate = drop_rate,
                           .scaling = options.scaling,
                           .use_same_gpu_seed = options.use_same_gpu_seed,
                           .skipped_gradient = options.skipped_gradient};
    }
    return SamplePolicy{.drop_rate = drop_rate,
                        .compute = options.compute,
                        .scaling = options.scaling,
                        .skipped_gradient = options.skipped_gradient};
}

/// Refuses options outside their ranges, naming setting, value and what is allowed, before anything is changed.
inline void validate(const StochasticDepthOptions& options) {
    expect_rate("apply_stochastic_depth", "drop_rate", options.drop_rate);
    // to_string refuses values outside the enumerations
    (void)to_string(options.stochastic_method);
    (void)to_string(options.drop_distribution);
    (void)to_string(options.compute);
    (void)to_string(options.scaling);
    (void)to_string(options.skipped_gradient);
}

/// Makes every block of the model whose layer name is options.target_layer_name stochastic, in forward order and in
/// place: parameters keep their addresses and names, so optimizers and checkpoints stay valid. Applied again it changes
/// the settings and nests nothing. Without a match it warns and changes nothing. The model has blocks() of type
/// StochasticResidual<Branch, AnyPolicy>, and Branch::layer_name.
/// Throws std::invalid_argument for options outside their ranges or an unknown layer name. Returns the model.
/// Origin: MosaicML Composer, composer/algorithms/stochastic_depth.
template <class Model>
Model& apply_stochastic_depth(Model& model, const StochasticDepthOptions& options = {}) {
    using Branch = typename Model::Branch;
    validate(options);
    const std::string_view target = options.target_layer_name;
    if (target != Branch::layer_name) {
        if (target != "ResNetBottleneck" && target != "ResNetBasicBlock") {
            refuse("apply_stochastic_depth", "target_layer_name", text('"', target, '"'),
                   "ResNetBottleneck or ResNetBasicBlock");
        }
        warn(text("apply_stochastic_depth: no block of the model is a ", target, "; nothing was changed"));
        return model;
    }
    if (options.drop_rate == 0) warn("apply_stochastic_depth: drop_rate = 0 drops nothing");
    if (options.stochastic_method == StochasticMethod::sample && !options.use_same_gpu_seed) {
        warn("apply_stochastic_depth: use_same_gpu_seed = false has no effect on the sample method");
    }
    auto& blocks = model.blocks();
    const auto count = static_cast<Index>(blocks.size());
    for (Index i = 0; i < count; ++i) {
        auto& block = blocks[static_cast<std::size_t>(i)];
        block.set_block_index(static_cast<std::uint32_t>(i));
        block.set_policy(
            make_policy(options, drop_rate_of_block(options.drop_distribution, options.drop_rate, i, count)));
    }
    return model;
}

SD_NAMESPACE_END
