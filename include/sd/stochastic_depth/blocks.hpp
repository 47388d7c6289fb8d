// How surgery finds the residual blocks of any model: by its visit().
#pragma once

#include "sd/nn/visit.hpp"
#include "sd/stochastic_depth/registry.hpp"
#include "sd/stochastic_depth/stochastic_residual.hpp"

#include <string>
#include <string_view>
#include <utility>

SD_NAMESPACE_BEGIN

namespace detail {

template <class X>
inline constexpr bool is_switchable_block = false;
template <class Branch, class Activation>
inline constexpr bool is_switchable_block<StochasticResidual<Branch, AnyPolicy, Activation>> = true;

/// A visitor that goes through layers and calls use(full name, block) for each block.
template <class Use>
class BlockWalk {
public:
    BlockWalk(std::string prefix, Use& use) : prefix_(std::move(prefix)), use_(use) {}

    template <class X>
    void operator()(std::string_view name, X& x) {
        if constexpr (is_parameter<X> || is_buffer<X>) {
            return;
        } else {
            const std::string full = prefix_.empty() ? std::string(name) : text(prefix_, '.', name);
            if constexpr (is_switchable_block<X>) {
                use_(full, x);
            } else {
                x.visit(BlockWalk(full, use_));
            }
        }
    }

private:
    std::string prefix_;
    Use& use_;
};

}  // namespace detail

/// Calls use(full name, block) for every StochasticResidual<Branch, AnyPolicy> of a model, in the order of its visits,
/// which for surgery must be the forward order. The model needs visit(visitor) alone; blocks may be of several types.
template <class Model, class Use>
void for_each_block(Model& model, Use&& use) {
    model.visit(detail::BlockWalk<Use>("", use));
}

SD_NAMESPACE_END
