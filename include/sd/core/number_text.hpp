// Numbers as text that gives the same number back, and back.
#pragma once

#include "sd/core/config.hpp"

#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

SD_NAMESPACE_BEGIN

namespace detail {

/// The shortest text that gives the same number back.
inline std::string number_text(double number) {
    char buffer[32];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, number).ptr;
    return {buffer, end};
}

/// The finite number that the whole text is, as 0.5 or 1e-3; nothing for any other text.
inline std::optional<double> parse_finite(std::string_view text) {
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(number)) return std::nullopt;
    return number;
}

}  // namespace detail

SD_NAMESPACE_END
