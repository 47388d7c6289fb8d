// A file that grows while a run goes on, and that a resumed run cuts back.
#pragma once

#include "sd/core/system.hpp"
#include "sd/io/file.hpp"
#include "sd/logs/logger.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

SD_NAMESPACE_BEGIN
namespace detail {

/// A file open for appending, or a pipe or a device, which keep nothing.
class LogFile {
public:
    /// Opens the file, or makes an empty one. Throws std::runtime_error if that fails.
    explicit LogFile(std::filesystem::path path) : path_(std::move(path)), name_(path_.string()) {
        open();
        // Behind links, also those of /dev/stdout: replace() puts a file in the place of another, not of its link.
        std::error_code error;
        const std::filesystem::path file = std::filesystem::canonical(path_, error);
        if (!error && is_regular()) path_ = file;
    }

    /// What it was called.
    [[nodiscard]] const std::string& name() const { return name_; }

    /// Adds a line with its end, or another record, in one write. Throws std::runtime_error unless the system has taken
    /// all of it; none of it is in the file then.
    void append(std::string_view record) {
        const std::uint64_t before = status().size;
        try {
            write_all(file_->get(), std::as_bytes(std::span<const char>(record)), name_);
        } catch (...) {
            cut(static_cast<std::size_t>(before));
            throw;
        }
    }
    /// All that is in it.
    [[nodiscard]] std::string content() const {
        if (!is_regular()) return {};
        const auto bytes = read_file(path_);
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    /// Forgets what comes after so many bytes: one system call, so that a crash leaves it as it was or as it shall be.
    void cut(std::size_t size) {
        if (is_regular() && !cut_file(file_->get(), size)) fail("cutting back");
    }
    /// Refuses a file that replace() could not write.
    void expect_replaceable() const {
        if (is_regular()) expect_writable_directory(directory_of(path_), name_);
    }
    /// Puts another content in its place, whole or not at all.
    void replace(const std::string& content) {
        if (!is_regular()) {
            refuse_file(name_, "writing it again, for a late column", "a pipe or a device", "a regular file");
        }
        write_file_atomically(path_, std::as_bytes(std::span(content)));
        open();
    }
    /// Returns when all of it is on the disk.
    void flush() {
        // Pipes and devices cannot be synchronised and say EINVAL.
        if (!synchronise(file_->get()) && errno != EINVAL) fail("synchronising");
    }

private:
    void open() {
        file_ = std::make_unique<FileDescriptor>(open_file(path_, O_WRONLY | O_CREAT | O_APPEND));
        if (!file_->is_open()) fail("opening");
    }
    [[nodiscard]] FileStatus status() const {
        FileStatus now;
        if (!read_status(file_->get(), now)) fail("status");
        return now;
    }
    [[nodiscard]] bool is_regular() const { return status().is_regular; }
    [[noreturn]] void fail(const char* what) const { refuse_file(name_, what, system_message(), "a writable file"); }

    std::filesystem::path path_;
    std::string name_;  ///< for errors
    std::unique_ptr<FileDescriptor> file_;
};

/// What a line or another record says of itself.
struct RecordPosition {
    LogEvent event;
    std::uint64_t epoch;
    std::uint64_t batch;
};

/// Whether a run resumed at `start` writes the record again: what comes after its timestamp, an end of the run that was
/// none, and an evaluation that is still to come.
inline bool comes_again(const LogRecord& start, const RecordPosition& record) {
    if (record.event == LogEvent::fit_end) return true;
    const std::pair here(record.epoch, record.batch), last(start.timestamp.epoch, start.timestamp.batch);
    return here > last || (here == last && record.event == LogEvent::evaluation && start.evaluation_is_pending);
}

/// How many bytes of the content, from `begin` on, are lines that a run resumed at `start` does not write again. A last
/// line without its end does not count. `position_of(line, number)` reads a line; the first has the number given.
template <class PositionOf>
std::size_t size_until(const LogRecord& start, std::string_view content, std::size_t begin, std::size_t number,
                       const PositionOf& position_of) {
    while (true) {
        const std::size_t end = content.find('\n', begin);
        if (end == std::string_view::npos) return begin;
        if (comes_again(start, position_of(content.substr(begin, end - begin), number))) return begin;
        begin = end + 1;
        ++number;
    }
}

}  // namespace detail
SD_NAMESPACE_END
