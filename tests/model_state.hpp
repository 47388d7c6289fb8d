// All numbers that a model consists of.
#pragma once

#include "sd/nn/visit.hpp"

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace sd_test {

/// Parameters and buffers in one list.
template <class Model>
std::vector<double> state_of(Model& model) {
    std::vector<double> state;
    const auto append = [&](const auto& tensor) { state.insert(state.end(), tensor.begin(), tensor.end()); };
    sd::for_each_state(
        model, [&](const std::string&, const auto& parameter) { append(parameter->value); },
        [&]<class Buffer>(const std::string&, const Buffer& buffer) {
            if constexpr (std::is_same_v<Buffer, std::int64_t>) {
                state.push_back(static_cast<double>(buffer));
            } else {
                append(buffer);
            }
        });
    return state;
}

}  // namespace sd_test
