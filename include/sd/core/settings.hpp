// What the parts of a run were set to, as text.
#pragma once

#include "sd/core/config.hpp"

#include <concepts>
#include <map>
#include <string>

SD_NAMESPACE_BEGIN

/// Settings that decide the numbers of a run, by name. Two runs of equal settings have the same numbers.
using SettingTexts = std::map<std::string, std::string>;

namespace detail {

/// The settings that a loader or an algorithm tells of itself by settings(context...); none if it has no such function.
template <class Part, class... Context>
[[nodiscard]] SettingTexts settings_of(const Part& part, const Context&... context) {
    if constexpr (requires {
                      { part.settings(context...) } -> std::convertible_to<SettingTexts>;
                  }) {
        return part.settings(context...);
    } else {
        return {};
    }
}

}  // namespace detail

SD_NAMESPACE_END
