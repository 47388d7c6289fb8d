// Parameters that are trained with settings of their own.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/number_text.hpp"
#include "sd/core/parameter.hpp"
#include "sd/nn/visit.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Parameters that share settings.
template <class T, class Device = Cpu>
struct ParameterGroup {
    ParameterList<T, Device> parameters;      ///< each in one group of an optimizer
    double learning_rate_factor = 1;          ///< multiplies the optimizer's learning rate; 0 or more
    std::optional<double> weight_decay = {};  ///< in place of the optimizer's; 0 or more
    std::string name = {};                    ///< in settings; parameter_groups() tells the rules
};

/// All that an optimizer trains.
template <class T, class Device = Cpu>
using ParameterGroups = std::vector<ParameterGroup<T, Device>>;

/// Settings for the parameters that fit both conditions.
struct ParameterRule {
    std::string match = {};                                        ///< how their names start; empty: any name
    Index match_rank_at_most = std::numeric_limits<Index>::max();  ///< dimensions: 1 is biases and norms
    std::optional<double> learning_rate_factor = {};               ///< in place of 1; 0 or more
    std::optional<double> weight_decay = {};                       ///< in place of the optimizer's; 0 or more
};

namespace detail {

/// The rule as text, such as "fc.: learning rate x 10".
inline std::string rule_text(const ParameterRule& rule) {
    std::string words = rule.match;
    if (rule.match_rank_at_most != ParameterRule().match_rank_at_most) {
        words += text(words.empty() ? "" : " of ", "rank <= ", rule.match_rank_at_most);
    }
    if (words.empty()) words = "all";
    const char* before = ": ";
    if (rule.learning_rate_factor) {
        words += before + ("learning rate x " + number_text(*rule.learning_rate_factor));
        before = ", ";
    }
    if (rule.weight_decay) words += before + ("weight decay " + number_text(*rule.weight_decay));
    return words;
}

}  // namespace detail

/// The model's parameters, frozen ones included, in groups of those that the same rules match:
///
///     sd::AdamW<float> optimizer(
///         sd::parameter_groups(model, {{.match = "fc.", .learning_rate_factor = 10},
///                                      {.match_rank_at_most = 1, .weight_decay = 0}}), {.learning_rate = 1e-4});
///
/// All rules that match a parameter apply; where two give the same setting, the later one does. So fc.bias has here ten
/// times the learning rate and no weight decay. Parameters that no rule matches have the optimizer's settings.
/// Throws std::invalid_argument for a rule that matches nothing, or a number below 0 or not finite.
template <class Model>
[[nodiscard]] auto parameter_groups(Model& model, const std::vector<ParameterRule>& rules) {
    using Group = ParameterGroup<accumulate_t<typename Model::value_type>, typename Model::device_type>;
    for (const ParameterRule& rule : rules) {
        const auto expect_not_negative = [](const char* setting, const std::optional<double>& value) {
            if (!value || is_in_range(*value, 0)) return;
            refuse("parameter_groups", setting, *value, "a finite number of 0 or more");
        };
        expect_not_negative("learning_rate_factor", rule.learning_rate_factor);
        expect_not_negative("weight_decay", rule.weight_decay);
    }
    std::vector<Group> groups;
    std::vector<std::vector<bool>> matched_by;  // of each group, which rules
    std::vector<bool> is_used(rules.size(), false);
    std::string first;
    for_each_parameter(model, [&](const std::string& name, const auto& parameter) {
        if (first.empty()) first = name;
        std::vector<bool> matches;
        for (const ParameterRule& rule : rules) {
            matches.push_back(name.starts_with(rule.match) && parameter->value.rank() <= rule.match_rank_at_most);
        }
        const auto place = std::find(matched_by.begin(), matched_by.end(), matches) - matched_by.begin();
        if (place == static_cast<std::ptrdiff_t>(groups.size())) {
            Group group;
            for (std::size_t i = 0; i < rules.size(); ++i) {
                if (!matches[i]) continue;
                is_used[i] = true;
                group.learning_rate_factor = rules[i].learning_rate_factor.value_or(group.learning_rate_factor);
                if (rules[i].weight_decay) group.weight_decay = rules[i].weight_decay;
                group.name += (group.name.empty() ? "" : "; ") + detail::rule_text(rules[i]);
            }
            groups.push_back(std::move(group));
            matched_by.push_back(std::move(matches));
        }
        groups[static_cast<std::size_t>(place)].parameters.push_back(parameter);
    });
    for (std::size_t i = 0; i < rules.size(); ++i) {
        if (is_used[i]) continue;
        refuse("parameter_groups", "rule", text('"', detail::rule_text(rules[i]), "\", which matches no parameter"),
               text("the start of a parameter's name, such as ", first, ", and a rank that one has"));
    }
    return groups;
}

SD_NAMESPACE_END
