// What acts on a run: the library's algorithms and users' own, by value.
#pragma once

#include "sd/core/settings.hpp"
#include "sd/core/shape.hpp"
#include "sd/train/event.hpp"
#include "sd/train/loss.hpp"
#include "sd/logs/logger.hpp"
#include "sd/train/state.hpp"

#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

SD_NAMESPACE_BEGIN

/// An algorithm says when it wants to act, and acts:
///
///     bool match(Event event, const State<T, Device>& state) const
///     void apply(Event event, State<T, Device>& state, Logger& logger)
///
/// Either may be a template, so that it serves every T. A static member `name` is the name in traces; without it that
/// is the type's. It may tell those of its settings that decide the numbers of a run on so many ranks, which
/// checkpoints keep, so that a change of them is noticed when the run goes on:
///
///     SettingTexts settings(Index ranks) const
///
/// What it carries from batch to batch belongs into State::carried, so that checkpoints hold it. One that acts after a
/// loss and looks neither at it nor at scores says so, and a device is not waited for on its behalf:
///
///     static constexpr bool sees_scores = false;
template <class A, class T, class Device = Cpu>
concept TrainingAlgorithm = std::copy_constructible<A> &&
    requires(A& algorithm, const A& constant, Event event, State<T, Device>& state, const State<T, Device>& seen,
             Logger& logger) {
    { constant.match(event, seen) } -> std::convertible_to<bool>;
    algorithm.apply(event, state, logger);
};

/// Any algorithm. Copies are independent of each other.
template <class T, class Device = Cpu>
class Algorithm {
public:
    /// Holds the algorithm; implicit, so that lists can be written as {StochasticDepth(options), MyAlgorithm()}.
    template <class A>
    requires(!std::same_as<A, Algorithm> && TrainingAlgorithm<A, T, Device>)
        Algorithm(A algorithm)  // NOLINT(google-explicit-constructor)
        : held_(std::make_unique<Holder<A>>(std::move(algorithm))) {}

    /// Holds a copy of the other's.
    Algorithm(const Algorithm& other) : held_(other.held_->clone()) {}
    /// Takes the other's, which can only be assigned to or destroyed then.
    Algorithm(Algorithm&&) noexcept = default;
    Algorithm& operator=(Algorithm other) noexcept {
        held_ = std::move(other.held_);
        return *this;
    }
    ~Algorithm() = default;

    /// Whether it acts at this event.
    [[nodiscard]] bool match(Event event, const State<T, Device>& state) const { return held_->match(event, state); }
    /// Acts.
    void apply(Event event, State<T, Device>& state, Logger& logger) { held_->apply(event, state, logger); }
    /// The settings that it tells of itself on so many ranks.
    [[nodiscard]] SettingTexts settings(Index ranks) const { return held_->settings(ranks); }
    /// Whether it may look at losses and scores.
    [[nodiscard]] bool sees_scores() const { return held_->sees_scores(); }
    /// Its name in traces; valid as long as this or what this was moved to lives.
    [[nodiscard]] std::string_view name() const { return held_->name; }

private:
    struct Held {
        explicit Held(std::string name_of_type) : name(std::move(name_of_type)) {}
        Held(const Held&) = default;
        Held& operator=(const Held&) = delete;
        virtual ~Held() = default;
        [[nodiscard]] virtual std::unique_ptr<Held> clone() const = 0;
        [[nodiscard]] virtual bool match(Event event, const State<T, Device>& state) const = 0;
        virtual void apply(Event event, State<T, Device>& state, Logger& logger) = 0;
        [[nodiscard]] virtual SettingTexts settings(Index ranks) const = 0;
        [[nodiscard]] virtual bool sees_scores() const = 0;

        std::string name;
    };

    template <class A>
    struct Holder final : Held {
        explicit Holder(A held) : Held(detail::name_of<A>()), algorithm(std::move(held)) {}
        [[nodiscard]] std::unique_ptr<Held> clone() const override { return std::make_unique<Holder>(*this); }
        [[nodiscard]] bool match(Event event, const State<T, Device>& state) const override {
            return algorithm.match(event, state);
        }
        void apply(Event event, State<T, Device>& state, Logger& logger) override {
            algorithm.apply(event, state, logger);
        }
        [[nodiscard]] SettingTexts settings(Index ranks) const override {
            return detail::settings_of(algorithm, ranks);
        }
        [[nodiscard]] bool sees_scores() const override {
            if constexpr (requires { A::sees_scores; }) return A::sees_scores;
            return true;
        }

        A algorithm;
    };

    std::unique_ptr<Held> held_;
};

SD_NAMESPACE_END
