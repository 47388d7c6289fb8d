// What a run tells while it trains, and to whom.
#pragma once

#include "sd/core/error.hpp"
#include "sd/core/timestamp.hpp"

#include <algorithm>
#include <array>
#include <concepts>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

SD_NAMESPACE_BEGIN

/// The value of a metric: a number, a count, a text, or one number for each of several things, such as blocks.
using MetricValue = std::variant<double, std::int64_t, std::string, std::vector<double>>;

/// A named value. Names are paths such as `loss/train`.
struct Metric {
    std::string name;   ///< letters, digits, `_`, `-`, `.` and `/`; none of event, epoch, batch and sample
    MetricValue value;  ///< what was logged last under that name
};

/// When metrics are told.
enum class LogEvent {
    fit_start,   ///< before the first batch, or after a resume
    batch,       ///< after every batch
    epoch,       ///< after every epoch
    evaluation,  ///< after every evaluation
    fit_end      ///< when the run is finished or was interrupted in good order
};

namespace detail {

template <>
struct EnumNames<LogEvent> {
    static constexpr std::string_view setting = "event of a log";
    static constexpr EnumName<LogEvent> names[]{{LogEvent::fit_start, "fit_start"},
                                                {LogEvent::batch, "batch"},
                                                {LogEvent::epoch, "epoch"},
                                                {LogEvent::evaluation, "evaluation"},
                                                {LogEvent::fit_end, "fit_end"}};
};

}  // namespace detail

/// All metrics logged since the record before, in the order in which their names came first.
struct LogRecord {
    LogEvent event;                   ///< what has just happened
    Timestamp timestamp;              ///< what is finished by then
    std::span<const Metric> metrics;  ///< valid during the call only
    /// Of a start: the evaluation of the timestamp is still to come. A file forgets one that it was told.
    bool evaluation_is_pending = false;
};

/// Receives records. Everything is told in one thread.
class LogDestination {
public:
    LogDestination() = default;
    LogDestination(const LogDestination&) = delete;
    LogDestination& operator=(const LogDestination&) = delete;
    virtual ~LogDestination() = default;

    /// A run of that length starts, or goes on if the record's timestamp is not zero: a file then forgets what it was
    /// told after that timestamp and appends. The record's event is fit_start. Throws if it cannot be told.
    virtual void start(const RunLength& run, const LogRecord& record) = 0;
    /// Any other event. Returns when the record has left the process, so that a kill does not lose it. Throws if it
    /// cannot be told.
    virtual void write(const LogRecord& record) = 0;
    /// Returns when all records will survive a loss of power. Called before a checkpoint is written. Throws if it
    /// fails.
    virtual void flush() {}
};

/// Where algorithms and the trainer log. Values wait until the event that ends what they belong to: log() whenever,
/// then one of start() and write() by the trainer. Everything that belongs to a timestamp must be written before a
/// checkpoint of that timestamp is, or a resumed run would tell it twice or never.
class Logger {
public:
    /// Tells nobody.
    Logger() = default;
    /// Throws std::invalid_argument for an empty pointer.
    explicit Logger(std::vector<std::shared_ptr<LogDestination>> destinations)
        : destinations_(std::move(destinations)) {
        for (const auto& destination : destinations_) {
            if (!destination) refuse("Logger", "destinations", "an empty pointer", "destinations of a log");
        }
    }

    /// Sets the value that the next record will have under that name. Throws std::invalid_argument for a name with
    /// other characters than letters, digits, `_`, `-`, `.` and `/`, without any, or that records have for fields of
    /// their own.
    void log(std::string_view name, MetricValue value) {
        expect_metric_name(name);
        const auto known =
            std::find_if(metrics_.begin(), metrics_.end(), [&](const Metric& metric) { return metric.name == name; });
        if (known == metrics_.end()) {
            metrics_.push_back({std::string(name), std::move(value)});
        } else {
            known->value = std::move(value);
        }
    }
    /// The same for any type of number, which is told as an integer if it is one.
    template <class Number>
    requires std::integral<Number> || std::floating_point<Number>
    void log(std::string_view name, Number value) {
        if constexpr (std::integral<Number>) {
            log(name, MetricValue(static_cast<std::int64_t>(value)));
        } else {
            log(name, MetricValue(static_cast<double>(value)));
        }
    }

    /// What was logged since the last record.
    [[nodiscard]] std::span<const Metric> pending() const { return metrics_; }
    /// The same, which then is not in the next record.
    [[nodiscard]] std::vector<Metric> take() { return std::exchange(metrics_, {}); }
    /// Logs all of them.
    void log(std::vector<Metric> metrics) {
        for (Metric& metric : metrics) log(metric.name, std::move(metric.value));
    }

    /// Tells all destinations that a run of that length starts here, with what was logged before.
    void start(const RunLength& run, const Timestamp& timestamp, bool evaluation_is_pending = false) {
        for (const auto& destination : destinations_) {
            destination->start(run, {LogEvent::fit_start, timestamp, metrics_, evaluation_is_pending});
        }
        metrics_.clear();
    }
    /// Tells all destinations of any other event, with what was logged since the last one.
    void write(LogEvent event, const Timestamp& timestamp) {
        for (const auto& destination : destinations_) destination->write({event, timestamp, metrics_, false});
        metrics_.clear();
    }
    /// Returns when everything told so far will survive a loss of power.
    void flush() {
        for (const auto& destination : destinations_) destination->flush();
    }

private:
    static void expect_metric_name(std::string_view name) {
        constexpr std::string_view allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./";
        constexpr std::array<std::string_view, 4> fields{"event", "epoch", "batch", "sample"};
        if (name.empty() || name.find_first_not_of(allowed) != std::string_view::npos) {
            refuse("Logger::log", "name", text('"', name, '"'), "letters, digits, _, -, . and /, as in loss/train");
        }
        if (std::find(fields.begin(), fields.end(), name) != fields.end()) {
            refuse("Logger::log", "name", name, "any but event, epoch, batch and sample, which every record has");
        }
    }

    std::vector<std::shared_ptr<LogDestination>> destinations_;
    std::vector<Metric> metrics_;
};

SD_NAMESPACE_END
