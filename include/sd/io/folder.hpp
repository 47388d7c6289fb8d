// What is in a folder: its names, and files that go by one of several names.
#pragma once

#include "sd/core/error.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// The entries of a folder, sorted by the bytes of their names. Names that begin with a dot are hidden and left out.
/// Throws std::runtime_error if the folder cannot be listed.
[[nodiscard]] inline std::vector<std::filesystem::directory_entry> list_folder(const std::filesystem::path& folder) {
    std::error_code error;
    std::vector<std::filesystem::directory_entry> entries;
    for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
        if (!entry->path().filename().string().starts_with('.')) entries.push_back(*entry);
    }
    if (error) refuse_file(folder.string(), "listing", error.message(), "a readable folder");
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.path() < b.path(); });
    return entries;
}

/// The first few of these names, for messages: "a, b, c and 4 more", or "nothing".
[[nodiscard]] inline std::string some_of(const std::vector<std::string>& names) {
    constexpr std::size_t most = 6;
    if (names.empty()) return "nothing";
    std::string list;
    for (std::size_t i = 0; i < std::min(most, names.size()); ++i) list += (i == 0 ? "" : ", ") + names[i];
    return names.size() > most ? text(list, " and ", names.size() - most, " more") : list;
}

/// The first few names in a folder, for messages. Throws std::runtime_error if the folder cannot be listed.
[[nodiscard]] inline std::string some_names_in(const std::filesystem::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : list_folder(folder)) names.push_back(entry.path().filename().string());
    return some_of(names);
}

/// The file in a folder that has the first of these names, of which there is one or more. `what` names it in errors.
/// Throws std::runtime_error that tells what is in the folder if there is none.
[[nodiscard]] inline std::filesystem::path find_file(const std::filesystem::path& folder, const std::string& what,
                                                     const std::vector<std::string>& names) {
    for (const std::string& name : names) {
        std::error_code ignored;
        if (std::filesystem::is_regular_file(folder / name, ignored)) return folder / name;
    }
    refuse_file(folder.string(), what, some_names_in(folder), some_of(names));
}

}  // namespace detail

SD_NAMESPACE_END
