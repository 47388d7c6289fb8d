// The settings of a run as a file: TOML of one line a setting, named as on the command line.
//
//     data = "cifar10:DIR"
//     batch-size = 128
//     no-decay = ["norms_and_biases", "layer1."]
#pragma once

#include "sd/core/number_text.hpp"
#include "sd/io/file.hpp"
#include "sd/logs/logger.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tools {

namespace detail {

/// A value as TOML has it: true, false and numbers bare, all else in quotes.
inline std::string toml_value(const std::string& value) {
    const auto number = sd::detail::is_decimal(value) ? sd::detail::parse_finite(value) : std::nullopt;
    const bool is_whole = value.find_first_not_of("0123456789") == std::string::npos && !value.starts_with('0');
    if (value == "true" || value == "false") return value;
    if (number && (is_whole || sd::detail::number_text(*number) == value)) return value;
    std::string quoted = "\"";
    for (const char c : value) {
        if (c == '"' || c == '\\') quoted += '\\';
        quoted += c;
    }
    return quoted + '"';
}

/// Takes the parts of a line one after the other.
class LineReader {
public:
    explicit LineReader(std::string_view line) : rest_(line) { skip_blanks(); }

    /// Whether nothing but a comment is left.
    [[nodiscard]] bool at_end() const { return rest_.empty() || rest_.front() == '#'; }
    /// Takes that character if it comes next.
    bool take(char c) {
        if (!rest_.starts_with(c)) return false;
        rest_.remove_prefix(1);
        skip_blanks();
        return true;
    }
    /// The characters up to a blank, a comment or one that TOML writes between values; perhaps none.
    std::string word() {
        const std::size_t size = std::min(rest_.find_first_of(" \t\r#=,[]\"'"), rest_.size());
        std::string taken(rest_.substr(0, size));
        rest_.remove_prefix(size);
        skip_blanks();
        return taken;
    }
    /// A word, or what stands in quotes: in double ones \" and \\ are " and \. False if there is neither.
    bool value(std::string& taken) {
        const char quote = rest_.empty() ? '\0' : rest_.front();
        if (quote != '"' && quote != '\'') return !(taken = word()).empty();
        taken.clear();
        for (std::size_t i = 1; i < rest_.size(); ++i) {
            if (rest_[i] == quote) {
                rest_.remove_prefix(i + 1);
                skip_blanks();
                return !taken.empty();
            }
            if (quote == '"' && rest_[i] == '\\' && (++i == rest_.size() || (rest_[i] != '"' && rest_[i] != '\\'))) {
                return false;
            }
            taken += rest_[i];
        }
        return false;
    }

private:
    void skip_blanks() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r"), rest_.size())); }

    std::string_view rest_;
};

/// A setting of a file.
struct FileSetting {
    std::string name;
    std::vector<std::string> values;
};

/// The setting that a line is, none of a line without one. Throws std::runtime_error for any other line.
inline FileSetting read_line(const std::string& line, const std::string& file, std::size_t number) {
    const auto fail = [&] {
        sd::refuse_file(file, sd::text("line ", number), line, "NAME = VALUE or NAME = [VALUE, VALUE]");
    };
    LineReader reader(line);
    FileSetting setting;
    if (reader.at_end()) return setting;
    setting.name = reader.word();
    if (setting.name.empty() || !reader.take('=')) fail();
    const bool is_list = reader.take('[');
    do {
        std::string value;
        if (!reader.value(value)) fail();
        setting.values.push_back(std::move(value));
    } while (is_list && reader.take(','));
    if (is_list != reader.take(']') || !reader.at_end()) fail();
    return setting;
}

/// The setting as words of a command line; a flag that is false is none. `where`: file and line, for errors.
inline std::vector<std::string> words_of(const FileSetting& setting, const CLI::Option& option,
                                         const std::string& where) {
    std::vector<std::string> words;
    if (option.get_expected_max() == 0) {
        const std::string& value = setting.values.front();
        if (setting.values.size() != 1 || (value != "true" && value != "false")) {
            sd::refuse_file(where, setting.name, value, "true or false");
        }
        if (value == "true") words.push_back("--" + setting.name);
        return words;
    }
    for (const std::string& value : setting.values) words.push_back(sd::text("--", setting.name, '=', value));
    return words;
}

}  // namespace detail

/// Adds the options of a program, each to a variable of its own.
using AddOptions = std::function<void(CLI::App&)>;

/// Parses the words of a command line, the program's name not among them. Throws CLI::ParseError.
inline void parse_words(CLI::App& app, std::vector<std::string> words) {
    std::reverse(words.begin(), words.end());  // CLI11 takes the last one first
    app.parse(std::move(words));
}

/// The settings of a file as words of a command line, but for those in `given`, which win.
/// Throws std::runtime_error, with the line, for a file that cannot be read, a line that is none, a setting that the
/// program does not take from a file, one that comes twice, and a value that its option refuses.
inline std::vector<std::string> read_settings(const std::string& file, const std::vector<std::string>& given,
                                              const AddOptions& add_options) {
    const auto bytes = sd::read_file(file);
    const std::string_view content(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    std::vector<std::string> words;
    std::set<std::string> seen;
    std::size_t number = 0;
    for (std::size_t begin = 0; begin < content.size(); ++number) {
        const std::size_t end = std::min(content.find('\n', begin), content.size());
        const auto setting = detail::read_line(std::string(content.substr(begin, end - begin)), file, number + 1);
        begin = end + 1;
        if (setting.name.empty()) continue;
        const std::string line = sd::text("line ", number + 1), where = sd::text(file, ": ", line);
        CLI::App alone;
        add_options(alone);
        const CLI::Option* option = alone.get_option_no_throw("--" + setting.name);
        if (option == nullptr || !option->get_configurable()) {
            sd::refuse_file(file, line, setting.name, "a setting that --help lists, without its dashes");
        }
        if (!seen.insert(setting.name).second) sd::refuse_file(file, line, setting.name + " again", "each once");
        for (CLI::Option* any : alone.get_options({})) {  // what it needs may stand elsewhere
            for (CLI::Option* needed : any->get_needs()) any->remove_needs(needed);
        }
        const auto of_line = detail::words_of(setting, *option, where);
        try {
            parse_words(alone, of_line);
        } catch (const CLI::ParseError& error) {
            throw std::runtime_error(sd::text(where, ": ", error.what()));
        }
        const auto names_it = [&](const std::string& word) {
            return word == "--" + setting.name || word.starts_with(sd::text("--", setting.name, '='));
        };
        if (std::any_of(given.begin(), given.end(), names_it)) continue;
        words.insert(words.end(), of_line.begin(), of_line.end());
    }
    return words;
}

/// What read_settings() makes of a parsed program: the settings that were given and the defaults of the others, but for
/// those that need one that was not given, or whose default depends on others.
inline std::string settings_text(const CLI::App& app) {
    std::string all = "# The settings of a run; --config takes this file.\n";
    for (const CLI::Option* option : app.get_options({})) {
        const auto needed = option->get_needs();
        const auto is_missing = [](const CLI::Option* other) { return other->count() == 0; };
        if (!option->get_configurable() || std::any_of(needed.begin(), needed.end(), is_missing)) continue;
        std::vector<std::string> values = option->reduced_results();
        if (values.empty() && option->get_expected_max() == 0) values = {"false"};
        if (values.empty() && !option->get_default_str().empty()) values = {option->get_default_str()};
        if (values.empty()) continue;
        std::string list;
        for (const std::string& value : values) list += (list.empty() ? "" : ", ") + detail::toml_value(value);
        all += sd::text(option->get_single_name(), " = ", values.size() == 1 ? list : '[' + list + ']', '\n');
    }
    return all;
}

/// Writes the settings of a run to files when it starts or goes on, each whole or not at all.
class SettingsWriter final : public sd::LogDestination {
public:
    SettingsWriter(std::string settings, std::set<std::filesystem::path> files)
        : settings_(std::move(settings)), files_(std::move(files)) {}

    /// Throws std::runtime_error if a file cannot be written.
    void start(const sd::RunLength& /*run*/, const sd::LogRecord& /*record*/) override {
        for (const auto& file : files_) sd::write_file_atomically(file, std::as_bytes(std::span(settings_)));
    }
    void write(const sd::LogRecord& /*record*/) override {}

private:
    std::string settings_;
    std::set<std::filesystem::path> files_;
};

}  // namespace tools
