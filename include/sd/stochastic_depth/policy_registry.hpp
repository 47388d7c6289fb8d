// Policies of a user's own, under names that settings can hold.
#pragma once

#include "sd/stochastic_depth/any_policy.hpp"
#include "sd/stochastic_depth/block_policy.hpp"
#include "sd/stochastic_depth/options.hpp"
#include "sd/stochastic_depth/sample_policy.hpp"
#include "sd/stochastic_depth/subset_policy.hpp"

#include <functional>
#include <mutex>
#include <string>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// A policy of the type with those of the options that it has a member for, and this drop rate.
template <DropPolicy Policy>
Policy policy_of_options(const StochasticDepthOptions& options, double drop_rate) {
    Policy policy{};
    policy.drop_rate = drop_rate;
    if constexpr (requires { policy.compute = options.compute; }) policy.compute = options.compute;
    if constexpr (requires { policy.scaling = options.scaling; }) policy.scaling = options.scaling;
    if constexpr (requires { policy.use_same_gpu_seed = options.use_same_gpu_seed; }) {
        policy.use_same_gpu_seed = options.use_same_gpu_seed;
    }
    if constexpr (requires { policy.skipped_gradient = options.skipped_gradient; }) {
        policy.skipped_gradient = options.skipped_gradient;
    }
    return policy;
}

/// How policies are made, by their names, for the whole program.
class PolicyMakers {
public:
    using Make = AnyPolicy (*)(const StochasticDepthOptions&, double);

    static PolicyMakers& instance() {
        static PolicyMakers makers;
        return makers;
    }

    template <class Policy>
    void add() {
        const std::string name(Policy::method);
        const Make make = [](const StochasticDepthOptions& options, double drop_rate) {
            return AnyPolicy(policy_of_options<Policy>(options, drop_rate));
        };
        const TypeId type = type_id<Policy>();
        const std::lock_guard lock(mutex_);
        auto place = makers_.begin();
        while (place != makers_.end() && place->name < name) ++place;
        if (place == makers_.end() || place->name != name) {
            makers_.insert(place, {name, make, type});
        } else if (place->type != type) {
            refuse("register_policy", "name", text('"', name, '"'), "one that no other policy has");
        }
    }
    /// Null for an unknown name.
    [[nodiscard]] Make find(const std::string& name) const {
        const std::lock_guard lock(mutex_);
        for (const Maker& maker : makers_) {
            if (maker.name == name) return maker.make;
        }
        return nullptr;
    }
    /// "A, B, C" of the names.
    [[nodiscard]] std::string list() const {
        const std::lock_guard lock(mutex_);
        std::string all;
        for (const Maker& maker : makers_) all += text(all.empty() ? "" : ", ", maker.name);
        return all;
    }

private:
    struct Maker {
        std::string name;
        Make make;
        TypeId type;
    };

    /// With the library's own, but for those of the methods. Here and not beside them: what registers itself costs every
    /// program that includes it code before main.
    PolicyMakers() { add<SubsetPolicy>(); }

    mutable std::mutex mutex_;
    std::vector<Maker> makers_;  // sorted by name
};

}  // namespace detail

/// Makes a policy of a user's own known under its static member `method`:
///
///     sd::register_policy<MyPolicy>();
///     sd::apply_stochastic_depth(model, {.policy = "mine", .drop_rate = 0.3});
///
/// Surgery makes it of the options: drop_rate, and those of compute, scaling, use_same_gpu_seed and skipped_gradient that
/// it has a member for. Returns true, so that a header can register what it defines. Throws std::invalid_argument for a
/// name that is empty or has a space, or that another type has.
template <DropPolicy Policy>
requires requires(Policy policy) {
    Policy::method;
    policy.drop_rate = 0.5;
}
bool register_policy() {
    detail::expect_name("register_policy", "method", std::string(Policy::method));
    detail::PolicyMakers::instance().add<Policy>();
    return true;
}

namespace detail {

/// Refuses the name of a policy that nobody has registered.
inline void expect_policy(const char* where, const std::string& name) {
    const auto& makers = detail::PolicyMakers::instance();
    if (makers.find(name) == nullptr) {
        refuse(where, "policy", text('"', name, '"'), text("a registered one: ", makers.list()));
    }
}

}  // namespace detail

/// The policy of a block whose drop rate is `drop_rate`. Throws std::invalid_argument for a policy that nobody has
/// registered.
[[nodiscard]] inline AnyPolicy make_policy(const StochasticDepthOptions& options, double drop_rate) {
    if (!options.policy.empty()) {
        detail::expect_policy("make_policy", options.policy);
        return detail::PolicyMakers::instance().find(options.policy)(options, drop_rate);
    }
    if (options.stochastic_method == StochasticMethod::block) {
        return detail::policy_of_options<BlockPolicy>(options, drop_rate);
    }
    return detail::policy_of_options<SamplePolicy>(options, drop_rate);
}

SD_NAMESPACE_END
