// The shell of every optimizer of the library: parameters, groups, state and refusals around a rule of a few lines.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/number_text.hpp"
#include "sd/cpu/elementwise.hpp"
#include "sd/cpu/update_parameters.hpp"
#include "sd/optim/optimizer.hpp"
#include "sd/optim/parameter_groups.hpp"

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// A tensor that a rule keeps for every parameter.
struct OptimizerBuffer {
    std::string_view name;            ///< PyTorch's
    double start = 0;                 ///< value of its elements before the parameter's first update
    bool only_with_momentum = false;  ///< not in use while Options::momentum is 0
};

/// Settings of a rule are checked by it: finite numbers in ranges that the type of the parameters can hold.
template <class T>
class OptionCheck {
public:
    /// Of the optimizer of that name.
    explicit OptionCheck(std::string_view optimizer) : optimizer_(optimizer) {}

    /// Throws std::invalid_argument unless 0 <= value.
    void not_negative(const char* setting, double value) const {
        if (is_in_range(value, 0, most)) return;
        refuse(optimizer_, setting, value, text("a finite number of 0 or more, at most ", most));
    }
    /// Throws std::invalid_argument unless 0 < value.
    void positive(const char* setting, double value) const {
        if (is_in_range(value, smallest_number<T>, most)) return;
        refuse(optimizer_, setting, value, text("a number from ", smallest_number<T>, " to ", most));
    }
    /// Throws std::invalid_argument unless 0 <= value < 1.
    void below_one(const char* setting, double value) const {
        if (is_in_range(value, 0, 1) && static_cast<T>(value) < T(1)) return;
        refuse(optimizer_, setting, value, "a number from 0 to less than 1");
    }
    /// The largest number of the type in which updates are computed.
    static constexpr double most = largest_number<T>;

private:
    std::string optimizer_;
};

/// When a parameter is updated.
struct UpdateMoment {
    bool is_first;  ///< its buffers are new
    Index count;    ///< of its updates, from 1; only of rules that count them
};

/// An optimizer by its rule, as Sgd is by SgdRule. A rule is a type with
///
///     using Options = ...;                                a struct with learning_rate, weight_decay and what else it has
///     static constexpr std::string_view name;             in settings and refusals
///     static constexpr std::array<OptimizerBuffer, n> buffers;
///     static constexpr bool counts_updates;               whether the count is a part of its state, PyTorch's `step`
///     static void check(options, OptionCheck<T>);         throws for options outside their ranges
///     static SettingTexts settings(options);              all but learning_rate and weight_decay
///     template <class T> class Update;                    the formula, made of (options, UpdateMoment): ParameterUpdate
///
/// and nothing else: one formula serves the CPU and every device.
///
/// A parameter that received no gradient is left alone: no weight decay, no change of its buffers, no count. Its
/// buffers are made at its first update. Learning rate and weight decay are those of the parameter's group.
template <class Rule, class T, class Device = Cpu>
class GroupedOptimizer {
public:
    using value_type = T;
    using device_type = Device;
    using Options = typename Rule::Options;  ///< of the rule

    /// Of parameters with the same settings. Throws std::invalid_argument for settings outside their ranges or an
    /// undefined parameter.
    explicit GroupedOptimizer(ParameterList<T, Device> parameters, const Options& options = {}) {
        add({.parameters = std::move(parameters)});
        set_options(options);
    }
    /// Of parameters in groups, see parameter_groups(). Throws std::invalid_argument for settings outside their ranges,
    /// and an undefined parameter or one that is in two groups.
    template <std::same_as<ParameterGroups<T, Device>> Groups>
    explicit GroupedOptimizer(Groups groups, const Options& options = {}) {
        std::set<const void*> seen;
        for (auto& group : groups) {
            for (const auto& parameter : group.parameters) {
                if (!parameter || seen.insert(parameter.get()).second) continue;
                refuse(name(), "parameters", parameter->name + " twice", "each parameter in one group");
            }
            add(std::move(group));
        }
        set_options(options);
    }

    /// One update of all parameters that have a gradient.
    void step() {
        using Update = typename Rule::template Update<T>;
        PooledVector<ParameterUpdate<Update, T, Device>> updates;
        for (const Group& group : groups_) {
            const Options options = group_options(options_, group);
            for (std::size_t i = group.first; i < group.last; ++i) {
                const Parameter<T, Device>& parameter = *parameters_[i];
                if (!parameter.has_grad) continue;
                Kept& kept = kept_[i];
                UpdateMoment moment{.is_first = false, .count = ++kept.count};
                std::array<Tensor<T, Device>, buffer_count> buffers;
                for (std::size_t k = 0; k < buffer_count; ++k) {
                    if (!is_in_use(k)) continue;
                    if (!kept.buffers[k]) {
                        kept.buffers[k] =
                            Tensor<T, Device>::full(parameter.value.shape(), static_cast<T>(Rule::buffers[k].start));
                        moment.is_first = true;
                    }
                    buffers[k] = kept.buffers[k];
                }
                updates.push_back({Update(options, moment), parameter.value, parameter.grad, std::move(buffers)});
            }
        }
        update_parameters(std::span<ParameterUpdate<Update, T, Device>>(updates));
    }

    /// Forgets all gradients.
    void zero_grad() {
        for (const auto& parameter : parameters_) parameter->zero_grad();
    }

    /// True if the optimizer trains the parameter at this address.
    [[nodiscard]] bool holds(const void* parameter) const {
        return std::any_of(parameters_.begin(), parameters_.end(),
                           [&](const auto& own) { return own.get() == parameter; });
    }

    /// What it trains, group by group.
    [[nodiscard]] const ParameterList<T, Device>& parameters() const { return parameters_; }

    /// The settings.
    [[nodiscard]] const Options& options() const { return options_; }
    /// Changes the settings. Throws std::invalid_argument, with nothing changed, if one is outside its range.
    void set_options(const Options& options) {
        const OptionCheck<T> check(Rule::name);
        const auto expect_sound = [&](const Options& own) {
            check.not_negative("learning_rate", own.learning_rate);
            check.not_negative("weight_decay", own.weight_decay);
        };
        expect_sound(options);
        Rule::check(options, check);
        for (const Group& group : groups_) {
            check.not_negative("learning_rate_factor", group.learning_rate_factor);
            expect_sound(group_options(options, group));
        }
        options_ = options;
    }
    /// The learning rate, which groups multiply.
    [[nodiscard]] double learning_rate() const { return options_.learning_rate; }
    /// Changes the learning rate. Throws std::invalid_argument if it is negative or not finite.
    void set_learning_rate(double learning_rate) {
        Options options = options_;
        options.learning_rate = learning_rate;
        set_options(options);
    }

    /// What decides the numbers but for the learning rate: rule, options and groups.
    [[nodiscard]] SettingTexts settings() const {
        SettingTexts all = Rule::settings(options_);
        all["name"] = name();
        all["weight_decay"] = detail::number_text(options_.weight_decay);
        for (std::size_t i = 0; i < groups_.size() && groups_.size() > 1; ++i) {
            const Group& group = groups_[i];
            std::string words = text(group.last - group.first, " parameters, learning rate x ",
                                     detail::number_text(group.learning_rate_factor));
            if (group.weight_decay) words += ", weight decay " + detail::number_text(*group.weight_decay);
            all[text("group.", i)] = group.name.empty() ? words : words + " (" + group.name + ")";
        }
        return all;
    }

    /// What it carries from step to step, by PyTorch's names: handles, no copies. "PARAMETER.BUFFER" for each buffer,
    /// and where the rule counts a parameter's updates "PARAMETER.step", a single number. A parameter that has not been
    /// updated has none.
    /// Throws std::invalid_argument if a parameter has no name, or two have the same.
    [[nodiscard]] OptimizerState<T, Device> state_dict() const {
        OptimizerState<T, Device> state;
        for (const auto& [name, place] : state_places()) {
            const Kept& kept = kept_[place.parameter];
            if (place.buffer < buffer_count) {
                if (kept.buffers[place.buffer]) state.emplace(name, kept.buffers[place.buffer]);
            } else if (kept.count > 0) {
                const Tensor<T> count(Shape{}, {static_cast<T>(static_cast<double>(kept.count))});
                state.emplace(name, to_device<Device>(count));
            }
        }
        return state;
    }

    /// Takes copies of another's state_dict() in place of its own; a parameter without state there is as before its
    /// first update. Everything is checked before anything is changed. `source` names the state in errors.
    /// Throws std::runtime_error for a tensor of another shape or of no parameter here, for a parameter that has some
    /// of its state alone, for a count that is none, and as state_dict() does.
    void load_state_dict(const OptimizerState<T, Device>& state, const std::string& source = "state_dict") {
        const std::map<std::string, Place> places = state_places();
        std::vector<Kept> all(parameters_.size());
        for (const auto& [name, tensor] : state) {
            const auto found = places.find(name);
            if (found == places.end()) {
                refuse_file(source, "optimizer's state", name,
                            text("buffers of the parameters that ", Rule::name, " trains"));
            }
            const auto [parameter, buffer] = found->second;
            const Shape shape = buffer < buffer_count ? parameters_[parameter]->value.shape() : Shape{};
            if (!(tensor.shape() == shape)) refuse_file(source, name + ": shape", tensor.shape(), shape);
            if (buffer < buffer_count) {
                all[parameter].buffers[buffer] = tensor.clone();
            } else {
                all[parameter].count = count_of(to_host(tensor).data()[0], name, source);
            }
        }
        for (const auto& [name, place] : places) expect_whole(all[place.parameter], name, place, source);
        kept_ = std::move(all);
    }

private:
    static constexpr std::size_t buffer_count = Rule::buffers.size();

    /// A group: which of the parameters, and their settings.
    struct Group {
        std::size_t first, last;
        double learning_rate_factor;
        std::optional<double> weight_decay;
        std::string name;
    };
    /// What is kept of a parameter.
    struct Kept {
        std::array<Tensor<T, Device>, buffer_count> buffers;  ///< undefined before they are in use
        Index count = 0;                                      ///< of updates
    };
    /// Of what a name in a state_dict() tells.
    struct Place {
        std::size_t parameter, buffer;  ///< buffer_count: the count of updates
    };

    [[nodiscard]] static std::string name() { return std::string(Rule::name); }

    void add(ParameterGroup<T, Device> group) {
        const std::size_t first = parameters_.size();
        for (auto& parameter : group.parameters) {
            if (!parameter) refuse(name(), "parameters", "an empty pointer", "parameters of a model");
            parameters_.push_back(std::move(parameter));
        }
        groups_.push_back(
            {first, parameters_.size(), group.learning_rate_factor, group.weight_decay, std::move(group.name)});
        kept_.resize(parameters_.size());
    }

    [[nodiscard]] static Options group_options(Options options, const Group& group) {
        options.learning_rate *= group.learning_rate_factor;
        options.weight_decay = group.weight_decay.value_or(options.weight_decay);
        return options;
    }

    [[nodiscard]] bool is_in_use(std::size_t k) const {
        if constexpr (requires { options_.momentum; }) {
            return !Rule::buffers[k].only_with_momentum || options_.momentum != 0;
        }
        return true;
    }

    /// The place of everything that a state_dict() can hold, by its name there.
    [[nodiscard]] std::map<std::string, Place> state_places() const {
        std::map<std::string, Place> places;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const std::string& own = parameters_[i]->name;
            if (own.empty()) refuse(name(), "name of a parameter", "none", "one, to keep its state by");
            for (std::size_t k = 0; k < buffer_count + (Rule::counts_updates ? 1 : 0); ++k) {
                const std::string_view kind = k < buffer_count ? Rule::buffers[k].name : std::string_view("step");
                if (places.emplace(text(own, '.', kind), Place{i, k}).second) continue;
                refuse(name(), "name of a parameter", own + " twice", "one name a parameter");
            }
        }
        return places;
    }

    static Index count_of(T stored, const std::string& name, const std::string& source) {
        const auto number = static_cast<double>(stored);
        const double most = 9007199254740992.0;  // 2^53
        if (!is_in_range(number, 1, most) || number != static_cast<double>(static_cast<Index>(number))) {
            refuse_file(source, name, number, "a whole number of 1 or more");
        }
        return static_cast<Index>(number);
    }

    /// Refuses a parameter's state where something that is always kept is missing and something else is not. Buffers
    /// that only momentum needs may come and go with it.
    static void expect_whole(const Kept& kept, const std::string& name, const Place& place, const std::string& source) {
        const bool is_count = place.buffer == buffer_count;
        if (!is_count && Rule::buffers[place.buffer].only_with_momentum) return;
        const bool has_some = kept.count > 0 || std::any_of(kept.buffers.begin(), kept.buffers.end(),
                                                            [](const auto& buffer) { return bool(buffer); });
        const bool has_this = is_count ? kept.count > 0 : bool(kept.buffers[place.buffer]);
        if (has_some && !has_this) refuse_file(source, name, "none", "one beside the parameter's other state");
    }

    ParameterList<T, Device> parameters_;
    std::vector<Kept> kept_;
    std::vector<Group> groups_;
    Options options_;
};

SD_NAMESPACE_END
