// A model as algorithms see it, whatever its type.
#pragma once

#include "sd/stochastic_depth/blocks.hpp"
#include "sd/stochastic_depth/surgery.hpp"

#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// A residual block of the model.
struct BlockView {
    std::string name;                                  ///< full name in the model, such as "layer1.0"
    std::string layer_name;                            ///< its branch's name, which surgery goes by; may be empty
    bool has_shortcut;                                 ///< else nothing can be dropped
    bool has_identity_shortcut;                        ///< F is added to x itself
    const Mask* mask;                                  ///< which samples of the last training pass kept the branch
    std::function<PolicySummary()> policy;             ///< what is dropped, and when
    std::function<void(const AnyPolicy&)> set_policy;  ///< as StochasticResidual::set_policy, for what surgery can set
};

/// Looks at a model, which must outlive the view and stay where it is.
class ModelView {
public:
    /// Of any model with visit(visitor). Throws std::invalid_argument if two stochastic blocks share a number.
    template <class Model>
    explicit ModelView(Model& model) : ModelView(detail::blocks_of(model)) {}

    /// As the function of that name, on the model.
    void apply_stochastic_depth(const StochasticDepthOptions& options,
                                const std::vector<OptimizerView>& optimizers = {}) const {
        detail::apply_to_blocks(named_blocks_, options, optimizers);
    }

    /// All residual blocks, in forward order.
    [[nodiscard]] std::span<const BlockView> blocks() const { return blocks_; }

private:
    explicit ModelView(std::vector<detail::NamedBlock> blocks) : named_blocks_(std::move(blocks)) {
        detail::expect_own_numbers("ModelView", named_blocks_);
        for (const auto& [name, block] : named_blocks_) {
            blocks_.push_back({.name = name,
                               .layer_name = block->layer_name(),
                               .has_shortcut = block->has_shortcut(),
                               .has_identity_shortcut = block->has_identity_shortcut(),
                               .mask = &block->mask(),
                               .policy = [block = block] { return block->policy(); },
                               .set_policy = [block = block](const AnyPolicy& policy) { block->set_policy(policy); }});
        }
    }

    std::vector<detail::NamedBlock> named_blocks_;
    std::vector<BlockView> blocks_;
};

/// Looks at the parameters and buffers of a model, which must outlive the view and stay where it is.
template <class A, class Device = Cpu>
class ModelTensors {
public:
    /// Told a full name and the tensor, which it may change.
    using Visitor = std::function<void(const std::string&, Tensor<A, Device>&)>;

    /// Of any model with visit(visitor).
    template <class Model>
    explicit ModelTensors(Model& model)
        : visit_([&model](const Visitor& visitor) {
              for_each_state(
                  model, [&](const std::string& name, auto& parameter) { visitor(name, parameter->value); },
                  [&]<class Buffer>(const std::string& name, Buffer& buffer) {
                      if constexpr (std::is_same_v<Buffer, Tensor<A, Device>>) visitor(name, buffer);
                  });
          }) {}

    /// Calls the visitor for every parameter's value and every buffer of their type, in the order of the model's visits.
    void for_each(const Visitor& visitor) const { visit_(visitor); }

private:
    std::function<void(const Visitor&)> visit_;
};

SD_NAMESPACE_END
