// A policy whose type is chosen at run time.
#pragma once

#include "sd/core/type_name.hpp"
#include "sd/stochastic_depth/policy.hpp"

#include <memory>
#include <utility>

SD_NAMESPACE_BEGIN

/// A policy of any type: what surgery assigns to the blocks of a network. KeepAllPolicy unless another one is given.
class AnyPolicy {
public:
    AnyPolicy() : AnyPolicy(KeepAllPolicy{}) {}
    /// This policy.
    template <class Policy>
    requires(!std::is_same_v<Policy, AnyPolicy> && DropPolicy<Policy>)  //
        AnyPolicy(Policy policy)                                        // NOLINT(google-explicit-constructor)
        : policy_(std::make_shared<const Held<Policy>>(std::move(policy))) {}

    /// The policy if it is of that type, else nullptr.
    template <DropPolicy Policy>
    [[nodiscard]] const Policy* get_if() const {
        return policy_->type == detail::type_id<Policy>() ? &static_cast<const Held<Policy>&>(*policy_).policy
                                                          : nullptr;
    }

    /// The name of the method.
    [[nodiscard]] std::string_view method() const { return policy_->method(); }
    /// Whether anything can be dropped.
    [[nodiscard]] bool is_stochastic() const { return get_if<KeepAllPolicy>() == nullptr; }
    /// p; 0 if all is kept.
    [[nodiscard]] double drop_rate() const { return policy_->drop_rate(); }
    /// What the parameters of a branch that did not run receive.
    [[nodiscard]] SkippedGradient skipped_gradient() const { return policy_->skipped_gradient(); }

    /// The policy's.
    [[nodiscard]] Mask draw(const Context& context, std::uint32_t block, Index samples) const {
        return policy_->draw(context, block, samples);
    }
    /// The policy's.
    [[nodiscard]] BranchRun runs(const Mask& mask) const { return policy_->runs(mask); }
    /// The policy's.
    [[nodiscard]] double scale(bool training, const Mask& mask) const { return policy_->scale(training, mask); }

private:
    struct Interface {
        explicit Interface(detail::TypeId held) : type(held) {}
        Interface(const Interface&) = delete;
        Interface& operator=(const Interface&) = delete;
        virtual ~Interface() = default;
        [[nodiscard]] virtual std::string_view method() const = 0;
        [[nodiscard]] virtual double drop_rate() const = 0;
        [[nodiscard]] virtual SkippedGradient skipped_gradient() const = 0;
        [[nodiscard]] virtual Mask draw(const Context& context, std::uint32_t block, Index samples) const = 0;
        [[nodiscard]] virtual BranchRun runs(const Mask& mask) const = 0;
        [[nodiscard]] virtual double scale(bool training, const Mask& mask) const = 0;

        const detail::TypeId type;
    };
    template <class Policy>
    struct Held final : Interface {
        explicit Held(Policy given) : Interface(detail::type_id<Policy>()), policy(std::move(given)) {}
        [[nodiscard]] std::string_view method() const override { return detail::method_of(policy); }
        [[nodiscard]] double drop_rate() const override { return detail::drop_rate_of(policy); }
        [[nodiscard]] SkippedGradient skipped_gradient() const override { return detail::skipped_gradient_of(policy); }
        [[nodiscard]] Mask draw(const Context& context, std::uint32_t block, Index samples) const override {
            return policy.draw(context, block, samples);
        }
        [[nodiscard]] BranchRun runs(const Mask& mask) const override { return policy.runs(mask); }
        [[nodiscard]] double scale(bool training, const Mask& mask) const override {
            return policy.scale(training, mask);
        }

        const Policy policy;
    };

    std::shared_ptr<const Interface> policy_;
};

SD_NAMESPACE_END
