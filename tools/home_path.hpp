// Paths that begin at the user's home: a shell replaces ~ only at the start of a word, not after "cifar10:".
#pragma once

#include "sd/core/error.hpp"

#include <cstdlib>
#include <filesystem>
#include <string>

namespace tools {

/// The path, with the home folder for a ~ that is all of it or stands before its first slash.
/// Throws std::invalid_argument if there is one and no home folder is known.
inline std::filesystem::path home_path(const std::string& path) {
    if (path != "~" && !path.starts_with("~/")) return path;
    const char* home = std::getenv("HOME");
    if (home == nullptr || *home == '\0') sd::refuse(path, "HOME", "nothing", "the home folder, for ~");
    return home + path.substr(1);
}

}  // namespace tools
