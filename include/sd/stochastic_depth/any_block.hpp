// The residual blocks of any model, without their types: what looks at them is compiled once, not for every network.
#pragma once

#include "sd/nn/visit.hpp"
#include "sd/stochastic_depth/registry.hpp"
#include "sd/stochastic_depth/stochastic_residual.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

template <class X>
inline constexpr bool is_residual_block = false;
template <class... Arguments>
inline constexpr bool is_residual_block<StochasticResidual<Arguments...>> = true;

template <class X>
inline constexpr bool is_residual_block<const X> = is_residual_block<X>;

/// A parameter as surgery sees it.
struct BlockParameter {
    std::string name;  ///< in the block
    const void* address;
    bool requires_grad;
};

/// A StochasticResidual of any type, which must outlive this and stay where it is.
class AnyBlock {
public:
    AnyBlock() = default;
    AnyBlock(const AnyBlock&) = delete;
    AnyBlock& operator=(const AnyBlock&) = delete;
    virtual ~AnyBlock() = default;

    [[nodiscard]] virtual std::string layer_name() const = 0;  ///< branch_name() of the branch
    [[nodiscard]] virtual bool has_shortcut() const = 0;
    [[nodiscard]] virtual bool has_identity_shortcut() const = 0;
    [[nodiscard]] virtual const Mask& mask() const = 0;
    virtual void set_mask(std::optional<Mask> mask) = 0;
    [[nodiscard]] virtual std::uint32_t block_index() const = 0;
    virtual void set_block_index(std::uint32_t index) = 0;
    [[nodiscard]] virtual PolicySummary policy() const = 0;
    [[nodiscard]] virtual bool takes(const AnyPolicy& policy) const = 0;  ///< whether the policy fits the block's type
    virtual void set_policy(const AnyPolicy& policy) = 0;                 ///< of a policy that it takes
    [[nodiscard]] virtual std::vector<BlockParameter> parameters() const = 0;
};

template <class Block>
class HeldBlock final : public AnyBlock {
public:
    explicit HeldBlock(Block& block) : block_(block) {}

    [[nodiscard]] std::string layer_name() const override { return branch_name(block_.branch()); }
    [[nodiscard]] bool has_shortcut() const override { return block_.has_shortcut(); }
    [[nodiscard]] bool has_identity_shortcut() const override { return block_.has_identity_shortcut(); }
    [[nodiscard]] const Mask& mask() const override { return block_.mask(); }
    void set_mask(std::optional<Mask> mask) override { block_.set_mask(std::move(mask)); }
    [[nodiscard]] std::uint32_t block_index() const override { return block_.block_index(); }
    void set_block_index(std::uint32_t index) override { block_.set_block_index(index); }
    [[nodiscard]] PolicySummary policy() const override { return summary_of(block_.policy()); }
    [[nodiscard]] bool takes(const AnyPolicy& policy) const override { return own_type(policy).has_value(); }
    void set_policy(const AnyPolicy& policy) override { block_.set_policy(own_type(policy).value()); }
    [[nodiscard]] std::vector<BlockParameter> parameters() const override {
        std::vector<BlockParameter> all;
        for_each_parameter(block_, [&](const std::string& name, const auto& parameter) {
            all.push_back({name, parameter.get(), parameter->requires_grad});
        });
        return all;
    }

private:
    using Policy = typename Block::Policy;

    /// The policy as one of the type that the block has, or nothing if it is of another.
    static std::optional<Policy> own_type(const AnyPolicy& policy) {
        if constexpr (std::is_same_v<Policy, AnyPolicy>) {
            return policy;
        } else {
            const Policy* const same = policy.get_if<Policy>();
            return same == nullptr ? std::nullopt : std::optional(*same);
        }
    }

    Block& block_;
};

/// A block and its full name in the model.
struct NamedBlock {
    std::string name;
    std::shared_ptr<AnyBlock> block;
};

/// Collects the blocks that a walk finds.
struct BlockCollector {
    std::vector<NamedBlock> blocks;

    /// For every member that a walk finds.
    template <class X>
    void operator()(const std::string& name, X& x) {
        if constexpr (is_residual_block<X>) {
            using Found = std::remove_const_t<X>;
            // Of a const model nobody changes a block.
            blocks.push_back({name, std::make_shared<HeldBlock<Found>>(const_cast<Found&>(x))});
        }
    }
};

/// All blocks of a model, in the order of for_each_block(); of a const one to be read only.
template <class Model>
[[nodiscard]] std::vector<NamedBlock> blocks_of(Model& model) {
    BlockCollector collector;
    for_each_member(model, collector);
    return std::move(collector.blocks);
}

}  // namespace detail

SD_NAMESPACE_END
