// Whole files, read and written with every error told.
#pragma once

#include "sd/core/error.hpp"
#include "sd/core/system.hpp"
#include "sd/core/warning.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// What the last failed system call says of itself.
inline std::string system_message() { return std::generic_category().message(errno); }

/// An open file, closed when it goes. -1 stands for none.
class FileDescriptor {
public:
    explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
    FileDescriptor(const FileDescriptor&) = delete;
    FileDescriptor& operator=(const FileDescriptor&) = delete;
    ~FileDescriptor() {
        if (descriptor_ >= 0) ::close(descriptor_);
    }

    [[nodiscard]] bool is_open() const { return descriptor_ >= 0; }
    [[nodiscard]] int get() const { return descriptor_; }

    /// Closes now, so that an error of closing is seen. False if there was one.
    [[nodiscard]] bool close() { return ::close(std::exchange(descriptor_, -1)) == 0; }

private:
    int descriptor_;
};

/// Removes a file when it goes, unless told to keep it.
class TemporaryFile {
public:
    explicit TemporaryFile(std::filesystem::path path) : path_(std::move(path)) {}
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    ~TemporaryFile() {
        if (!kept_) remove_file(path_);
    }
    void keep() { kept_ = true; }

private:
    std::filesystem::path path_;
    bool kept_ = false;
};

inline constexpr std::string_view temporary_prefix = ".sd-";
inline constexpr std::string_view temporary_suffix = ".tmp";

/// Whether a file has a name that create_temporary() gives.
inline bool is_temporary_name(std::string_view name) {
    return name.starts_with(temporary_prefix) && name.ends_with(temporary_suffix);
}

/// Opens a new file in the directory under a name that nobody else has; sets `path` to it.
inline int create_temporary(const std::filesystem::path& directory, std::filesystem::path& path) {
    static std::atomic<unsigned> counter{0};
    for (int attempt = 0; attempt < 1000; ++attempt) {
        path = directory / text(temporary_prefix, ::getpid(), '-', counter.fetch_add(1), temporary_suffix);
        const int descriptor = open_file(path, O_WRONLY | O_CREAT | O_EXCL);
        if (descriptor >= 0 || errno != EEXIST) return descriptor;
    }
    return -1;
}

inline void write_all(int descriptor, std::span<const std::byte> bytes, const std::filesystem::path& path) {
    while (!bytes.empty()) {
        const std::ptrdiff_t written = write_some(descriptor, bytes.data(), bytes.size());
        if (written < 0) {
            if (errno == EINTR) continue;
            refuse_file(path.string(), "writing", system_message(), text(bytes.size(), " more bytes written"));
        }
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
}

/// Brings the names in a directory to the disk. Where that cannot be done, by the file system or for lack of the right
/// to read the directory, the files in it are whole all the same: it is warned of, once per directory.
inline void synchronise_directory(const std::filesystem::path& directory) {
    if (synchronise_names(directory)) return;
    const std::string got = system_message();
    static std::mutex mutex;
    static std::set<std::filesystem::path> told;
    const std::lock_guard lock(mutex);
    if (!told.insert(directory).second) return;
    warn(text(directory.string(), ": synchronising the directory: got ", got, ", expected its names on the disk; ",
              "its files are whole, but after a loss of power it may have the older ones"));
}

/// The directory that a file is in.
inline std::filesystem::path directory_of(const std::filesystem::path& path) {
    return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

/// Opens a new file in the directory, and sets `temporary_path` to it. `path` names the file in errors that it is for.
inline int open_temporary(const std::filesystem::path& directory, std::filesystem::path& temporary_path,
                          const std::filesystem::path& path) {
    const int descriptor = create_temporary(directory, temporary_path);
    if (descriptor < 0) {
        refuse_file(path.string(), "creating a file in its directory", system_message(), "a writable directory");
    }
    return descriptor;
}

/// Refuses a directory in which no file can be written, by writing a small one, which then goes.
inline void expect_writable_directory(const std::filesystem::path& directory, const std::filesystem::path& path) {
    std::filesystem::path temporary_path;
    const FileDescriptor file(open_temporary(directory, temporary_path, path));
    const TemporaryFile temporary(temporary_path);
    const std::byte one{};
    write_all(file.get(), std::span(&one, 1), path);
}

}  // namespace detail

/// The bytes of a regular file.
/// Throws std::runtime_error if it is missing, not readable, not a regular file, or shrinks meanwhile.
[[nodiscard]] inline std::vector<std::byte> read_file(const std::filesystem::path& path) {
    const detail::FileDescriptor file(detail::open_to_read(path));
    if (!file.is_open()) refuse_file(path.string(), "opening", detail::system_message(), "a readable file");
    detail::FileStatus status;
    if (!detail::read_status(file.get(), status)) {
        refuse_file(path.string(), "status", detail::system_message(), "a readable file");
    }
    if (!status.is_regular) {
        refuse_file(path.string(), "kind of file", status.is_directory ? "a directory" : "a special file",
                    "a regular file");
    }
    std::vector<std::byte> bytes(static_cast<std::size_t>(status.size));
    std::size_t filled = 0;
    while (filled < bytes.size()) {
        const std::ptrdiff_t count = detail::read_some(file.get(), bytes.data() + filled, bytes.size() - filled);
        if (count < 0) {
            if (errno == EINTR) continue;
            refuse_file(path.string(), "reading", detail::system_message(), text(bytes.size(), " bytes"));
        }
        if (count == 0) refuse_file(path.string(), "bytes read", filled, bytes.size());
        filled += static_cast<std::size_t>(count);
    }
    return bytes;
}

/// Refuses a path that write_file_atomically() could not write: to be called before the work whose result goes there.
/// A file that is there stays as it is.
/// Throws std::runtime_error for a directory or a special file, or if its directory is missing or cannot be written.
inline void expect_writable(const std::filesystem::path& path) {
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(path, error);
    if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
        refuse_file(path.string(), "kind of file",
                    std::filesystem::is_directory(status) ? "a directory" : "a special file",
                    "a regular file, or none yet");
    }
    detail::expect_writable_directory(detail::directory_of(path), path);
}

/// Makes `path` a file of the pieces in their order, whole or not at all: they are written to a new file beside it and
/// synchronised with the disk, then that file takes the name, in place of one that had it before. After an error or a
/// crash the old file, if any, is still there.
/// Throws std::runtime_error if any step fails; the temporary file is then removed.
inline void write_file_atomically(const std::filesystem::path& path,
                                  std::span<const std::span<const std::byte>> pieces) {
    const std::filesystem::path directory = detail::directory_of(path);
    std::filesystem::path temporary_path;
    detail::FileDescriptor file(detail::open_temporary(directory, temporary_path, path));
    detail::TemporaryFile temporary(temporary_path);
    for (const std::span<const std::byte> piece : pieces) detail::write_all(file.get(), piece, path);
    if (!detail::synchronise(file.get()) || !file.close()) {
        refuse_file(path.string(), "writing", detail::system_message(), "all bytes on the disk");
    }
    if (!detail::replace_file(temporary_path, path)) {
        refuse_file(path.string(), "renaming the finished file", detail::system_message(), "a name for a regular file");
    }
    temporary.keep();
    detail::synchronise_directory(directory);
}

/// The same for a file of one piece.
inline void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes) {
    write_file_atomically(path, std::span<const std::span<const std::byte>>(&bytes, 1));
}

SD_NAMESPACE_END
