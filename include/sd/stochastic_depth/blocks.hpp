// How the residual blocks of any model are found, by its visit(), and numbered.
#pragma once

#include "sd/nn/visit.hpp"
#include "sd/stochastic_depth/registry.hpp"
#include "sd/stochastic_depth/stochastic_residual.hpp"

#include <cstdint>
#include <map>
#include <string>

SD_NAMESPACE_BEGIN

namespace detail {

template <class X>
inline constexpr bool is_residual_block = false;
template <class... Arguments>
inline constexpr bool is_residual_block<StochasticResidual<Arguments...>> = true;

template <class X>
inline constexpr bool is_residual_block<const X> = is_residual_block<X>;

}  // namespace detail

/// Calls use(full name, block) for every StochasticResidual of a model, whatever its branch and policy, in the order of
/// the model's visits, which should be the forward order; a block inside a branch comes after the block around it. The
/// model needs visit(visitor) alone.
template <class Model, class Use>
void for_each_block(Model& model, Use&& use) {
    for_each_member(model, [&]<class Member>(const std::string& name, Member& member) {
        if constexpr (detail::is_residual_block<Member>) use(name, member);
    });
}

/// Gives every block of a model its place among all of them as block_index(), so that no two draw the same masks, and
/// returns the model. For models that a user composes; the library's networks, surgery and Trainer do it themselves.
template <class Model>
Model& number_blocks(Model& model) {
    std::uint32_t place = 0;
    for_each_block(model, [&](const std::string&, auto& block) { block.set_block_index(place++); });
    return model;
}

namespace detail {

/// Throws std::invalid_argument, naming both, if two stochastic blocks of the model share a block_index().
template <class Model>
void expect_own_numbers(const char* where, Model& model) {
    std::map<std::uint32_t, std::string> names;
    for_each_block(model, [&](const std::string& name, const auto& block) {
        if (!summary_of(block.policy()).is_stochastic) return;
        const auto [place, is_new] = names.emplace(block.block_index(), name);
        if (is_new) return;
        refuse(where, text("block_index of ", name), text(block.block_index(), ", that of ", place->second),
               "a number for each block; call number_blocks(model) once");
    });
}

}  // namespace detail

SD_NAMESPACE_END
