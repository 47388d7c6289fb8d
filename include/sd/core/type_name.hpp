// Names and identities of types, without the compiler's run-time type information (-fno-rtti).
#pragma once

#include "sd/core/config.hpp"

#include <cstddef>
#include <string_view>

SD_NAMESPACE_BEGIN
namespace detail {

/// The type's name as the compiler writes it in messages.
template <class Type>
[[nodiscard]] constexpr std::string_view type_name() {
    // g++: "... type_name() [with Type = X; std::string_view = ...]"; clang++: "... type_name() [Type = X]".
    std::string_view name = __PRETTY_FUNCTION__;
    const std::string_view before = "Type = ";
    name.remove_prefix(name.find(before) + before.size());
    const std::size_t alias = name.find("; std::string_view = ");
    return name.substr(0, alias == std::string_view::npos ? name.size() - 1 : alias);
}

/// Something of which each type has its own, for its address. Not const: linkers may merge constants that are equal.
template <class Type>
inline char type_mark = 0;

/// Tells types apart: each has its own.
using TypeId = const void*;

/// The identity of a type.
template <class Type>
[[nodiscard]] constexpr TypeId type_id() {
    return &type_mark<Type>;
}

}  // namespace detail
SD_NAMESPACE_END
