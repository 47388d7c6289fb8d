// How the library refuses: what, where, got, expected.
#pragma once

#include "sd/core/config.hpp"

#include <initializer_list>
#include <locale>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>

SD_NAMESPACE_BEGIN

/// A part of a text: a reference to anything that an output stream takes. Its type is forgotten, so that what joins
/// parts is compiled once and not for every combination of types.
class TextPart {
public:
    /// Refers to a value, which must outlive this.
    template <class Value>
    TextPart(const Value& value)
        : value_(&value),
          print_([](std::ostream& out, const TextPart& part) { out << *static_cast<const Value*>(part.value_); }) {}
    /// A manipulator such as std::fixed.
    TextPart(std::ios_base& (&manipulator)(std::ios_base&))
        : manipulator_(&manipulator),
          print_([](std::ostream& out, const TextPart& part) { out << part.manipulator_; }) {}

    /// Prints the value.
    void print(std::ostream& out) const { print_(out, *this); }

private:
    union {
        const void* value_;
        std::ios_base& (*manipulator_)(std::ios_base&);
    };
    void (*print_)(std::ostream&, const TextPart&);
};

namespace detail {

inline std::string joined(std::initializer_list<TextPart> parts) {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    for (const TextPart& part : parts) part.print(out);
    return out.str();
}

}  // namespace detail

/// Joins its arguments into one text, each as an output stream prints it in the classic locale: numbers have a decimal
/// point and no separators, whatever the program's own locale is. All text that is read again is made by this.
template <class... Parts>
[[nodiscard]] std::string text(const Parts&... parts) {
    return detail::joined({TextPart(parts)...});
}

/// Refuses a setting or a shape: throws std::invalid_argument "where: what: got …, expected …".
[[noreturn]] inline void refuse(const std::string& where, const std::string& what, TextPart got, TextPart expected) {
    throw std::invalid_argument(text(where, ": ", what, ": got ", got, ", expected ", expected));
}

/// Refuses a file: throws std::runtime_error "file: what: got …, expected …".
[[noreturn]] inline void refuse_file(const std::string& file, const std::string& what, TextPart got,
                                     TextPart expected) {
    throw std::runtime_error(text(file, ": ", what, ": got ", got, ", expected ", expected));
}

SD_NAMESPACE_END
