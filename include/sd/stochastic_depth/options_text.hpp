// The settings of stochastic depth as one line of text, and back.
//
//     target_layer_name=ResNetBottleneck stochastic_method=sample drop_rate=0.1 drop_distribution=linear ...
#pragma once

#include "sd/core/number_text.hpp"
#include "sd/stochastic_depth/options.hpp"
#include "sd/stochastic_depth/policy_registry.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

inline double parse_number(const char* setting, std::string_view value) {
    const auto number = parse_finite(value);
    if (!number) refuse("parse_options", setting, text('"', value, '"'), "a number");
    return *number;
}

inline bool parse_bool(const char* setting, std::string_view value) {
    if (value != "true" && value != "false") refuse("parse_options", setting, text('"', value, '"'), "true or false");
    return value == "true";
}

/// Sets the one option that the key names.
inline void set_option(StochasticDepthOptions& options, std::string_view key, std::string_view value) {
    if (key == "target_layer_name") {
        options.target_layer_name = value;
        expect_name("parse_options", "target_layer_name", options.target_layer_name);
    } else if (key == "stochastic_method") {
        options.stochastic_method = parse<StochasticMethod>(value);
    } else if (key == "policy") {
        options.policy = value;
        expect_policy("parse_options", options.policy);
    } else if (key == "drop_rate") {
        options.drop_rate = parse_number("drop_rate", value);
        expect_rate("parse_options", "drop_rate", options.drop_rate);
    } else if (key == "drop_distribution") {
        options.drop_distribution = parse<DropDistribution>(value);
    } else if (key == "use_same_gpu_seed") {
        options.use_same_gpu_seed = parse_bool("use_same_gpu_seed", value);
    } else if (key == "compute") {
        options.compute = parse<Compute>(value);
    } else if (key == "scaling") {
        options.scaling = parse<Scaling>(value);
    } else if (key == "skipped_gradient") {
        options.skipped_gradient = parse<SkippedGradient>(value);
    } else if (key == "drop_at_projections") {
        options.drop_at_projections = parse_bool("drop_at_projections", value);
    } else {
        refuse(
            "parse_options", "setting", text('"', key, '"'),
            "target_layer_name, stochastic_method, policy, drop_rate, drop_distribution, use_same_gpu_seed, compute, "
            "scaling, skipped_gradient or drop_at_projections");
    }
}

/// All settings as pairs of key and value; drop_at_projections is named where it is false. Throws std::invalid_argument for
/// a value outside its enumeration.
[[nodiscard]] inline std::vector<std::pair<std::string, std::string>> option_texts(
    const StochasticDepthOptions& options) {
    std::vector<std::pair<std::string, std::string>> all{
        {"target_layer_name", options.target_layer_name},
        {"stochastic_method", to_string(options.stochastic_method)},
        {"policy", options.policy},
        {"drop_rate", detail::number_text(options.drop_rate)},
        {"drop_distribution", to_string(options.drop_distribution)},
        {"use_same_gpu_seed", options.use_same_gpu_seed ? "true" : "false"},
        {"compute", to_string(options.compute)},
        {"scaling", to_string(options.scaling)},
        {"skipped_gradient", to_string(options.skipped_gradient)}};
    if (!options.drop_at_projections) all.emplace_back("drop_at_projections", "false");
    return all;
}

}  // namespace detail

/// All settings, key=value, separated by spaces; parse_options gives the same settings back, bit for bit. A
/// target_layer_name or a policy that is empty is left out.
/// Throws std::invalid_argument for a target_layer_name with a space, or a value outside its enumeration.
[[nodiscard]] inline std::string to_string(const StochasticDepthOptions& options) {
    if (!options.target_layer_name.empty()) {
        detail::expect_name("to_string", "target_layer_name", options.target_layer_name);
    }
    if (!options.policy.empty()) detail::expect_policy("to_string", options.policy);
    std::string all;
    for (const auto& [key, value] : detail::option_texts(options)) {
        if (!value.empty()) all += text(all.empty() ? "" : " ", key, '=', value);
    }
    return all;
}

/// The settings in a text of key=value, separated by spaces, in any order; what is not named has its default.
/// Throws std::invalid_argument for an unknown or repeated key, a key without value, or a value that is not allowed.
[[nodiscard]] inline StochasticDepthOptions parse_options(std::string_view settings) {
    StochasticDepthOptions options;
    std::vector<std::string_view> seen;
    while (true) {
        settings.remove_prefix(std::min(settings.find_first_not_of(' '), settings.size()));
        if (settings.empty()) return options;
        const std::string_view item = settings.substr(0, settings.find(' '));
        settings.remove_prefix(item.size());
        const std::size_t equals = item.find('=');
        if (equals == std::string_view::npos) refuse("parse_options", "setting", text('"', item, '"'), "key=value");
        const std::string_view key = item.substr(0, equals);
        for (const std::string_view other : seen) {
            if (other == key) refuse("parse_options", "setting", text('"', key, "\" twice"), "it once");
        }
        seen.push_back(key);
        detail::set_option(options, key, item.substr(equals + 1));
    }
}

SD_NAMESPACE_END
