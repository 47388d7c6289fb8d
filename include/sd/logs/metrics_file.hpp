// A file of lines that grows while a run goes on, and that a resumed run cuts back.
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
class LineFile {
public:
    /// Opens the file, or makes an empty one. Throws std::runtime_error if that fails.
    explicit LineFile(std::filesystem::path path) : path_(std::move(path)), name_(path_.string()) {
        open();
        // Behind links, also those of /dev/stdout: replace() puts a file in the place of another, not of its link.
        std::error_code error;
        const std::filesystem::path file = std::filesystem::canonical(path_, error);
        if (!error && is_regular()) path_ = file;
    }

    /// What it was called.
    [[nodiscard]] const std::string& name() const { return name_; }

    /// Adds a line and its end, in one write. Throws std::runtime_error unless the system has taken all of it; none of
    /// it is in the file then.
    void append(std::string line) {
        line += '\n';
        try {
            write_all(file_->get(), std::as_bytes(std::span(line)), name_);
        } catch (...) {
            cut(content().rfind('\n') + 1);
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
    [[nodiscard]] bool is_regular() const {
        FileStatus status;
        if (!read_status(file_->get(), status)) fail("status");
        return status.is_regular;
    }
    [[noreturn]] void fail(const char* what) const { refuse_file(name_, what, system_message(), "a writable file"); }

    std::filesystem::path path_;
    std::string name_;  ///< for errors
    std::unique_ptr<FileDescriptor> file_;
};

/// What a line says of itself.
struct LinePosition {
    LogEvent event;
    std::uint64_t epoch;
    std::uint64_t batch;
};

/// How many bytes of the content, from `begin` on, are lines that a run resumed at `start` does not write again: those
/// up to its timestamp, but for an end of the run that was none, and an evaluation that is still to come. A last line
/// without its end does not count. `position_of(line, number)` reads a line; the first has the number given.
template <class PositionOf>
std::size_t size_until(const LogRecord& start, std::string_view content, std::size_t begin, std::size_t number,
                       const PositionOf& position_of) {
    while (true) {
        const std::size_t end = content.find('\n', begin);
        if (end == std::string_view::npos) return begin;
        const LinePosition position = position_of(content.substr(begin, end - begin), number);
        if (position.event == LogEvent::fit_end) return begin;
        const std::pair here(position.epoch, position.batch), last(start.timestamp.epoch, start.timestamp.batch);
        if (here > last) return begin;
        if (here == last && position.event == LogEvent::evaluation && start.evaluation_is_pending) return begin;
        begin = end + 1;
        ++number;
    }
}

}  // namespace detail
SD_NAMESPACE_END
