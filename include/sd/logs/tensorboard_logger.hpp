// Metrics as curves of TensorBoard: tensorboard --logdir DIR.
#pragma once

#include "sd/logs/event_file.hpp"
#include "sd/logs/metrics_file.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// Seconds since 1970.
inline double unix_seconds() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// A folder's file of events, which TensorBoard knows by this name; makes the folder, and those above it, if there is
/// none. Throws std::runtime_error if that fails.
inline std::filesystem::path event_file_in(const std::filesystem::path& directory) {
    std::error_code error;
    std::filesystem::create_directories(directory, error);
    if (error) refuse_file(directory.string(), "creating the folder", error.message(), "a folder for TensorBoard");
    return directory / "events.out.tfevents.sd";
}

}  // namespace detail

/// Writes one event for every record that has numbers to a file in a folder of the run's own. Its step is the number of
/// finished batches, and each metric is a scalar under its name; one of several numbers is several, `name[0]` and so on.
/// Values are floats, as TensorBoard has them; texts are left out. `Event.source_metadata.writer` says where the record
/// belongs: `sd EVENT EPOCH BATCH`.
///
/// A run that starts anew empties the file. A resumed one removes what was written after its checkpoint, half an event at
/// the end included, and goes on: but for the times of the events, and values measured by the clock, the file is then
/// the uninterrupted run's.
class TensorBoardLogger final : public LogDestination {
public:
    /// `seconds`: the clock behind the times of the events, in seconds since 1970. Throws std::runtime_error if folder or
    /// file can neither be opened nor made, std::invalid_argument without a clock.
    explicit TensorBoardLogger(const std::filesystem::path& directory,
                               std::function<double()> seconds = detail::unix_seconds)
        : seconds_(std::move(seconds)), file_(detail::event_file_in(directory)) {
        if (!seconds_) refuse("TensorBoardLogger", "clock", "none", "one");
    }

    /// Throws std::runtime_error, if the run is a resumed one, for a file whose events are not such; it is then left
    /// alone.
    void start(const RunLength& /*run*/, const LogRecord& record) override {
        const std::size_t kept =
            record.timestamp == Timestamp{} ? 0 : size_until(record, file_.content(), file_.name());
        file_.cut(kept);
        if (kept != 0) return;
        detail::ProtoMessage version;
        version.add_double(1, seconds_());
        version.add_bytes(3, "brain.Event:2");
        file_.append(detail::event_record(version.bytes()));
        write(record);
    }
    void write(const LogRecord& record) override {
        detail::ProtoMessage summary;
        for (const Metric& metric : record.metrics) add_scalars(summary, metric);
        if (summary.bytes().empty()) return;
        detail::ProtoMessage source, event;
        source.add_bytes(
            1, text(writer, to_string(record.event), ' ', record.timestamp.epoch, ' ', record.timestamp.batch));
        event.add_double(1, seconds_());
        // Protocol buffers leave out a zero.
        if (record.timestamp.batch != 0) event.add_varint(2, record.timestamp.batch);
        event.add_bytes(5, summary.bytes());
        event.add_bytes(10, source.bytes());
        file_.append(detail::event_record(event.bytes()));
    }
    void flush() override { file_.flush(); }

    /// How many bytes of such a file, called `name`, a run resumed at `start` keeps. Throws as start() does.
    [[nodiscard]] static std::size_t size_until(const LogRecord& start, std::string_view content,
                                                const std::string& name) {
        const auto version = detail::event_at(content, 0, name);
        if (!version) return 0;
        if (detail::bytes_field(*version, 3) != "brain.Event:2") refuse_event(name, 0, "an event of version 2");
        const std::size_t first = detail::size_of_record(*version);
        std::size_t kept = first;
        while (const auto event = detail::event_at(content, kept, name)) {
            if (detail::comes_again(start, position(*event, name, kept))) break;
            kept += detail::size_of_record(*event);
        }
        return kept == first ? 0 : kept;
    }

private:
    static constexpr std::string_view writer = "sd ";

    [[noreturn]] static void refuse_event(const std::string& name, std::size_t begin, const std::string& expected) {
        refuse_file(name, text("event at byte ", begin), "another one", expected);
    }

    static void add_scalars(detail::ProtoMessage& summary, const Metric& metric) {
        const auto add = [&](std::string_view tag, double number) {
            detail::ProtoMessage value;
            value.add_bytes(1, tag);
            value.add_float(2, static_cast<float>(number));
            summary.add_bytes(1, value.bytes());
        };
        if (const auto* numbers = std::get_if<std::vector<double>>(&metric.value)) {
            for (std::size_t i = 0; i < numbers->size(); ++i) add(text(metric.name, '[', i, ']'), (*numbers)[i]);
        } else if (const auto* count = std::get_if<std::int64_t>(&metric.value)) {
            add(metric.name, static_cast<double>(*count));
        } else if (const auto* number = std::get_if<double>(&metric.value)) {
            add(metric.name, *number);
        }
    }

    /// Reads where an event belongs.
    [[nodiscard]] static detail::RecordPosition position(std::string_view event, const std::string& name,
                                                         std::size_t begin) {
        const auto fail = [&] { refuse_event(name, begin, "one whose writer is \"sd EVENT EPOCH BATCH\""); };
        const auto source = detail::bytes_field(event, 10);
        std::string_view words = source ? detail::bytes_field(*source, 1).value_or("") : "";
        if (!words.starts_with(writer)) fail();
        words = words.substr(writer.size());
        const auto next = [&] {
            const std::string_view word = words.substr(0, words.find(' '));
            words.remove_prefix(std::min(word.size() + 1, words.size()));
            return word;
        };
        const auto count = [&](std::string_view word) {
            std::uint64_t value = 0;
            const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
            if (error != std::errc() || end != word.data() + word.size()) fail();
            return value;
        };
        try {
            const LogEvent kind = parse<LogEvent>(next());
            const std::uint64_t epoch = count(next());
            return {kind, epoch, count(words)};
        } catch (const std::invalid_argument&) {
            fail();
        }
        return {};
    }

    std::function<double()> seconds_;
    detail::LogFile file_;
};

SD_NAMESPACE_END
