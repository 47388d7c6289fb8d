// What a policy is: who keeps the branch, what the branch computes, and by what it is scaled.
#pragma once

#include "sd/core/shape.hpp"
#include "sd/nn/context.hpp"
#include "sd/stochastic_depth/mask.hpp"
#include "sd/stochastic_depth/options.hpp"

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>

SD_NAMESPACE_BEGIN

/// What a branch computes in a training pass.
enum class BranchRun {
    all_samples,    ///< the whole batch, whatever of it is dropped afterwards
    kept_samples,   ///< those that keep the branch
    nothing,        ///< the branch does not run: y = act(S(x))
    skipped_block,  ///< the same, and behind an identity shortcut the activation does not run either: y = x
};

/// A way to train a residual block. A policy is a copyable set of settings, drop_rate (p) among them, as a member or a
/// member function, that answers three questions:
///
///     draw(context, block, samples)   which samples of a training pass keep the branch: a Mask of as many entries, a
///                                     function of the context and of the block's place in the network
///     runs(mask)                      what the branch computes in a training pass with that mask: a BranchRun
///     scale(training, mask)           what the branch's value is multiplied by, in a training pass with that mask or, if
///                                     not training, in evaluation, where the mask says nothing
///
/// It may also have a static `method`, its name in tables, and `skipped_gradient`. Blocks have it as their template
/// argument or in an AnyPolicy; register_policy() makes it known to surgery and text.
template <class Policy>
concept DropPolicy = std::copyable<Policy> &&(
                         requires(const Policy& policy) { policy.drop_rate(); } ||
                         requires(const Policy& policy) { policy.drop_rate; }) &&
                     requires(const Policy& policy, const Context& context, std::uint32_t block, Index samples,
                              const Mask& mask) {
    { policy.draw(context, block, samples) } -> std::same_as<Mask>;
    { policy.runs(mask) } -> std::same_as<BranchRun>;
    { policy.scale(true, mask) } -> std::convertible_to<double>;
};

/// The plain residual block: act(S(x) + F(x)).
struct KeepAllPolicy {
    static constexpr std::string_view method = "plain";  ///< its name
    static constexpr double drop_rate = 0;               ///< nothing is dropped

    /// All samples.
    [[nodiscard]] Mask draw(const Context&, std::uint32_t, Index samples) const {
        return Mask(static_cast<std::size_t>(samples), 1);
    }
    /// All samples.
    [[nodiscard]] BranchRun runs(const Mask&) const { return BranchRun::all_samples; }
    /// 1.
    [[nodiscard]] double scale(bool, const Mask&) const { return 1; }
};

namespace detail {

/// p.
template <DropPolicy Policy>
[[nodiscard]] double drop_rate_of(const Policy& policy) {
    if constexpr (requires { policy.drop_rate(); }) {
        return policy.drop_rate();
    } else {
        return policy.drop_rate;
    }
}

inline bool any_kept(const Mask& mask) { return std::find(mask.begin(), mask.end(), 1) != mask.end(); }
inline bool all_kept(const Mask& mask) { return std::find(mask.begin(), mask.end(), 0) == mask.end(); }

/// 1 - p in evaluation, or 1 / (1 - p) in training. At p = 1 nothing is ever kept, so any finite factor will do.
inline double survival_scale(double drop_rate, Scaling scaling, bool training) {
    if (scaling == Scaling::inference) return training ? 1.0 : 1.0 - drop_rate;
    return training && drop_rate < 1 ? 1.0 / (1.0 - drop_rate) : 1.0;
}

/// What the parameters of a branch that did not run receive; none, unless the policy has the setting.
template <DropPolicy Policy>
SkippedGradient skipped_gradient_of(const Policy& policy) {
    if constexpr (requires { policy.skipped_gradient(); }) {
        return policy.skipped_gradient();
    } else if constexpr (requires { policy.skipped_gradient; }) {
        return policy.skipped_gradient;
    } else {
        return SkippedGradient::none;
    }
}

/// Whether anything can be dropped.
template <DropPolicy Policy>
bool is_stochastic(const Policy& policy) {
    if constexpr (requires { policy.is_stochastic(); }) {
        return policy.is_stochastic();
    } else {
        return !std::is_same_v<Policy, KeepAllPolicy>;
    }
}

/// Whether the policy drops whole batches: all entries of its masks are equal.
template <DropPolicy Policy>
bool drops_whole_blocks(const Policy& policy) {
    return policy.runs(Mask(1, 0)) == BranchRun::skipped_block;
}

/// Whether the branch computes what is dropped too.
template <DropPolicy Policy>
bool computes_dropped(const Policy& policy) {
    return policy.runs(Mask(1, 0)) == BranchRun::all_samples;
}

template <DropPolicy Policy>
std::string_view method_of(const Policy& policy) {
    if constexpr (requires { policy.method(); }) {
        return policy.method();
    } else if constexpr (requires { Policy::method; }) {
        return Policy::method;
    } else {
        return "user's";
    }
}

}  // namespace detail

/// What is told of a policy of any type.
struct PolicySummary {
    std::string_view method;  ///< "plain", "block", "sample", or what a user's policy calls itself
    double drop_rate;         ///< p; 0 if all is kept
    bool is_stochastic;       ///< whether anything can be dropped
    bool always_runs;         ///< whether the branch computes all samples in every training pass
};

/// The summary of a policy.
template <DropPolicy Policy>
[[nodiscard]] PolicySummary summary_of(const Policy& policy) {
    const double drop_rate = detail::drop_rate_of(policy);
    return {detail::method_of(policy), drop_rate, detail::is_stochastic(policy),
            drop_rate == 0 || detail::computes_dropped(policy)};
}

SD_NAMESPACE_END
