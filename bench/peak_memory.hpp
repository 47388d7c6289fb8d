// The most memory that a process has held. Linux.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

namespace bench {

/// Peak resident memory of this process in bytes. Throws std::runtime_error where the system does not tell.
/// VmHWM, and not getrusage: that one remembers the process before exec, a large parent included.
inline std::int64_t peak_resident_memory() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
    }
    throw std::runtime_error("peak_resident_memory: got no VmHWM in /proc/self/status");
}

/// What `<this program> --peak-memory <name>` prints, from a process of its own. Throws std::runtime_error if it fails.
inline std::int64_t peak_memory_of_own_process(const std::string& name) {
    const std::string command = std::filesystem::read_symlink("/proc/self/exe").string() + "' --peak-memory '" + name;
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(("'" + command + "'").c_str(), "r"), pclose);
    long long bytes = 0;
    if (!pipe || std::fscanf(pipe.get(), "%lld", &bytes) != 1) {
        throw std::runtime_error("peak_memory_of_own_process: got no number from " + command);
    }
    return bytes;
}

}  // namespace bench
