// What an optimizer is, and any optimizer by reference.
#pragma once

#include "sd/core/named_tensors.hpp"
#include "sd/core/parameter.hpp"
#include "sd/core/settings.hpp"

#include <concepts>
#include <memory>
#include <string>
#include <utility>

SD_NAMESPACE_BEGIN

/// What an optimizer carries from step to step: tensors by PyTorch's names, such as "conv1.weight.momentum_buffer".
template <class T, class Device = Cpu>
using OptimizerState = NamedTensors<T, Device>;

/// An optimizer trains parameters by their gradients. A trainer takes any type that has
///
///     step()                              updates the parameters that have a gradient; leaves the others as they are
///     zero_grad()                         forgets all gradients
///     learning_rate()                     a number; schedules multiply what it is at first
///     set_learning_rate(number)           throws std::invalid_argument unless it is finite and 0 or more
///     parameters()                        what it trains, a ParameterList<T, Device>&
///     holds(address)                      whether it trains the parameter at this address
///     settings()                          SettingTexts that decide its numbers, but for the learning rate
///     state_dict()                        what it carries from step to step, an OptimizerState; handles, no copies
///     load_state_dict(state, source)      takes copies of that of another; std::runtime_error, which names the source,
///                                         if it is not of these parameters; then nothing has changed
///
/// The library's own are rules on one shell, see GroupedOptimizer.
template <class O, class T, class Device = Cpu>
concept Optimizer = requires(O& optimizer, const O& seen, const void* address, const OptimizerState<T, Device>& state,
                             const std::string& source) {
    optimizer.step();
    optimizer.zero_grad();
    { seen.learning_rate() } -> std::convertible_to<double>;
    optimizer.set_learning_rate(0.1);
    { seen.parameters() } -> std::same_as<const ParameterList<T, Device>&>;
    { seen.holds(address) } -> std::convertible_to<bool>;
    { seen.settings() } -> std::convertible_to<SettingTexts>;
    { seen.state_dict() } -> std::convertible_to<OptimizerState<T, Device>>;
    optimizer.load_state_dict(state, source);
};

/// Any optimizer, which must outlive this: what a trainer and its algorithms see of it.
template <class T, class Device = Cpu>
class OptimizerRef {
public:
    /// Of this one.
    template <class O>
    requires(!std::same_as<O, OptimizerRef> && Optimizer<O, T, Device>)
        OptimizerRef(O& optimizer)  // NOLINT(google-explicit-constructor)
        : seen_(std::make_shared<View<O>>(optimizer)) {}

    /// Updates the parameters that have a gradient.
    void step() { seen_->step(); }
    /// Forgets all gradients.
    void zero_grad() { seen_->zero_grad(); }
    /// The learning rate.
    [[nodiscard]] double learning_rate() const { return seen_->learning_rate(); }
    /// Changes it. Throws std::invalid_argument if it is negative or not finite.
    void set_learning_rate(double learning_rate) { seen_->set_learning_rate(learning_rate); }
    /// What it trains.
    [[nodiscard]] const ParameterList<T, Device>& parameters() const { return seen_->parameters(); }
    /// Whether it trains the parameter at this address.
    [[nodiscard]] bool holds(const void* parameter) const { return seen_->holds(parameter); }
    /// What decides its numbers.
    [[nodiscard]] SettingTexts settings() const { return seen_->settings(); }
    /// What it carries from step to step.
    [[nodiscard]] OptimizerState<T, Device> state_dict() const { return seen_->state_dict(); }
    /// Takes that of another. Throws std::runtime_error, with nothing changed, if it does not fit.
    void load_state_dict(const OptimizerState<T, Device>& state, const std::string& source = "state_dict") {
        seen_->load_state_dict(state, source);
    }

private:
    struct Seen {
        Seen() = default;
        Seen(const Seen&) = delete;
        Seen& operator=(const Seen&) = delete;
        virtual ~Seen() = default;
        virtual void step() = 0;
        virtual void zero_grad() = 0;
        [[nodiscard]] virtual double learning_rate() const = 0;
        virtual void set_learning_rate(double learning_rate) = 0;
        [[nodiscard]] virtual const ParameterList<T, Device>& parameters() const = 0;
        [[nodiscard]] virtual bool holds(const void* parameter) const = 0;
        [[nodiscard]] virtual SettingTexts settings() const = 0;
        [[nodiscard]] virtual OptimizerState<T, Device> state_dict() const = 0;
        virtual void load_state_dict(const OptimizerState<T, Device>& state, const std::string& source) = 0;
    };

    template <class O>
    struct View final : Seen {
        explicit View(O& seen) : optimizer(seen) {}
        void step() override { optimizer.step(); }
        void zero_grad() override { optimizer.zero_grad(); }
        [[nodiscard]] double learning_rate() const override { return optimizer.learning_rate(); }
        void set_learning_rate(double learning_rate) override { optimizer.set_learning_rate(learning_rate); }
        [[nodiscard]] const ParameterList<T, Device>& parameters() const override {
            return std::as_const(optimizer).parameters();
        }
        [[nodiscard]] bool holds(const void* parameter) const override { return optimizer.holds(parameter); }
        [[nodiscard]] SettingTexts settings() const override { return optimizer.settings(); }
        [[nodiscard]] OptimizerState<T, Device> state_dict() const override { return optimizer.state_dict(); }
        void load_state_dict(const OptimizerState<T, Device>& state, const std::string& source) override {
            optimizer.load_state_dict(state, source);
        }
        O& optimizer;
    };

    std::shared_ptr<Seen> seen_;
};

SD_NAMESPACE_END
