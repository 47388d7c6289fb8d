// Which samples keep the branch, and by what the branch is scaled: one policy for each way to train a block.
//
// A policy is a set of settings. It answers the questions of a residual block:
//
//     draw(context, block, samples)   which samples keep the branch in a training pass
//     branch_scale(training)          what the branch's value is multiplied by
//     runs(mask)                      which samples the branch computes: all, the kept ones, or none
//     always_runs()                   does it compute all samples in every training pass?
//     drops_samples()                 may some samples of a batch keep the branch and others not?
//     skips_whole_block()             if the branch does not run, is the activation after an identity left out too?
//     zero_gradient_if_skipped()      do the parameters of a branch that did not run get a gradient of zeros?
#pragma once

#include "sd/core/shape.hpp"
#include "sd/nn/context.hpp"
#include "sd/stochastic_depth/mask.hpp"
#include "sd/stochastic_depth/options.hpp"

#include <algorithm>
#include <string_view>
#include <type_traits>
#include <variant>

SD_NAMESPACE_BEGIN

/// What a branch computes in a training pass.
enum class BranchRun {
    all_samples,   ///< the whole batch, whatever of it is dropped afterwards
    kept_samples,  ///< those that keep the branch
    nothing        ///< the branch does not run
};

namespace detail {

inline bool any_kept(const Mask& mask) { return std::find(mask.begin(), mask.end(), 1) != mask.end(); }
inline bool all_kept(const Mask& mask) { return std::find(mask.begin(), mask.end(), 0) == mask.end(); }

// 1 - p in evaluation, or 1 / (1 - p) in training. At p = 1 nothing is ever kept, so any finite factor will do.
inline double survival_scale(double drop_rate, Scaling scaling, bool training) {
    if (scaling == Scaling::inference) return training ? 1.0 : 1.0 - drop_rate;
    return training && drop_rate < 1 ? 1.0 / (1.0 - drop_rate) : 1.0;
}

}  // namespace detail

/// What is told of a policy of any type.
struct PolicySummary {
    std::string_view method;  ///< "plain", "block", "sample", or what a user's policy calls itself
    double drop_rate;         ///< p; 0 if all is kept
    bool is_stochastic;       ///< whether anything can be dropped
    bool always_runs;         ///< whether the branch computes all samples in every training pass
};

/// The plain residual block: act(S(x) + F(x)).
struct KeepAllPolicy {
    static constexpr std::string_view method = "plain";  ///< its name
    static constexpr double drop_rate = 0;               ///< p; 0 if all is kept.

    /// Throws std::invalid_argument if a setting is outside its range.
    void validate() const {}
    /// Which samples of a training pass keep the branch: `samples` entries, a function of the context and of the
    /// block's place in the network.
    [[nodiscard]] Mask draw(const Context&, std::uint32_t, Index samples) const {
        return Mask(static_cast<std::size_t>(samples), 1);
    }
    /// What the branch is multiplied by: 1.
    [[nodiscard]] double branch_scale(bool) const { return 1; }
    /// What the branch computes in a training pass with this mask.
    [[nodiscard]] BranchRun runs(const Mask&) const { return BranchRun::all_samples; }
    /// Whether the branch computes all samples in every training pass.
    [[nodiscard]] bool always_runs() const { return true; }
    /// Whether some samples of a batch may keep the branch and others not.
    [[nodiscard]] bool drops_samples() const { return false; }
    /// Whether a block with an identity shortcut returns its input if the branch does not run.
    [[nodiscard]] bool skips_whole_block() const { return false; }
    /// Whether the parameters of a branch that did not run get a gradient of zeros.
    [[nodiscard]] bool zero_gradient_if_skipped() const { return false; }
};

/// Drops the branch for the whole batch with probability p. A dropped block with an identity shortcut returns its
/// input. G. Huang et al., "Deep networks with stochastic depth", ECCV 2016.
struct BlockPolicy {
    static constexpr std::string_view method = "block";  ///< its name
    double drop_rate = 0.2;                              ///< p, 0 to 1
    Scaling scaling = Scaling::inference;                ///< where survival is made up for
    bool use_same_gpu_seed = true;                       ///< ranks drop together; otherwise each rank draws for itself
    SkippedGradient skipped_gradient = SkippedGradient::none;  ///< of parameters whose branch did not run

    /// Throws std::invalid_argument if a setting is outside its range.
    void validate() const { expect_rate("BlockPolicy", "drop_rate", drop_rate); }
    /// Which samples of a training pass keep the branch: `samples` entries, a function of the context and of the
    /// block's place in the network.
    [[nodiscard]] Mask draw(const Context& context, std::uint32_t block, Index samples) const {
        const std::uint32_t index = use_same_gpu_seed ? 0 : context.rank();
        const bool keep = keeps_branch(drop_rate, context.seed(), context.step(), block, index);
        return Mask(static_cast<std::size_t>(samples), keep ? 1 : 0);
    }
    /// What the branch is multiplied by: 1, 1 - p or 1 / (1 - p).
    [[nodiscard]] double branch_scale(bool training) const {
        return detail::survival_scale(drop_rate, scaling, training);
    }
    /// What the branch computes in a training pass with this mask.
    [[nodiscard]] BranchRun runs(const Mask& mask) const {
        return detail::any_kept(mask) ? BranchRun::all_samples : BranchRun::nothing;
    }
    /// Whether the branch computes all samples in every training pass.
    [[nodiscard]] bool always_runs() const { return drop_rate == 0; }
    /// Whether some samples of a batch may keep the branch and others not.
    [[nodiscard]] bool drops_samples() const { return false; }
    /// Whether a block with an identity shortcut returns its input if the branch does not run.
    [[nodiscard]] bool skips_whole_block() const { return true; }
    /// Whether the parameters of a branch that did not run get a gradient of zeros.
    [[nodiscard]] bool zero_gradient_if_skipped() const { return skipped_gradient == SkippedGradient::zero; }
};

/// Drops the branch for each sample with probability p.
/// MosaicML Composer's sample-wise stochastic depth; "drop path" and "row" mode elsewhere.
struct SamplePolicy {
    static constexpr std::string_view method = "sample";       ///< its name
    double drop_rate = 0.2;                                    ///< p, 0 to 1
    Compute compute = Compute::all;                            ///< whether dropped samples are computed
    Scaling scaling = Scaling::inference;                      ///< where survival is made up for
    SkippedGradient skipped_gradient = SkippedGradient::none;  ///< of parameters whose branch did not run

    /// Throws std::invalid_argument if a setting is outside its range.
    void validate() const { expect_rate("SamplePolicy", "drop_rate", drop_rate); }
    /// Which samples of a training pass keep the branch: `samples` entries, a function of the context and of the
    /// block's place in the network.
    [[nodiscard]] Mask draw(const Context& context, std::uint32_t block, Index samples) const {
        Mask mask(static_cast<std::size_t>(samples));
        for (std::size_t n = 0; n < mask.size(); ++n) {
            const auto index = static_cast<std::uint32_t>(context.sample_offset() + n);
            mask[n] = keeps_branch(drop_rate, context.seed(), context.step(), block, index) ? 1 : 0;
        }
        return mask;
    }
    /// What the branch is multiplied by: 1, 1 - p or 1 / (1 - p).
    [[nodiscard]] double branch_scale(bool training) const {
        return detail::survival_scale(drop_rate, scaling, training);
    }
    /// What the branch computes in a training pass with this mask.
    [[nodiscard]] BranchRun runs(const Mask& mask) const {
        if (compute == Compute::all) return BranchRun::all_samples;
        return detail::any_kept(mask) ? BranchRun::kept_samples : BranchRun::nothing;
    }
    /// Whether the branch computes all samples in every training pass.
    [[nodiscard]] bool always_runs() const { return compute == Compute::all || drop_rate == 0; }
    /// Whether some samples of a batch may keep the branch and others not.
    [[nodiscard]] bool drops_samples() const { return drop_rate > 0; }
    /// Whether a block with an identity shortcut returns its input if the branch does not run.
    [[nodiscard]] bool skips_whole_block() const { return false; }
    /// Whether the parameters of a branch that did not run get a gradient of zeros.
    [[nodiscard]] bool zero_gradient_if_skipped() const { return skipped_gradient == SkippedGradient::zero; }
};

/// One of the three, chosen at run time: what surgery assigns to the blocks of a network.
class AnyPolicy {
public:
    AnyPolicy() = default;
    /// A policy of this kind.
    AnyPolicy(KeepAllPolicy policy) : policy_(policy) {}  // NOLINT(google-explicit-constructor)
    /// A policy of this kind.
    AnyPolicy(BlockPolicy policy) : policy_(policy) {}  // NOLINT(google-explicit-constructor)
    /// A policy of this kind.
    AnyPolicy(SamplePolicy policy) : policy_(policy) {}  // NOLINT(google-explicit-constructor)

    /// The policy if it is of that type, else nullptr.
    template <class Policy>
    [[nodiscard]] const Policy* get_if() const {
        return std::get_if<Policy>(&policy_);
    }
    /// Whether a policy of that type is one of the three.
    template <class Policy>
    static constexpr bool can_hold = std::is_same_v<Policy, KeepAllPolicy> || std::is_same_v<Policy, BlockPolicy> ||
                                     std::is_same_v<Policy, SamplePolicy>;

    /// The name of the method.
    [[nodiscard]] std::string_view method() const {
        return std::visit([](const auto& policy) { return policy.method; }, policy_);
    }
    /// Whether anything can be dropped.
    [[nodiscard]] bool is_stochastic() const { return !std::holds_alternative<KeepAllPolicy>(policy_); }
    /// p; 0 if all is kept.
    [[nodiscard]] double drop_rate() const {
        return std::visit([](const auto& policy) { return policy.drop_rate; }, policy_);
    }

    /// Throws std::invalid_argument if a setting is outside its range.
    void validate() const {
        std::visit([](const auto& policy) { policy.validate(); }, policy_);
    }
    /// Which samples of a training pass keep the branch: `samples` entries, a function of the context and of the
    /// block's place in the network.
    [[nodiscard]] Mask draw(const Context& context, std::uint32_t block, Index samples) const {
        return std::visit([&](const auto& policy) { return policy.draw(context, block, samples); }, policy_);
    }
    /// What the branch is multiplied by: 1, 1 - p or 1 / (1 - p).
    [[nodiscard]] double branch_scale(bool training) const {
        return std::visit([&](const auto& policy) { return policy.branch_scale(training); }, policy_);
    }
    /// What the branch computes in a training pass with this mask.
    [[nodiscard]] BranchRun runs(const Mask& mask) const {
        return std::visit([&](const auto& policy) { return policy.runs(mask); }, policy_);
    }
    /// Whether the branch computes all samples in every training pass.
    [[nodiscard]] bool always_runs() const {
        return std::visit([](const auto& policy) { return policy.always_runs(); }, policy_);
    }
    /// Whether some samples of a batch may keep the branch and others not.
    [[nodiscard]] bool drops_samples() const {
        return std::visit([](const auto& policy) { return policy.drops_samples(); }, policy_);
    }
    /// Whether a block with an identity shortcut returns its input if the branch does not run.
    [[nodiscard]] bool skips_whole_block() const {
        return std::visit([](const auto& policy) { return policy.skips_whole_block(); }, policy_);
    }
    /// Whether the parameters of a branch that did not run get a gradient of zeros.
    [[nodiscard]] bool zero_gradient_if_skipped() const {
        return std::visit([](const auto& policy) { return policy.zero_gradient_if_skipped(); }, policy_);
    }

private:
    std::variant<KeepAllPolicy, BlockPolicy, SamplePolicy> policy_;
};

/// The summary of a policy. A user's type has drop_rate, a member or a member function, and perhaps a static `method`.
template <class Policy>
[[nodiscard]] PolicySummary summary_of(const Policy& policy) {
    if constexpr (std::is_same_v<Policy, AnyPolicy>) {
        return {policy.method(), policy.drop_rate(), policy.is_stochastic(), policy.always_runs()};
    } else {
        std::string_view method = "user's";
        if constexpr (requires { Policy::method; }) method = Policy::method;
        double drop_rate = 0;
        if constexpr (requires { policy.drop_rate(); }) {
            drop_rate = policy.drop_rate();
        } else {
            drop_rate = policy.drop_rate;
        }
        return {method, drop_rate, !std::is_same_v<Policy, KeepAllPolicy>, policy.always_runs()};
    }
}

SD_NAMESPACE_END
