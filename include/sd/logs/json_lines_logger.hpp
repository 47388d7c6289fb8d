// Metrics as JSON lines. Needs nlohmann/json; not in sd.hpp.
//
//     {"event":"batch","epoch":0,"batch":1,"sample":128,"loss/train":2.3,"stochastic_depth/kept_fraction":[1.0,0.5]}
#pragma once

#include "sd/logs/metrics_file.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

SD_NAMESPACE_BEGIN

/// Writes one JSON object a line for every record that has metrics: `event`, the finished `epoch`s, `batch`es and
/// `sample`s, and the metrics under their names. Numbers read back to the same bits; JSON has no NaN and no infinity,
/// which become null. Each line is handed to the system whole before training goes on.
///
/// A run that starts anew empties the file. A resumed one removes what was written after its checkpoint, half a line at
/// the end included, and goes on: but for values measured by the clock the file is then the uninterrupted run's.
class JsonLinesLogger final : public LogDestination {
public:
    /// Throws std::runtime_error if the file can neither be opened nor made.
    explicit JsonLinesLogger(std::filesystem::path path) : file_(std::move(path)) {}

    /// Throws std::runtime_error, if the run is a resumed one, for a file whose lines are not such objects; it is then
    /// left alone.
    void start(const RunLength& /*run*/, const LogRecord& record) override {
        const std::size_t kept = record.timestamp == Timestamp{} ? 0 : size_until(record);
        file_.cut(kept);
        if (kept == 0) write(record);
    }
    void write(const LogRecord& record) override {
        if (record.metrics.empty()) return;
        nlohmann::ordered_json line{{"event", to_string(record.event)},
                                    {"epoch", record.timestamp.epoch},
                                    {"batch", record.timestamp.batch},
                                    {"sample", record.timestamp.sample}};
        for (const Metric& metric : record.metrics) {
            std::visit([&](const auto& value) { line[metric.name] = value; }, metric.value);
        }
        file_.append(line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n');
    }
    void flush() override { file_.flush(); }

private:
    /// How many bytes a run resumed at that timestamp keeps.
    [[nodiscard]] std::size_t size_until(const LogRecord& start) const {
        return detail::size_until(start, file_.content(), 0, 1, [this](std::string_view line, std::size_t number) {
            try {
                const auto object = nlohmann::json::parse(line);
                return detail::RecordPosition{parse<LogEvent>(object.at("event").get<std::string>()),
                                              object.at("epoch").get<std::uint64_t>(),
                                              object.at("batch").get<std::uint64_t>()};
            } catch (const std::exception& error) {
                refuse_file(file_.name(), text("line ", number), error.what(),
                            "a JSON object with event, epoch and batch");
            }
        });
    }

    detail::LogFile file_;
};

SD_NAMESPACE_END
