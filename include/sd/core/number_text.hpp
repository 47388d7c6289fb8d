// Numbers as text that gives the same number back, and back. The same in every locale.
#pragma once

#include "sd/core/config.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <version>

// libc++ has had no std::from_chars for double for long, and Apple's systems before macOS 13.3 no std::to_chars.
#if defined(__cpp_lib_to_chars)
#include <charconv>
#include <system_error>
#else
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <iomanip>
#include <locale>
#include <locale.h>
#include <sstream>
#if defined(__APPLE__)
#include <xlocale.h>
#endif
#endif

SD_NAMESPACE_BEGIN

namespace detail {

/// Whether the whole text is a decimal number as programs write it: 12, -0.5, 1e-3.
inline bool is_decimal(std::string_view text) {
    std::size_t at = 0;
    const auto skip = [&](std::string_view any) {
        if (at < text.size() && any.find(text[at]) != std::string_view::npos) ++at;
    };
    const auto digits = [&] {
        const std::size_t first = at;
        while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
        return at - first;
    };
    skip("-");
    std::size_t mantissa = digits();
    if (at < text.size() && text[at] == '.') {
        ++at;
        mantissa += digits();
    }
    if (mantissa == 0) return false;
    if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
        ++at;
        skip("+-");
        if (digits() == 0) return false;
    }
    return at == text.size();
}

#if defined(__cpp_lib_to_chars)

/// The number that a decimal text is; nothing if it is too large, or not zero and too small.
inline std::optional<double> parse_decimal(std::string_view text) {
    double number = 0;
    const auto error = std::from_chars(text.data(), text.data() + text.size(), number).ec;
    return error == std::errc() ? std::optional(number) : std::nullopt;
}

/// The shortest text that gives the same number back.
inline std::string number_text(double number) {
    char buffer[32];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, number).ptr;
    return {buffer, end};
}

#else

/// std::strtod as in the classic locale.
inline double classic_strtod(const char* text) {
#if defined(_WIN32)
    static const ::_locale_t classic = ::_create_locale(LC_ALL, "C");
    return ::_strtod_l(text, nullptr, classic);
#else
    static const ::locale_t classic = ::newlocale(LC_ALL_MASK, "C", nullptr);
    return ::strtod_l(text, nullptr, classic);
#endif
}

/// The number that a decimal text is; nothing if it is too large, or not zero and too small.
inline std::optional<double> parse_decimal(std::string_view text) {
    // Not by a stream: libc++'s streams refuse the numbers below the smallest normal one.
    errno = 0;
    const double number = classic_strtod(std::string(text).c_str());
    // Numbers below the smallest normal one are reported too, but are right.
    if (errno == ERANGE && (number == 0 || std::abs(number) > 1)) return std::nullopt;
    return number;
}

/// A number as an output stream writes it in the classic locale.
inline std::string stream_text(double number, std::ios_base& (*form)(std::ios_base&), int precision) {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    out << form << std::setprecision(precision) << number;
    return out.str();
}

/// The shortest text that gives the same number back, as std::to_chars writes it.
inline std::string number_text(double number) {
    int decimals = 0;
    std::string with_exponent = stream_text(number, std::scientific, decimals);
    if (!is_decimal(with_exponent)) return with_exponent;  // inf, nan
    while (parse_decimal(with_exponent) != number) {
        with_exponent = stream_text(number, std::scientific, ++decimals);
    }
    const int exponent = std::atoi(with_exponent.c_str() + with_exponent.find('e') + 1);
    const std::string plain = stream_text(number, std::fixed, std::max(0, decimals - exponent));
    return plain.size() <= with_exponent.size() ? plain : with_exponent;
}

#endif

/// The finite number that the whole text is, as 0.5 or 1e-3; nothing for any other text.
inline std::optional<double> parse_finite(std::string_view text) {
    return is_decimal(text) ? parse_decimal(text) : std::nullopt;
}

}  // namespace detail

SD_NAMESPACE_END
