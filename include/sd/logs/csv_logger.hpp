// Metrics as a table of comma-separated values.
//
//     event,epoch,batch,sample,loss/train,stochastic_depth/kept_fraction[0],stochastic_depth/kept_fraction[1]
//     batch,0,1,128,2.3,1,0.5
#pragma once

#include "sd/core/number_text.hpp"
#include "sd/logs/metrics_file.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

SD_NAMESPACE_BEGIN

/// Writes one row for every record that has metrics: `event`, the finished `epoch`s, `batch`es and `sample`s, then a
/// column a metric, and for a metric of several numbers a column a number, `name[0]` and so on. A metric that a record
/// lacks is an empty cell. A column, once there, keeps its place; a metric that comes up later gets a new one on the
/// right, for which the file is written again, whole or not at all. Numbers read back to the same bits; nan and inf are
/// written so.
///
/// A run that starts anew empties the file. A resumed one removes what was written after its checkpoint, half a line at
/// the end included, and goes on: but for values measured by the clock the file is then the uninterrupted run's.
class CsvLogger final : public LogDestination {
public:
    /// Throws std::runtime_error if the file can neither be opened nor made, or no other be written in its directory.
    explicit CsvLogger(std::filesystem::path path) : file_(std::move(path)) { file_.expect_replaceable(); }

    /// Throws std::runtime_error, if the run is a resumed one, for a file that is not such a table; it is then left
    /// alone.
    void start(const RunLength& /*run*/, const LogRecord& record) override {
        columns_.clear();
        if (record.timestamp != Timestamp{}) cut_back(record);
        if (!columns_.empty()) return;
        file_.cut(0);
        write(record);
    }
    void write(const LogRecord& record) override {
        if (record.metrics.empty()) return;
        std::vector<std::string> columns = columns_;
        std::vector<std::string> cells(columns.size());
        for (const auto& [name, value] : named_cells(record.metrics)) {
            const auto place =
                static_cast<std::size_t>(std::find(columns.begin(), columns.end(), name) - columns.begin());
            if (place == columns.size()) {
                columns.push_back(name);
                cells.emplace_back();
            }
            cells[place] = value;
        }
        if (columns.size() != columns_.size()) {
            if (columns_.empty()) {
                file_.append(header(columns) + '\n');
            } else {
                file_.replace(table(file_.content(), columns_.size(), columns));
            }
            columns_ = std::move(columns);
        }
        std::string row = text(to_string(record.event), ',', record.timestamp.epoch, ',', record.timestamp.batch, ',',
                               record.timestamp.sample);
        for (const std::string& cell : cells) row += ',' + cell;
        file_.append(row + '\n');
    }
    void flush() override { file_.flush(); }

private:
    static constexpr std::string_view fixed_columns = "event,epoch,batch,sample";

    /// Every cell of the metrics with the name of its column.
    [[nodiscard]] static std::vector<std::pair<std::string, std::string>> named_cells(std::span<const Metric> metrics) {
        std::vector<std::pair<std::string, std::string>> cells;
        for (const auto& [name, value] : metrics) {
            if (const auto* numbers = std::get_if<std::vector<double>>(&value)) {
                for (std::size_t i = 0; i < numbers->size(); ++i) {
                    cells.emplace_back(text(name, '[', i, ']'), detail::number_text((*numbers)[i]));
                }
            } else if (const auto* words = std::get_if<std::string>(&value)) {
                cells.emplace_back(name, quoted(*words));
            } else if (const auto* count = std::get_if<std::int64_t>(&value)) {
                cells.emplace_back(name, std::to_string(*count));
            } else {
                cells.emplace_back(name, detail::number_text(std::get<double>(value)));
            }
        }
        return cells;
    }
    /// In quotes, which are doubled inside; a row stays one line, so that control characters become spaces.
    [[nodiscard]] static std::string quoted(const std::string& words) {
        std::string cell = "\"";
        for (const char c : words) {
            if (c == '"') cell += '"';
            cell += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
        }
        return cell + '"';
    }

    [[nodiscard]] static std::string header(const std::vector<std::string>& columns) {
        std::string line(fixed_columns);
        for (const std::string& column : columns) line += ',' + column;
        return line;
    }
    /// The content with these columns in place of its `known` ones: more on the right, or fewer, if the others are
    /// empty.
    [[nodiscard]] static std::string table(std::string_view content, std::size_t known,
                                           const std::vector<std::string>& columns) {
        const std::size_t more = std::max(columns.size(), known) - known;
        const std::size_t fewer = std::max(columns.size(), known) - columns.size();
        std::string changed = header(columns) + '\n';
        for (std::size_t begin = content.find('\n') + 1; begin < content.size();) {
            const std::size_t end = content.find('\n', begin);
            changed.append(content.substr(begin, end - begin - fewer)).append(more, ',') += '\n';
            begin = end + 1;
        }
        return changed;
    }

    /// How many of the last columns are empty in all rows.
    [[nodiscard]] static std::size_t empty_columns(std::string_view rows) {
        std::size_t fewest = std::string_view::npos;
        for (std::size_t begin = 0; begin < rows.size();) {
            const std::size_t end = rows.find('\n', begin);
            const std::size_t last = rows.substr(0, end).find_last_not_of(',');
            fewest = std::min(fewest, end - 1 - last);
            begin = end + 1;
        }
        return fewest;
    }
    /// Removes the rows after where the run starts and the columns that only they filled; sets columns_ to the others.
    void cut_back(const LogRecord& start) {
        const std::string content = file_.content();
        const std::size_t header_end = content.find('\n');
        if (header_end == std::string::npos) return;
        const std::string_view first = std::string_view(content).substr(0, header_end);
        if (!first.starts_with(text(fixed_columns, ','))) {
            refuse_file(file_.name(), "first line", text('"', first.substr(0, 80), '"'), text(fixed_columns, ",..."));
        }
        const std::vector<std::string_view> names = split(first);
        std::vector<std::string> columns(names.begin() + 4, names.end());
        const std::size_t known = columns.size();
        const std::size_t kept =
            detail::size_until(start, content, header_end + 1, 2,
                               [this](std::string_view row, std::size_t number) { return position(row, number); });
        const std::size_t filled =
            known -
            std::min(known, empty_columns(std::string_view(content).substr(header_end + 1, kept - header_end - 1)));
        columns.resize(filled);
        if (filled == known) {
            file_.cut(kept);
        } else {
            file_.replace(table(std::string_view(content).substr(0, kept), known, columns));
        }
        columns_ = std::move(columns);
    }
    [[nodiscard]] static std::vector<std::string_view> split(std::string_view line) {
        std::vector<std::string_view> cells;
        while (true) {
            const std::size_t comma = line.find(',');
            cells.push_back(line.substr(0, comma));
            if (comma == std::string_view::npos) return cells;
            line.remove_prefix(comma + 1);
        }
    }
    /// Reads where a row belongs.
    [[nodiscard]] detail::RecordPosition position(std::string_view line, std::size_t number) const {
        const std::vector<std::string_view> cells = split(line);
        const auto fail = [&] {
            refuse_file(file_.name(), text("line ", number), text('"', line.substr(0, 80), '"'),
                        "a row of event, epoch, batch and sample");
        };
        if (cells.size() < 4) fail();
        const auto count = [&](std::string_view cell) {
            std::uint64_t value = 0;
            const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
            if (error != std::errc() || end != cell.data() + cell.size()) fail();
            return value;
        };
        try {
            return {parse<LogEvent>(cells[0]), count(cells[1]), count(cells[2])};
        } catch (const std::invalid_argument&) {
            fail();
        }
        return {};
    }

    detail::LogFile file_;
    std::vector<std::string> columns_;  ///< after the fixed ones
};

SD_NAMESPACE_END
