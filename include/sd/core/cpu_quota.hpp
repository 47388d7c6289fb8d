// The CPU time that a container may use, as Linux tells it.
#pragma once

#include "sd/core/config.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

SD_NAMESPACE_BEGIN
namespace detail {

/// The lines of a small text file; none if it cannot be read.
inline std::vector<std::string> lines_of(const std::string& path) {
    std::vector<std::string> lines;
    std::FILE* file = std::fopen(path.c_str(), "r");
    if (file == nullptr) return lines;
    std::string text;
    char bytes[4096];
    for (std::size_t read = 0; (read = std::fread(bytes, 1, sizeof bytes, file)) > 0;) text.append(bytes, read);
    std::fclose(file);
    for (std::size_t first = 0; first < text.size();) {
        const std::size_t end = std::min(text.find('\n', first), text.size());
        lines.push_back(text.substr(first, end - first));
        first = end + 1;
    }
    return lines;
}

/// The parts of a text between separators, empty ones included.
inline std::vector<std::string> parts_of(std::string_view text, char separator) {
    std::vector<std::string> parts;
    for (std::size_t first = 0;;) {
        const std::size_t end = text.find(separator, first);
        parts.emplace_back(text.substr(first, end - first));
        if (end == std::string_view::npos) return parts;
        first = end + 1;
    }
}

/// Whether `word` is in a list such as "cpu,cpuacct".
inline bool lists_word(std::string_view list, std::string_view word) {
    const std::vector<std::string> words = parts_of(list, ',');
    return std::find(words.begin(), words.end(), word) != words.end();
}

/// The number that a line starts with; -1 if there is none, as in "max 100000".
inline long long number_of(std::string_view line) {
    long long number = -1;
    std::from_chars(line.data(), line.data() + line.size(), number);
    return number;
}

/// A hierarchy of control groups: where it is mounted, which group is the top there, and the group of this process.
struct ControlGroup {
    bool unified = false;  // version 2
    std::string mount_point;
    std::string top = "/";
    std::string group = "/";
};

/// A path of /proc/self/mountinfo, in which blanks are written as octal numbers.
inline std::string mount_path(std::string_view escaped) {
    std::string path;
    for (std::size_t i = 0; i < escaped.size(); ++i) {
        unsigned code = 0;
        if (escaped[i] == '\\' && i + 3 < escaped.size() &&
            std::from_chars(&escaped[i + 1], &escaped[i + 1] + 3, code, 8).ec == std::errc()) {
            path += static_cast<char>(code);
            i += 3;
        } else {
            path += escaped[i];
        }
    }
    return path;
}

/// The hierarchies that can limit CPU time, of version 1 and 2; both may be there.
inline std::vector<ControlGroup> control_groups(const std::string& root) {
    std::vector<ControlGroup> groups;
    for (const std::string& line : lines_of(root + "/proc/self/mountinfo")) {
        // id parent device top mount_point options... - type source super_options
        const std::size_t dash = line.find(" - ");
        if (dash == std::string::npos) continue;
        const auto before = parts_of(std::string_view(line).substr(0, dash), ' ');
        const auto after = parts_of(std::string_view(line).substr(dash + 3), ' ');
        if (before.size() < 5 || after.size() < 3) continue;
        const bool unified = after[0] == "cgroup2";
        if (!unified && !(after[0] == "cgroup" && lists_word(after[2], "cpu"))) continue;
        groups.push_back({unified, mount_path(before[4]), mount_path(before[3])});
    }
    if (groups.empty()) {
        groups = {{true, "/sys/fs/cgroup"}, {false, "/sys/fs/cgroup/cpu"}, {false, "/sys/fs/cgroup/cpu,cpuacct"}};
    }
    for (const std::string& line : lines_of(root + "/proc/self/cgroup")) {
        // id:controllers:group; version 2 has no controllers
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
        for (ControlGroup& group : groups) {
            if (group.unified ? controllers.empty() : lists_word(controllers, "cpu"))
                group.group = line.substr(second + 1);
        }
    }
    return groups;
}

/// The CPUs that one control group grants, rounded up; 0 if it sets no limit.
inline int granted_cpus(const std::string& folder, bool unified) {
    long long quota = -1;
    long long period = -1;
    if (unified) {
        const auto lines = lines_of(folder + "/cpu.max");
        if (lines.empty()) return 0;
        quota = number_of(lines[0]);
        period = number_of(std::string_view(lines[0]).substr(std::min(lines[0].find(' '), lines[0].size() - 1) + 1));
    } else {
        const auto quotas = lines_of(folder + "/cpu.cfs_quota_us");
        const auto periods = lines_of(folder + "/cpu.cfs_period_us");
        if (quotas.empty() || periods.empty()) return 0;
        quota = number_of(quotas[0]);
        period = number_of(periods[0]);
    }
    if (quota <= 0 || period <= 0) return 0;
    constexpr long long most = 1 << 20;
    return static_cast<int>(std::min((quota - 1) / period + 1, most));
}

/// The CPUs that the control groups of this process and all above them grant, rounded up: the `--cpus` of a container.
/// 0 if there is no limit. `root` is the folder that has `proc` and `sys`.
/// Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/, proc(5).
inline int cpu_quota(const std::string& root = "") {
    int least = 0;
    for (const ControlGroup& group : control_groups(root)) {
        // what is below the mount's top; a group elsewhere is not seen from here
        std::string below = group.group;
        if (group.top != "/") {
            const bool inside =
                below.starts_with(group.top) && (below.size() == group.top.size() || below[group.top.size()] == '/');
            below = inside ? below.substr(group.top.size()) : "";
        }
        if (below.starts_with("/..")) below.clear();
        while (true) {
            const int cpus = granted_cpus(root + group.mount_point + below, group.unified);
            if (cpus > 0) least = least > 0 ? std::min(least, cpus) : cpus;
            if (below.empty()) break;
            below.erase(below.rfind('/') == std::string::npos ? 0 : below.rfind('/'));
        }
    }
    return least;
}

}  // namespace detail
SD_NAMESPACE_END
