// Metrics for people who watch.
//
//     trains 90 epochs of 391 batches
//     epoch  1/90  loss 1.5432  accuracy 43.12 %  learning rate 0.1  1210 images/s  eval:  loss 1.2011
#pragma once

#include "sd/core/system.hpp"
#include "sd/logs/logger.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iomanip>
#include <iostream>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// Seconds of a clock that only goes forward.
inline double steady_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// 59 s as 0:59, an hour as 1:00:00, a day as 24:00:00.
inline std::string clock_text(double seconds) {
    const auto whole = static_cast<std::uint64_t>(std::llround(std::max(0.0, seconds)));
    const std::string hours = whole >= 3600 ? text(whole / 3600, ':') : "";
    return hours +
           text(std::setfill('0'), std::setw(hours.empty() ? 1 : 2), whole / 60 % 60, ':', std::setw(2), whole % 60);
}

/// What people call a metric: `accuracy/train` accuracy, `stochastic_depth/drop_rate` drop rate.
inline std::string metric_title(const Metric& metric) {
    std::string title = metric.name;
    for (const std::string_view split : {"/train", "/train_epoch", "/eval"}) {
        if (title.ends_with(split)) title.erase(title.size() - split.size());
    }
    title.erase(0, title.rfind('/') + 1);
    std::replace(title.begin(), title.end(), '_', ' ');
    return title;
}

/// A metric of one number as people read it, as in "accuracy 50.00 %"; nothing for any other metric.
inline std::string metric_text(const Metric& metric) {
    const std::string title = metric_title(metric);
    if (const auto* count = std::get_if<std::int64_t>(&metric.value)) return text(title, ' ', *count);
    const auto* number = std::get_if<double>(&metric.value);
    if (number == nullptr) return "";
    if (metric.name == "images_per_second") {
        return text(std::fixed, std::setprecision(*number < 100 ? 1 : 0), *number, " images/s");
    }
    if (title.find("accuracy") != std::string::npos) {
        return text(title, ' ', std::fixed, std::setprecision(2), 100 * *number, " %");
    }
    if (title.starts_with("loss")) return text(title, ' ', std::fixed, std::setprecision(4), *number);
    return text(title, ' ', std::setprecision(4), *number);
}

}  // namespace detail

/// Settings of a ConsoleLogger.
struct ConsoleOptions {
    std::ostream* out = &std::cout;            ///< where to; outlives the logger
    bool live = detail::output_is_terminal();  ///< show every batch in one line that is written over, as on a terminal
    std::function<double()> seconds = detail::steady_seconds;         ///< the clock behind speed and time left
    std::function<std::size_t()> columns = detail::terminal_columns;  ///< of the terminal
};

/// Writes a line for the start, for every epoch with its evaluation, for any other evaluation and for the end. On a
/// terminal one more line moves along with the batches and shows how much of the run is done and how long the rest will
/// take, by the speed since the start of this process.
///
/// A line shows the metrics of one number: those of its epoch, then of its last batch what the epoch's do not tell.
/// Accuracies are percent. The line for the start shows texts too.
class ConsoleLogger final : public LogDestination {
public:
    /// Throws std::invalid_argument without a stream or a clock.
    explicit ConsoleLogger(ConsoleOptions options = {}) : options_(std::move(options)) {
        if (options_.out == nullptr || !options_.seconds || !options_.columns) {
            refuse("ConsoleLogger", "options", "none", "a stream, a clock and a number of columns");
        }
    }
    /// Ends a line that is not finished, so that what the program says next stands on its own.
    ~ConsoleLogger() override {
        try {
            finish_lines();
        } catch (const std::exception&) {
            // Nobody is left to be told.
        }
    }

    /// Throws std::runtime_error if the stream fails, as does write().
    void start(const RunLength& run, const LogRecord& record) override {
        run_ = run;
        first_batch_ = record.timestamp.batch;
        started_ = options_.seconds();
        shown_ = started_;
        batch_metrics_.clear();
        std::string line = text("trains ", run.total_epochs(), run.total_epochs() == 1 ? " epoch" : " epochs", " of ",
                                run.batches_per_epoch, run.batches_per_epoch == 1 ? " batch" : " batches");
        if (run.total_batches % run.batches_per_epoch != 0) line += text(", ", run.total_batches, " in all");
        if (first_batch_ != 0) line += text(", from batch ", first_batch_, " on");
        line += metrics_text(record.metrics);
        for (const Metric& metric : record.metrics) {
            const auto* words = std::get_if<std::string>(&metric.value);
            if (words != nullptr) line += text("  ", detail::metric_title(metric), ' ', *words);
        }
        print(line);
    }
    void write(const LogRecord& record) override {
        switch (record.event) {
            case LogEvent::batch:
                return after_batch(record);
            case LogEvent::epoch:
                return after_epoch(record);
            case LogEvent::evaluation:
                return after_evaluation(record);
            case LogEvent::fit_end:
                return at_end(record);
            case LogEvent::fit_start:
                break;
        }
        refuse("ConsoleLogger::write", "event", to_string(record.event), "any but the start, which start() tells");
    }

private:
    static std::string metrics_text(std::span<const Metric> metrics) {
        std::string all;
        for (const Metric& metric : metrics) {
            const std::string one = detail::metric_text(metric);
            if (!one.empty()) all += "  " + one;
        }
        return all;
    }
    /// The metrics of an epoch, then those of its last batch that have other titles.
    [[nodiscard]] std::vector<Metric> of_epoch(std::span<const Metric> metrics) const {
        std::vector<Metric> all(metrics.begin(), metrics.end());
        for (const Metric& metric : batch_metrics_) {
            const auto same = [&](const Metric& other) {
                return detail::metric_title(other) == detail::metric_title(metric);
            };
            if (std::none_of(metrics.begin(), metrics.end(), same)) all.push_back(metric);
        }
        return all;
    }
    [[nodiscard]] std::string epoch_text(std::uint64_t epoch) const {
        const std::string total = std::to_string(run_.total_epochs());
        const std::string number = std::to_string(epoch);
        return text("epoch ", std::string(total.size() - std::min(total.size(), number.size()), ' '), number, '/',
                    total);
    }

    void after_batch(const LogRecord& record) {
        finish_epoch_line();
        batch_metrics_.assign(record.metrics.begin(), record.metrics.end());
        if (!options_.live) return;
        const double now = options_.seconds();
        const std::uint64_t done = record.timestamp.batch;
        if (now - shown_ < 0.1 && done != run_.total_batches) return;
        shown_ = now;
        const double left = static_cast<double>(run_.total_batches - std::min(done, run_.total_batches));
        const double pace = (now - started_) / static_cast<double>(done - first_batch_);
        std::string line = text(epoch_text(record.timestamp.epoch + 1), "  batch ", record.timestamp.batch_in_epoch,
                                '/', run_.batches_per_epoch, "  ", 100 * done / run_.total_batches, " %, ",
                                detail::clock_text(left * pace), " left", metrics_text(record.metrics));
        // A line that fills the last column would begin a new one.
        line.resize(std::min(line.size(), std::max<std::size_t>(options_.columns(), 2) - 1));
        put(text('\r', line, "\033[K"));
        live_line_ = true;
    }
    /// The line waits for the evaluation that may follow.
    void after_epoch(const LogRecord& record) {
        finish_epoch_line();
        epoch_line_ = epoch_text(record.timestamp.epoch) + metrics_text(of_epoch(record.metrics));
    }
    void after_evaluation(const LogRecord& record) {
        const std::string result = "  eval:" + metrics_text(record.metrics);
        if (epoch_line_) {  // of the same timestamp: a batch would have ended it
            print(*std::exchange(epoch_line_, std::nullopt) + result);
        } else {
            print(text("batch ", record.timestamp.batch, '/', run_.total_batches, result));
        }
    }
    void at_end(const LogRecord& record) {
        finish_epoch_line();
        const std::uint64_t done = record.timestamp.batch;
        const std::string time = detail::clock_text(options_.seconds() - started_);
        print(done >= run_.total_batches
                  ? text("finished after ", time)
                  : text("stopped at batch ", done, " of ", run_.total_batches, " after ", time));
    }

    void finish_epoch_line() {
        if (epoch_line_) print(*std::exchange(epoch_line_, std::nullopt));
    }
    void finish_lines() {
        finish_epoch_line();
        if (live_line_) put("\n");
    }
    /// A line of its own, in place of the live one.
    void print(const std::string& line) {
        put(text(live_line_ ? "\r\033[K" : "", line, '\n'));
        live_line_ = false;
    }
    void put(const std::string& characters) {
        if (!(*options_.out << characters << std::flush)) {
            throw std::runtime_error("console: writing: got an error of the stream, expected all characters written");
        }
    }

    ConsoleOptions options_;
    RunLength run_;
    std::uint64_t first_batch_ = 0;
    double started_ = 0;
    double shown_ = 0;                       ///< when the live line was last written
    bool live_line_ = false;                 ///< it is on the terminal now
    std::vector<Metric> batch_metrics_;      ///< of the last batch
    std::optional<std::string> epoch_line_;  ///< a finished epoch's, not yet printed
};

SD_NAMESPACE_END
