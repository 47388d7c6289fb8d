// Weights that are worth writing: all numbers finite. Needs nlohmann/json.
#pragma once

#include "sd/io/safetensors.hpp"
#include "sd/nn/visit.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

SD_NAMESPACE_BEGIN

namespace detail {

/// The bits of the exponent in numbers of a type, all of them set in infinities and NaN; 0 for types without those.
inline std::uint64_t exponent_mask(Dtype dtype) {
    switch (dtype) {
        case Dtype::f16:
            return 0x7C00;
        case Dtype::bf16:
            return 0x7F80;
        case Dtype::f32:
            return 0x7F800000;
        case Dtype::f64:
            return 0x7FF0000000000000;
        default:
            return 0;
    }
}

/// The first number that is not finite, if there is one: an infinity or NaN.
inline std::optional<double> first_not_finite(const SafeTensorEntry& entry) {
    const std::uint64_t exponent = exponent_mask(entry.dtype);
    if (exponent == 0) return std::nullopt;
    const auto size = static_cast<std::size_t>(dtype_bytes(entry.dtype));
    const std::uint64_t fraction = (exponent & (~exponent + 1)) - 1;
    for (std::size_t i = 0; i < entry.bytes.size(); i += size) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, entry.bytes.data() + i, size);
        if ((bits & exponent) != exponent) continue;
        if ((bits & fraction) != 0) return std::numeric_limits<double>::quiet_NaN();
        const bool is_negative = bits > (exponent | fraction);
        return is_negative ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
    }
    return std::nullopt;
}

/// Calls refuse(name, number) for the first parameter or running statistic of the model whose numbers in its state dict
/// are not all finite. Other buffers are left out: a layer's smallest number so far, for one, may begin as infinity.
template <class Model, class Refuse>
void expect_finite_state(Model& model, const SafeTensors& state, const Refuse& refuse) {
    const auto expect = [&](const std::string& name) {
        if (const auto number = first_not_finite(state.entry(name))) refuse(name, *number);
    };
    for_each_state(
        model, [&](const std::string& name, const auto&) { expect(name); },
        [&](const std::string& name, const auto&) {
            const bool is_statistic = name.ends_with("running_mean") || name.ends_with("running_var");
            if (is_statistic) expect(name);
        });
}

}  // namespace detail

SD_NAMESPACE_END
