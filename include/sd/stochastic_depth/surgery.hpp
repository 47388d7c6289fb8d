// apply_stochastic_depth: makes the blocks of a model stochastic in place.
#pragma once

#include "sd/core/warning.hpp"
#include "sd/stochastic_depth/blocks.hpp"
#include "sd/stochastic_depth/options.hpp"
#include "sd/stochastic_depth/policy_registry.hpp"
#include "sd/stochastic_depth/schedule.hpp"

#include <algorithm>
#include <concepts>
#include <functional>
#include <string>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// Refuses options outside their ranges, naming setting, value and what is allowed, before anything is changed.
inline void validate(const StochasticDepthOptions& options) {
    expect_rate("apply_stochastic_depth", "drop_rate", options.drop_rate);
    // to_string refuses values outside the enumerations
    (void)to_string(options.stochastic_method);
    (void)to_string(options.drop_distribution);
    (void)to_string(options.compute);
    (void)to_string(options.scaling);
    (void)to_string(options.skipped_gradient);
    if (!options.policy.empty()) expect_policy("apply_stochastic_depth", options.policy);
}

}  // namespace detail

/// What surgery asks an optimizer: does it train the parameter at this address? Made from anything with
/// holds(const void* parameter).
class OptimizerView {
public:
    /// Looks at the optimizer, which must outlive the view.
    template <class Optimizer>
    requires requires(const Optimizer& optimizer, const void* parameter) {
        { optimizer.holds(parameter) } -> std::convertible_to<bool>;
    }
    OptimizerView(const Optimizer& optimizer)  // NOLINT(google-explicit-constructor)
        : holds_([&optimizer](const void* parameter) { return optimizer.holds(parameter); }) {}

    /// Whether the optimizer trains the parameter at this address.
    [[nodiscard]] bool holds(const void* parameter) const { return holds_(parameter); }

private:
    std::function<bool(const void*)> holds_;
};

namespace detail {

/// Refuses a policy that a block of a fixed policy type cannot take.
inline void expect_assignable(const NamedBlock& named, const AnyPolicy& policy) {
    if (named.block->takes(policy)) return;
    refuse("apply_stochastic_depth", text("method of block ", named.name), text('"', policy.method(), '"'),
           text('"', named.block->policy().method, "\", its type's; AnyPolicy takes every method"));
}

/// Refuses a parameter of a block that is not frozen and that none of the optimizers trains.
inline void expect_held(const NamedBlock& named, const std::vector<OptimizerView>& optimizers) {
    if (optimizers.empty()) return;
    for (const BlockParameter& parameter : named.block->parameters()) {
        const bool held = !parameter.requires_grad ||
                          std::any_of(optimizers.begin(), optimizers.end(),
                                      [&](const OptimizerView& one) { return one.holds(parameter.address); });
        if (!held) {
            refuse("apply_stochastic_depth", text("parameter ", named.name, '.', parameter.name),
                   "in none of the optimizers", "every parameter of the blocks in one of them, or frozen");
        }
    }
}

inline void warn_of(const StochasticDepthOptions& options, Index blocks) {
    if (options.drop_rate == 0) warn("apply_stochastic_depth: drop_rate = 0 drops nothing");
    if (options.policy.empty() && options.stochastic_method == StochasticMethod::sample && !options.use_same_gpu_seed) {
        warn("apply_stochastic_depth: use_same_gpu_seed = false has no effect on the sample method");
    }
    if (blocks < 8) {
        warn(text("apply_stochastic_depth: the model has ", blocks,
                  " blocks to drop; stochastic depth is meant for networks of 8 and more"));
    }
}

/// apply_stochastic_depth() on all blocks of a model.
inline void apply_to_blocks(const std::vector<NamedBlock>& blocks, const StochasticDepthOptions& options,
                            const std::vector<OptimizerView>& optimizers) {
    validate(options);
    const std::string& target = options.target_layer_name;
    std::vector<NamedBlock> matches;
    for (const NamedBlock& named : blocks) {
        if (target.empty() || named.block->layer_name() == target) matches.push_back(named);
    }
    if (matches.empty()) {
        if (target.empty()) {
            warn("apply_stochastic_depth: the model has no residual block; nothing was changed");
            return;
        }
        if (!is_branch_name(target)) {
            refuse("apply_stochastic_depth", "target_layer_name", text('"', target, '"'),
                   text("one of ", branch_names(), ", or the name of a block of the model"));
        }
        warn(text("apply_stochastic_depth: no block of the model is a ", target, "; nothing was changed"));
        return;
    }
    for (const NamedBlock& named : matches) {
        expect_assignable(named, make_policy(options, options.drop_rate));
        expect_held(named, optimizers);
    }
    const auto count = static_cast<Index>(matches.size());
    warn_of(options, count);
    number_blocks(blocks);
    Index i = 0;
    for (const auto& [name, block] : matches) {
        const double rate = drop_rate_of_block(options, block->has_identity_shortcut(), i++, count);
        if (block->has_shortcut()) block->set_policy(make_policy(options, rate));
    }
}

}  // namespace detail

/// Makes every block of the model whose branch has the name options.target_layer_name stochastic, or every block if that
/// is empty, in forward order and in place: parameters keep their addresses and names, so optimizers and checkpoints stay
/// valid. Drop rates grow over the matched blocks alone. A block without a shortcut counts among them and stays as it is;
/// one whose shortcut is not the identity has the rate 0 unless options.drop_at_projections. Applied again it changes the
/// settings and nests nothing; masks that were given are forgotten. Without a match it warns and changes nothing.
///
/// The model has visit(visitor), and blocks of type StochasticResidual; a branch's name is its layer_name, or the one
/// given to register_branch. If optimizers are given, each parameter of the blocks must be held by one of them or be
/// frozen. All blocks of the model are numbered, see number_blocks().
///
/// Throws std::invalid_argument, with nothing changed, for options outside their ranges, an unknown layer name, a block
/// whose policy is of another type than the method's and not AnyPolicy, or a parameter that no optimizer holds. Returns
/// the model.
/// Origin: MosaicML Composer, composer/algorithms/stochastic_depth.
template <class Model>
Model& apply_stochastic_depth(Model& model, const StochasticDepthOptions& options = {},
                              const std::vector<OptimizerView>& optimizers = {}) {
    detail::apply_to_blocks(detail::blocks_of(model), options, optimizers);
    return model;
}

SD_NAMESPACE_END
