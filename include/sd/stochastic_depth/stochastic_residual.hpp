// The residual block with stochastic depth: y = act(S(x) + mask F(x)).
//
// Training, with m_n = 1 where sample n keeps the branch (drawn by the policy), c = the policy's scale:
//
//     sample            y_n = act(S(x)_n + m_n c F(x)_n), a selection: a dropped sample's F is not looked at
//     block, kept       y = act(S(x) + c F(x))
//     block, dropped    y = x itself for an identity shortcut, act(S(x)) for any other; F is not computed
//
// Evaluation:           y = act(S(x) + c F(x)), c = 1 - p or 1; without gradients F's last convolution adds S(x)
// Without a shortcut:   y = F(x) always; such a block drops nothing
//
// Backward, with g = dy act'(..):   dx = S'(g) + F'(m c g), and what did not run has no part in it.
#pragma once

#include "sd/cpu/residual_join.hpp"
#include "sd/nn/cache.hpp"
#include "sd/nn/shortcut.hpp"
#include "sd/nn/skip_gradients.hpp"
#include "sd/nn/stand_in.hpp"
#include "sd/nn/visit.hpp"
#include "sd/stochastic_depth/activation.hpp"
#include "sd/stochastic_depth/any_policy.hpp"
#include "sd/stochastic_depth/block_decision.hpp"
#include "sd/stochastic_depth/branch.hpp"

#include <type_traits>
#include <utility>

SD_NAMESPACE_BEGIN

namespace detail {

template <class Branch>
using shortcut_of = Shortcut<layer_value_t<Branch>, layer_device_t<Branch>>;

}  // namespace detail

/// A residual block of a branch F, a policy that says when F is left out, an activation, and a shortcut S.
/// Branch: the library's BasicBlock or Bottleneck, a Sequential, or any other layer. Policy: AnyPolicy to choose at run
/// time, or a type that answers three questions, DropPolicy. Shortcut: the library's, or any layer.
template <class BranchType, class PolicyType = AnyPolicy, class Activation = ReluActivation,
          class ShortcutType = detail::shortcut_of<detail::layer_or_stand_in_t<BranchType>>>
class StochasticResidual
    : public BlockDecision<detail::or_stand_in_t<DropPolicy<PolicyType>, PolicyType, KeepAllPolicy>,
                           layer_device_t<detail::layer_or_stand_in_t<BranchType>>> {
    // Bools, since g++ lists every requirement of a concept.
    static constexpr bool branch_is_layer = ResidualBranch<BranchType>;
    static constexpr bool policy_is_right = DropPolicy<PolicyType>;
    static constexpr bool shortcut_is_layer = Layer<ShortcutType>;
    static_assert(branch_is_layer,
                  "sd::StochasticResidual: the branch is no layer: it needs forward(x, context), backward(dy) and "
                  "visit(visitor)");
    static_assert(
        policy_is_right,
        "sd::StochasticResidual: the policy is no DropPolicy: it needs drop_rate, draw(context, block, samples), "
        "runs(mask) and scale(training, mask), and to be copyable");
    static_assert(shortcut_is_layer,
                  "sd::StochasticResidual: the shortcut is no layer: it needs forward(x, context), backward(dy) and "
                  "visit(visitor)");

public:
    /// The residual branch F.
    using Branch = detail::layer_or_stand_in_t<BranchType>;
    /// Who is dropped, and when.
    using Policy = detail::or_stand_in_t<policy_is_right, PolicyType, KeepAllPolicy>;
    using value_type = layer_value_t<Branch>;
    using device_type = layer_device_t<Branch>;
    using T = value_type;
    using Device = device_type;

private:
    using Decision = BlockDecision<Policy, Device>;
    using Decision::draw;
    static constexpr bool activation_is_right = ResidualActivation<Activation, T, Device>;
    static_assert(activation_is_right,
                  "sd::StochasticResidual: the activation is no layer: it needs forward(x, context) and backward(dy)");

public:
    /// Throws std::invalid_argument if the policy's drop rate is not from 0 to 1.
    explicit StochasticResidual(BranchType branch, PolicyType policy = {}, ShortcutType shortcut = {},
                                Activation activation = {})
        : Decision(true),
          branch_(std::move(branch)),
          shortcut_(std::move(shortcut)),
          activation_(std::move(activation)) {
        this->set_policy(std::move(policy));
        name_parameters(*this);
    }

    /// F alone.
    StochasticResidual(Branch branch, NoShortcut) : Decision(false), branch_(std::move(branch)) {
        name_parameters(*this);
    }

    /// y of the shape of S(x); x (N, H, W, C).
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        Pass pass;
        pass.plan = draw(context, x.extent(0));
        if (!this->has_shortcut()) return materialize(detail::Fusion::forward(branch_, x, context));
        const Pending<T, Device> shortcut = detail::Fusion::forward(shortcut_, x, context);
        if (!context.gradients()) return evaluate(x, shortcut, pass.plan, context);
        const Pending<T, Device> branch = run(x, pass.plan, shortcut.shape(), context);
        pass.branch_shape = branch.shape();
        pass.untouched = pass.plan.skips_block && is_identity();
        const Tensor<T, Device> y = pass.untouched ? x : join(shortcut, branch, pass, context);
        pass_.keep(context, std::move(pass));
        return y;
    }

    /// Adds the gradients of all parameters that took part and returns dx.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        if (!this->has_shortcut()) return detail::Fusion::backward(branch_, {dy}, nullptr, InputGradient::computed).dy;
        const Pass& pass = pass_.get("StochasticResidual");
        if (pass.untouched) {
            (void)run_back({Tensor<T, Device>::empty(pass.branch_shape)}, pass.plan);
            return dy;
        }
        const auto [dshortcut, dbranch] = split(dy, pass);
        const Tensor<T, Device> dx = shortcut_.backward(dshortcut);
        // A branch that computed every sample sends every sample's gradient back: batch norm mixes samples.
        const bool of_all = !pass.plan.kept_alone || pass.plan.branch_sample.empty();
        if (pass.plan.runs && of_all) return detail::Fusion::backward_joined(branch_, dbranch, dx);
        const Tensor<T, Device> of_branch = run_back(dbranch, pass.plan);
        return pass.plan.runs ? add_selected<T>(dx, of_branch, pass.plan.branch_sample) : dx;
    }

    /// Gives back what the last forward pass left for backward.
    void forget() { pass_.forget(); }

    /// Whether F is added to x itself.
    [[nodiscard]] bool has_identity_shortcut() const { return this->has_shortcut() && is_identity(); }

    /// The residual branch F.
    [[nodiscard]] Branch& branch() { return branch_; }
    /// The same, read only.
    [[nodiscard]] const Branch& branch() const { return branch_; }

    /// Names what the branch and the shortcut name, with nothing put before it.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visit_members(*this, visitor);
    }
    /// The same, read only.
    template <class Visitor>
    void visit(Visitor&& visitor) const {
        visit_members(*this, visitor);
    }

private:
    using A = accumulate_t<T>;

    struct Pass {
        detail::BranchPlan plan;
        bool untouched = false;   ///< y = x itself
        Shape branch_shape = {};  ///< of F(x)
        join_output_t<T, Device> y = {};
    };

    // act(S + c F) of all samples, written by F's last convolution if F ends in one.
    Tensor<T, Device> evaluate(const Tensor<T, Device>& x, const Pending<T, Device>& shortcut,
                               const detail::BranchPlan& plan, const Context& context) {
        const ResidualJoin<T, Device> join{shortcut, A(plan.scale), fuses_relu};
        return activated(detail::Fusion::forward_joined(branch_, x, join, context), context);
    }

    // F of the samples that it runs on, in a batch of no samples if it does not run.
    Pending<T, Device> run(const Tensor<T, Device>& x, const detail::BranchPlan& plan, const Shape& sum_shape,
                           const Context& context) {
        if (!plan.runs) return Tensor<T, Device>::empty(with_samples(sum_shape, 0));
        if (!plan.kept_alone || plan.branch_sample.empty()) return detail::Fusion::forward(branch_, x, context);
        return detail::Fusion::forward(branch_, gather_samples(x, detail::kept_samples(this->mask())), context);
    }

    // act(S + select(mask, c F)).
    Tensor<T, Device> join(const Pending<T, Device>& shortcut, const Pending<T, Device>& branch, Pass& pass,
                           const Context& context) {
        const Tensor<T, Device> sum = residual_join_forward<T>(shortcut, branch, pass.plan.branch_sample,
                                                               A(pass.plan.scale), fuses_relu, &pass.y);
        return activated(sum, context);
    }

    // The block's output, of a sum to which a ReLU has been applied if the block has one.
    Tensor<T, Device> activated(const Tensor<T, Device>& sum, const Context& context) {
        if constexpr (fuses_activation) {
            return sum;
        } else {
            return activation_.forward(sum, context);
        }
    }

    using BranchGradient = detail::FusedGradient<T, Device>;

    // g and, for the branch's samples, c g.
    std::pair<Tensor<T, Device>, BranchGradient> split(const Tensor<T, Device>& dy, const Pass& pass) {
        Tensor<T, Device> dsum = dy;
        if constexpr (!fuses_activation) dsum = activation_.backward(dy);
        const BatchNormPass<T, Device>* const before =
            pass.plan.runs ? detail::Fusion::output_pass(branch_, nullptr) : nullptr;
        BatchNormSums<A, Device> sums;
        const ResidualJoinGradient<T, Device> join =
            residual_join_backward<T>(dsum, pass.y, pass.plan.branch_sample, pass.branch_shape[0], A(pass.plan.scale),
                                      fuses_relu, before, before == nullptr ? nullptr : &sums);
        return {join.dshortcut, {join.dbranch, sums}};
    }

    // F'(dbranch). Parameters of a branch that did not run have no gradient, or zeros where another rank has one.
    Tensor<T, Device> run_back(const BranchGradient& dbranch, const detail::BranchPlan& plan) {
        if (plan.runs) return detail::Fusion::backward(branch_, dbranch, nullptr, InputGradient::computed).dy;
        if (plan.runs_elsewhere || detail::skipped_gradient_of(this->policy()) == SkippedGradient::zero) {
            add_zero_gradients(branch_);
        } else {
            skip_gradients(branch_);
        }
        return {};
    }

    bool is_identity() const {
        if constexpr (requires { shortcut_.is_identity(); }) return shortcut_.is_identity();
        return false;
    }

    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        detail::visit_layer(self.branch_, visitor);
        detail::visit_layer(self.shortcut_, visitor);
    }

    static constexpr bool fuses_relu = std::is_same_v<Activation, ReluActivation>;
    static constexpr bool fuses_activation = fuses_relu || std::is_same_v<Activation, NoActivation>;

    Branch branch_;
    detail::layer_or_stand_in_t<ShortcutType> shortcut_;
    [[no_unique_address]] detail::or_stand_in_t<activation_is_right, Activation, IdentityShortcut<T, Device>>
        activation_;
    Cache<Pass> pass_;
};

SD_NAMESPACE_END
