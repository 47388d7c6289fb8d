// Frozen parameters: those that training leaves alone, as in fine-tuning.
#pragma once

#include "sd/nn/visit.hpp"

#include <string>
#include <string_view>

SD_NAMESPACE_BEGIN

namespace detail {

/// Calls use(parameter) for those whose names start with the prefix and returns how many there are, 1 or more.
template <class Layer, class Use>
Index for_each_with_prefix(const char* function, Layer& layer, std::string_view prefix, const Use& use) {
    Index count = 0;
    std::string first;
    for_each_parameter(layer, [&](const std::string& name, auto& parameter) {
        if (first.empty()) first = name;
        if (!name.starts_with(prefix)) return;
        use(*parameter);
        ++count;
    });
    if (count == 0) {
        refuse(function, "prefix", text('"', prefix, '"'), text("the start of a parameter's name, such as ", first));
    }
    return count;
}

}  // namespace detail

/// Freezes the parameters whose full names start with the prefix, such as "layer1."; returns how many they are. They
/// receive no gradient, and what they have of one is forgotten; layers spend nothing on it, optimizers leave them
/// alone, weight decay and momentum included, and need not hold them. Running statistics still move in training passes,
/// as with requires_grad = False in PyTorch. All ranks freeze the same parameters.
/// Throws std::invalid_argument, with nothing changed, if no name starts with the prefix.
template <class Layer>
Index freeze(Layer& layer, std::string_view prefix) {
    return detail::for_each_with_prefix("freeze", layer, prefix, [](auto& parameter) {
        parameter.requires_grad = false;
        parameter.zero_grad();
    });
}

/// Undoes freeze() for the parameters whose full names start with the prefix; returns how many they are.
/// Throws std::invalid_argument if no name starts with the prefix.
template <class Layer>
Index unfreeze(Layer& layer, std::string_view prefix) {
    return detail::for_each_with_prefix("unfreeze", layer, prefix,
                                        [](auto& parameter) { parameter.requires_grad = true; });
}

/// Whether the layer has a parameter that is not frozen.
template <class Layer>
[[nodiscard]] bool has_trainable_parameters(Layer& layer) {
    bool found = false;
    for_each_unnamed_parameter(layer, [&](const auto& parameter) { found = found || parameter->requires_grad; });
    return found;
}

/// Which parameters are frozen, as text: each run of frozen ones in the order of the layer's visits by its first and
/// last name, "conv1.weight to layer1.1.bn2.bias"; "none" if there are none.
template <class Layer>
[[nodiscard]] std::string frozen_parameters(Layer& layer) {
    std::string all, first, last;
    const auto end_run = [&] {
        if (!first.empty()) all += text(all.empty() ? "" : ", ", first, first == last ? "" : " to " + last);
        first.clear();
    };
    for_each_parameter(layer, [&](const std::string& name, const auto& parameter) {
        if (parameter->requires_grad) {
            end_run();
        } else {
            if (first.empty()) first = name;
            last = name;
        }
    });
    end_run();
    return all.empty() ? "none" : all;
}

SD_NAMESPACE_END
