// Where the training tool logs: what `console,jsonl:FILE,csv:FILE,tensorboard:DIR` stands for.
#pragma once

#include "sd/logs/console_logger.hpp"
#include "sd/logs/csv_logger.hpp"
#include "sd/logs/json_lines_logger.hpp"
#include "sd/logs/tensorboard_logger.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace tools {

/// A destination of the log: `console`, `jsonl` or `csv` with a file, or `tensorboard` with a folder.
struct LogName {
    std::string kind;
    std::string file;

    friend bool operator==(const LogName&, const LogName&) = default;
};

/// The destinations in a list with commas between them. Throws std::invalid_argument for an unknown one, one without
/// its file, or one twice; opens nothing.
inline std::vector<LogName> parse_logs(std::string_view list) {
    const auto fail = [&](std::string_view item) {
        sd::refuse("--log", "destination", sd::text('"', item, '"'),
                   "console, jsonl:FILE, csv:FILE or tensorboard:DIR, each once, with commas between them");
    };
    std::vector<LogName> names;
    while (true) {
        const std::size_t comma = list.find(',');
        const std::string_view item = list.substr(0, comma);
        const std::size_t colon = item.find(':');
        const LogName name{std::string(item.substr(0, colon)),
                           std::string(colon == std::string_view::npos ? "" : item.substr(colon + 1))};
        const bool is_file = name.kind == "jsonl" || name.kind == "csv" || name.kind == "tensorboard";
        if (is_file ? name.file.empty() : item != "console") fail(item);
        const auto same = [&](const LogName& other) { return is_file ? other.file == name.file : other == name; };
        if (std::any_of(names.begin(), names.end(), same)) fail(item);
        names.push_back(name);
        if (comma == std::string_view::npos) return names;
        list.remove_prefix(comma + 1);
    }
}

/// Where the settings of a run stand beside a file of its log: run.settings.toml beside run.jsonl, settings.toml in
/// TensorBoard's folder. Nothing for the console, a pipe or a device.
inline std::optional<std::filesystem::path> settings_beside(const LogName& name) {
    const std::filesystem::path file(name.file);
    if (name.kind == "tensorboard") return file / "settings.toml";
    std::error_code error;
    const auto status = std::filesystem::status(file, error);
    const bool keeps_nothing = std::filesystem::exists(status) && !std::filesystem::is_regular_file(status);
    if (name.kind == "console" || keeps_nothing) return std::nullopt;
    return std::filesystem::path(file).replace_extension(".settings.toml");
}

/// Destinations of a log.
using Logs = std::vector<std::shared_ptr<sd::LogDestination>>;

/// Opens the destinations of a list; `on_terminal`: standard output may be one, whatever it says of itself. Throws
/// std::invalid_argument as parse_logs does, std::runtime_error for a file that cannot be written.
inline Logs open_logs(std::string_view list, bool on_terminal = true) {
    sd::ConsoleOptions console;
    console.live = console.live && on_terminal;
    Logs destinations;
    for (const LogName& name : parse_logs(list)) {
        if (name.kind == "console") destinations.push_back(std::make_shared<sd::ConsoleLogger>(console));
        if (name.kind == "jsonl") destinations.push_back(std::make_shared<sd::JsonLinesLogger>(name.file));
        if (name.kind == "tensorboard") destinations.push_back(std::make_shared<sd::TensorBoardLogger>(name.file));
        if (name.kind == "csv") sd::expect_writable(name.file);  // no device: a late column writes it again
        if (name.kind == "csv") destinations.push_back(std::make_shared<sd::CsvLogger>(name.file));
    }
    return destinations;
}

}  // namespace tools
