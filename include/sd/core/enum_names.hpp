// Names of enumerations' values as text, and back.
#pragma once

#include "sd/core/error.hpp"

#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>

SD_NAMESPACE_BEGIN

namespace detail {

/// A value of an enumeration and its name.
template <class Enum>
struct EnumName {
    Enum value;
    std::string_view name;
};

/// To be specialised for each enumeration that has names:
///
///     static constexpr std::string_view setting = "compute";
///     static constexpr EnumName<Compute> names[]{{Compute::all, "all"}, ...};
template <class Enum>
struct EnumNames;

/// The names that a setting can have, as "a, b or c".
template <class Enum>
[[nodiscard]] std::string allowed_names() {
    constexpr auto& names = detail::EnumNames<Enum>::names;
    std::string all;
    for (std::size_t i = 0; i < std::size(names); ++i) {
        all += text(i == 0 ? "" : i + 1 == std::size(names) ? " or " : ", ", names[i].name);
    }
    return all;
}

}  // namespace detail

/// The name of a value. Throws std::invalid_argument for a value outside the enumeration.
template <class Enum>
[[nodiscard]] std::string to_string(Enum value) requires requires {
    detail::EnumNames<Enum>::setting;
}
{
    for (const auto& [known, name] : detail::EnumNames<Enum>::names) {
        if (known == value) return std::string(name);
    }
    refuse("to_string", std::string(detail::EnumNames<Enum>::setting), static_cast<int>(value),
           detail::allowed_names<Enum>());
}

/// The value of a name. Throws std::invalid_argument, naming what is allowed, for any other text.
template <class Enum>
[[nodiscard]] Enum parse(std::string_view name) {
    for (const auto& [value, known] : detail::EnumNames<Enum>::names) {
        if (known == name) return value;
    }
    refuse("parse", std::string(detail::EnumNames<Enum>::setting), text('"', name, '"'), detail::allowed_names<Enum>());
}

SD_NAMESPACE_END
