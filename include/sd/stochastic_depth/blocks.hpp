// How the residual blocks of any model are found, by its visit(), and numbered.
#pragma once

#include "sd/stochastic_depth/any_block.hpp"

#include <cstdint>
#include <string>
#include <vector>

SD_NAMESPACE_BEGIN

/// Calls use(full name, block) for every StochasticResidual of a model, whatever its branch and policy, in the order of
/// the model's visits, which should be the forward order; a block inside a branch comes after the block around it. The
/// model needs visit(visitor) alone.
template <class Model, class Use>
void for_each_block(Model& model, Use&& use) {
    for_each_member(model, [&]<class Member>(const std::string& name, Member& member) {
        if constexpr (detail::is_residual_block<Member>) use(name, member);
    });
}

namespace detail {

/// Gives every block its place among all of them.
inline void number_blocks(const std::vector<NamedBlock>& blocks) {
    std::uint32_t place = 0;
    for (const NamedBlock& named : blocks) named.block->set_block_index(place++);
}

}  // namespace detail

/// Gives every block of a model its place among all of them as block_index(), so that no two draw the same masks, and
/// returns the model. For models that a user composes; the library's networks, surgery and Trainer do it themselves.
template <class Model>
Model& number_blocks(Model& model) {
    detail::number_blocks(detail::blocks_of(model));
    return model;
}

namespace detail {

/// Throws std::invalid_argument, naming both, if two stochastic blocks share a block_index().
inline void expect_own_numbers(const char* where, const std::vector<NamedBlock>& blocks) {
    std::vector<const NamedBlock*> seen;
    for (const NamedBlock& named : blocks) {
        if (!named.block->policy().is_stochastic) continue;
        for (const NamedBlock* other : seen) {
            if (other->block->block_index() != named.block->block_index()) continue;
            refuse(where, text("block_index of ", named.name),
                   text(named.block->block_index(), ", that of ", other->name),
                   "a number for each block; call number_blocks(model) once");
        }
        seen.push_back(&named);
    }
}

}  // namespace detail

SD_NAMESPACE_END
