// Settings that are allowed but rarely meant.
#pragma once

#include "sd/core/config.hpp"

#include <functional>
#include <iostream>
#include <string>
#include <utility>

SD_NAMESPACE_BEGIN

/// Receives warnings, one line of text each.
using WarningHandler = std::function<void(const std::string&)>;

namespace detail {
inline WarningHandler& warning_handler() {
    // In one piece: what other streams and processes print on the same terminal stays out of the line.
    static WarningHandler handler = [](const std::string& message) { std::cerr << "sd: warning: " + message + '\n'; };
    return handler;
}
}  // namespace detail

/// Sets who receives warnings and returns who did; at first they are printed on the standard error stream.
/// Not to be called while another thread uses the library.
inline WarningHandler set_warning_handler(WarningHandler handler) {
    return std::exchange(detail::warning_handler(), std::move(handler));
}

/// Reports a setting that is allowed but rarely meant.
inline void warn(const std::string& message) {
    if (detail::warning_handler()) detail::warning_handler()(message);
}

SD_NAMESPACE_END
