// How the library refuses: what, where, got, expected.
#pragma once

#include "sd/core/config.hpp"

#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>

SD_NAMESPACE_BEGIN

/// Joins its arguments into one text, each as an output stream prints it in the classic locale: numbers have a decimal
/// point and no separators, whatever the program's own locale is. All text that is read again is made by this.
template <class... Parts>
[[nodiscard]] std::string text(const Parts&... parts) {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    (out << ... << parts);
    return out.str();
}

/// Refuses a setting or a shape: throws std::invalid_argument "where: what: got …, expected …".
template <class Got, class Expected>
[[noreturn]] void refuse(const std::string& where, const std::string& what, const Got& got, const Expected& expected) {
    throw std::invalid_argument(text(where, ": ", what, ": got ", got, ", expected ", expected));
}

/// Refuses a file: throws std::runtime_error "file: what: got …, expected …".
template <class Got, class Expected>
[[noreturn]] void refuse_file(const std::string& file, const std::string& what, const Got& got,
                              const Expected& expected) {
    throw std::runtime_error(text(file, ": ", what, ": got ", got, ", expected ", expected));
}

SD_NAMESPACE_END
