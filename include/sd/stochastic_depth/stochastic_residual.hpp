// The residual block with stochastic depth: y = act(S(x) + mask F(x)).
//
// Training, with m_n = 1 where sample n keeps the branch (drawn by the policy), c = the policy's scale:
//
//     sample            y_n = act(S(x)_n + m_n c F(x)_n), a selection: a dropped sample's F is not looked at
//     block, kept       y = act(S(x) + c F(x))
//     block, dropped    y = x itself for an identity shortcut, act(S(x)) for any other; F is not computed
//
// Evaluation:           y = act(S(x) + c F(x)), c = 1 - p or 1
//
// Backward, with g = dy act'(..):   dx = S'(g) + F'(m c g), and what did not run has no part in it.
#pragma once

#include "sd/cpu/residual_join.hpp"
#include "sd/nn/cache.hpp"
#include "sd/nn/shortcut.hpp"
#include "sd/nn/visit.hpp"
#include "sd/stochastic_depth/activation.hpp"
#include "sd/stochastic_depth/branch.hpp"
#include "sd/stochastic_depth/policy.hpp"

#include <optional>
#include <type_traits>
#include <utility>

SD_NAMESPACE_BEGIN

/// A residual block of a branch F, a shortcut S, a policy that says when F is left out, and an activation.
/// Branch: the library's BasicBlock or Bottleneck, or a user's type with forward, backward and visit (ResidualBranch).
/// Policy: KeepAllPolicy, BlockPolicy, SamplePolicy, or AnyPolicy to choose at run time.
template <ResidualBranch BranchType, class PolicyType = AnyPolicy, class Activation = ReluActivation>
requires ResidualActivation<Activation, layer_value_t<BranchType>, layer_device_t<BranchType>>
class StochasticResidual {
public:
    /// The residual branch F.
    using Branch = BranchType;
    /// Who is dropped, and when.
    using Policy = PolicyType;
    using value_type = layer_value_t<Branch>;
    using device_type = layer_device_t<Branch>;
    using T = value_type;
    using Device = device_type;

    /// Throws std::invalid_argument if a setting of the policy is outside its range.
    explicit StochasticResidual(Branch branch, Policy policy = {}, Shortcut<T, Device> shortcut = {},
                                Activation activation = {})
        : branch_(std::move(branch)), shortcut_(std::move(shortcut)), activation_(std::move(activation)) {
        set_policy(std::move(policy));
        name_parameters(*this);
    }

    /// y of the shape of S(x); x (N, H, W, C).
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        if (context.training()) mask_ = next_mask(context, x.extent(0));
        BranchRun run = context.training() ? policy_.runs(mask_) : BranchRun::all_samples;
        const bool dropped = run == BranchRun::nothing;
        const bool runs_elsewhere = dropped && runs_on_another_rank(context);
        // Batch norms of the ranks that run the branch wait for this one's: it runs too, on none of its samples.
        if (runs_elsewhere && context.batch_norm_communicator() != nullptr) run = BranchRun::kept_samples;
        Pass pass{.run = run, .runs_elsewhere = runs_elsewhere, .branch_sample = select(run, context)};
        if (dropped && policy_.skips_whole_block() && shortcut_.is_identity()) {
            if (run != BranchRun::nothing) {
                pass.branch_shape = run_branch(x, run, pass.branch_sample, x.shape(), context).shape();
            }
            pass.untouched = true;
            pass_.keep(context, std::move(pass));
            return x;
        }

        const Pending<T, Device> shortcut = detail::Fusion::forward(shortcut_, x, context);
        pass.scale = accumulate_t<T>(policy_.branch_scale(context.training()));
        const Pending<T, Device> branch = run_branch(x, run, pass.branch_sample, shortcut.shape(), context);
        pass.branch_shape = branch.shape();
        const Tensor<T, Device> joined = residual_join_forward<T>(shortcut, branch, pass.branch_sample, pass.scale,
                                                                  fuses_relu, context.gradients() ? &pass.y : nullptr);
        pass_.keep(context, std::move(pass));
        if constexpr (fuses_activation) {
            return joined;
        } else {
            return activation_.forward(joined, context);
        }
    }

    /// Adds the gradients of all parameters that took part and returns dx.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        const Pass& pass = pass_.get("StochasticResidual");
        if (pass.untouched) {
            if (pass.run == BranchRun::nothing) {
                skip_gradients(pass);
            } else {
                (void)branch_.backward(Tensor<T, Device>::empty(pass.branch_shape));
            }
            return dy;
        }
        Tensor<T, Device> dsum = dy;
        if constexpr (!fuses_activation) dsum = activation_.backward(dy);
        const BatchNormPass<T, Device>* const before =
            pass.run == BranchRun::nothing ? nullptr : detail::Fusion::output_pass(branch_);
        BatchNormSums<accumulate_t<T>, Device> sums;
        const ResidualJoinGradient<T, Device> join =
            residual_join_backward<T>(dsum, pass.y, pass.branch_sample, pass.branch_shape[0], pass.scale, fuses_relu,
                                      before, before == nullptr ? nullptr : &sums);
        const Tensor<T, Device> dshortcut = shortcut_.backward(join.dshortcut);
        if (pass.run == BranchRun::nothing) {
            skip_gradients(pass);
            return dshortcut;
        }
        const Tensor<T, Device> dbranch =
            detail::Fusion::backward(branch_, {join.dbranch, sums}, nullptr, InputGradient::computed).dy;
        // A branch that computed every sample sends every sample's gradient back: batch norm mixes samples.
        return add_selected<T>(
            dshortcut, dbranch,
            pass.run == BranchRun::kept_samples ? BranchSamples(pass.branch_sample) : BranchSamples());
    }

    /// Gives back what the last forward pass left for backward.
    void forget() { pass_.forget(); }

    /// Which samples of the last training pass kept the branch.
    [[nodiscard]] const Mask& mask() const { return mask_; }

    /// Uses this mask in training passes from now on, or draws masks again if there is none. The mask has one entry a
    /// sample, 0 or 1; for a block-wise policy all are equal. Throws std::invalid_argument otherwise.
    void set_mask(std::optional<Mask> mask) {
        if (mask) {
            for (const std::uint8_t kept : *mask) {
                if (kept > 1) refuse("StochasticResidual", "mask entry", static_cast<int>(kept), "0 or 1");
                if (policy_.skips_whole_block() && kept != mask->front()) {
                    refuse("StochasticResidual", "mask of a block-wise policy", "kept and dropped samples",
                           "all equal");
                }
            }
        }
        given_mask_ = std::move(mask);
    }

    /// How the block trains.
    [[nodiscard]] const Policy& policy() const { return policy_; }

    /// Changes how the block trains; parameters stay where they are. A mask that was given is forgotten.
    /// Throws std::invalid_argument, with nothing changed, if a setting of the policy is outside its range.
    void set_policy(Policy policy) {
        policy.validate();
        policy_ = std::move(policy);
        given_mask_.reset();
    }

    /// The block's place among all blocks of its network, from 0: it decides which random numbers the block draws. The
    /// library's networks number their blocks when they are built, number_blocks() those of any other model.
    [[nodiscard]] std::uint32_t block_index() const { return block_index_; }
    /// Sets block_index(). Two blocks of one network must not share one.
    void set_block_index(std::uint32_t index) { block_index_ = index; }

    /// The residual branch F.
    [[nodiscard]] Branch& branch() { return branch_; }
    /// The same, read only.
    [[nodiscard]] const Branch& branch() const { return branch_; }

    /// What F is multiplied by in evaluation, at the drop rate applied now: 1 - p or 1.
    [[nodiscard]] double evaluation_scale() const { return policy_.branch_scale(false); }

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
    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        detail::visit_layer(self.branch_, visitor);
        detail::visit_layer(self.shortcut_, visitor);
    }

    static constexpr bool fuses_relu = std::is_same_v<Activation, ReluActivation>;
    static constexpr bool fuses_activation = fuses_relu || std::is_same_v<Activation, NoActivation>;

    struct Pass {
        bool untouched = false;
        BranchRun run = BranchRun::nothing;
        bool runs_elsewhere = false;             ///< dropped here, but not on every rank
        PooledVector<Index> branch_sample = {};  ///< for each sample the branch's, -1 for none; empty: the same
        Shape branch_shape = {};                 ///< of F(x)
        accumulate_t<T> scale = accumulate_t<T>(1);
        join_output_t<T, Device> y = {};
    };

    Mask next_mask(const Context& context, Index samples) const {
        if (context.joint() != nullptr) expect_part(*context.joint(), samples);
        if (!given_mask_) {
            if (summary_of(policy_).is_stochastic) context.expect_own_number(block_index_, this);
            return policy_.draw(context, block_index_, samples);
        }
        if (static_cast<Index>(given_mask_->size()) != samples) {
            refuse("StochasticResidual", "entries of the given mask", given_mask_->size(),
                   text(samples, ", one a sample"));
        }
        return *given_mask_;
    }

    // Ranks that would draw other masks for each other than they use would wait for each other forever.
    void expect_part(const JointPass& joint, Index samples) const {
        const Index expected = joint.parts.at(static_cast<std::size_t>(joint.rank)).count;
        if (samples != expected) refuse("StochasticResidual", "samples of this rank", samples, expected);
        if (given_mask_ && joint.parts.size() > 1) {
            refuse("StochasticResidual", "mask of a pass that several ranks make", "a given one",
                   "one that every rank can draw");
        }
    }

    // Whether some rank of the joint pass runs the branch: its mask is drawn as it draws it.
    bool runs_on_another_rank(const Context& context) const {
        if (context.joint() == nullptr) return false;
        const std::vector<BatchPart>& parts = context.joint()->parts;
        for (std::size_t rank = 0; rank < parts.size(); ++rank) {
            const Mask mask = policy_.draw(context.of_rank(static_cast<Index>(rank)), block_index_, parts[rank].count);
            if (policy_.runs(mask) != BranchRun::nothing) return true;
        }
        return false;
    }

    // branch_sample of the join, from the mask of this pass. On a device, all samples are named even if all are kept,
    // so that a step whose branches see all samples is the same kernels whatever the masks, as a graph of it needs.
    PooledVector<Index> select(BranchRun run, const Context& context) const {
        const bool names_all = !std::is_same_v<Device, Cpu> && context.training() && run == BranchRun::all_samples &&
                               policy_.drops_samples();
        if ((!context.training() || detail::all_kept(mask_)) && !names_all) return {};
        PooledVector<Index> branch_sample;
        Index kept = 0;
        for (std::size_t n = 0; n < mask_.size(); ++n) {
            const Index sample = run == BranchRun::kept_samples ? kept : static_cast<Index>(n);
            branch_sample.push_back(mask_[n] ? sample : -1);
            kept += mask_[n];
        }
        return branch_sample;
    }

    Pending<T, Device> run_branch(const Tensor<T, Device>& x, BranchRun run, const PooledVector<Index>& branch_sample,
                                  const Shape& sum_shape, const Context& context) {
        if (run == BranchRun::nothing) return Tensor<T, Device>::empty(with_samples(sum_shape, 0));
        if (run == BranchRun::all_samples || branch_sample.empty()) return detail::Fusion::forward(branch_, x, context);
        PooledVector<Index> kept;
        for (std::size_t n = 0; n < branch_sample.size(); ++n) {
            if (branch_sample[n] >= 0) kept.push_back(static_cast<Index>(n));
        }
        return detail::Fusion::forward(branch_, gather_samples(x, kept), context);
    }

    // A rank that dropped the branch adds zeros to what others have; if none ran it, there is no gradient.
    void skip_gradients(const Pass& pass) {
        const bool zero = pass.runs_elsewhere || policy_.zero_gradient_if_skipped();
        for_each_unnamed_parameter(branch_, [&](auto& parameter) {
            if (zero) {
                parameter->add_grad(decltype(parameter->value)(parameter->value.shape()));
            } else {
                parameter->skip_grad();
            }
        });
    }

    Branch branch_;
    Policy policy_;
    Shortcut<T, Device> shortcut_;
    [[no_unique_address]] Activation activation_;
    std::uint32_t block_index_ = 0;
    Mask mask_;
    std::optional<Mask> given_mask_;
    Cache<Pass> pass_;
};

SD_NAMESPACE_END
