// What differs between systems: files and the terminal. POSIX, and Windows as MinGW-w64 has it. Functions that can fail
// return -1 or false, and errno says why.
#pragma once

#include "sd/core/config.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

#if defined(_WIN32)
#include <io.h>
#include <share.h>
#include <system_error>
#else
#include <sys/ioctl.h>
#endif

SD_NAMESPACE_BEGIN
namespace detail {

/// What an open file is, and its size.
struct FileStatus {
    bool is_regular = false;
    bool is_directory = false;
    std::uint64_t size = 0;
};

#if defined(_WIN32)

/// Opens a file with the flags of open(), for its bytes as they are.
inline int open_file(const std::filesystem::path& path, int flags) {
    int descriptor = -1;
    ::_wsopen_s(&descriptor, path.c_str(), flags | _O_BINARY | _O_NOINHERIT, _SH_DENYNO, _S_IREAD | _S_IWRITE);
    return descriptor;
}
/// Opens a file to read it, without waiting for a pipe's other end.
inline int open_to_read(const std::filesystem::path& path) { return open_file(path, O_RDONLY); }
/// What an open file is; false if that cannot be told.
inline bool read_status(int descriptor, FileStatus& status) {
    struct ::_stat64 found {};
    if (::_fstat64(descriptor, &found) != 0) return false;
    status = {S_ISREG(found.st_mode), S_ISDIR(found.st_mode), static_cast<std::uint64_t>(found.st_size)};
    return true;
}
/// Forgets what comes after so many bytes.
inline bool cut_file(int descriptor, std::uint64_t size) {
    return ::_chsize_s(descriptor, static_cast<std::int64_t>(size)) == 0;
}
/// Brings what was written to an open file to the disk.
inline bool synchronise(int descriptor) { return ::_commit(descriptor) == 0; }
/// Brings the names in a directory to the disk: Windows does so unasked.
inline bool synchronise_names(const std::filesystem::path&) { return true; }
/// Gives a file another name, in place of a file that has it.
inline bool replace_file(const std::filesystem::path& from, const std::filesystem::path& to) {
    std::error_code error;
    std::filesystem::rename(from, to, error);
    errno = error.default_error_condition().value();
    return !error;
}
/// Removes a file.
inline bool remove_file(const std::filesystem::path& path) { return ::_wunlink(path.c_str()) == 0; }

/// Whether standard output is a terminal on which lines can be written over: not every console here can.
inline bool output_is_terminal() { return false; }
/// Columns of the terminal at standard output, 80 if they are not known.
inline std::size_t terminal_columns() { return 80; }

#else

/// Opens a file with the flags of open(), for its bytes as they are.
inline int open_file(const std::filesystem::path& path, int flags) {
    return ::open(path.c_str(), flags | O_CLOEXEC, 0666);
}
/// Opens a file to read it, without waiting for a pipe's other end.
inline int open_to_read(const std::filesystem::path& path) { return open_file(path, O_RDONLY | O_NONBLOCK); }
/// What an open file is; false if that cannot be told.
inline bool read_status(int descriptor, FileStatus& status) {
    struct ::stat found {};
    if (::fstat(descriptor, &found) != 0) return false;
    status = {S_ISREG(found.st_mode), S_ISDIR(found.st_mode), static_cast<std::uint64_t>(found.st_size)};
    return true;
}
/// Forgets what comes after so many bytes.
inline bool cut_file(int descriptor, std::uint64_t size) {
    return ::ftruncate(descriptor, static_cast<::off_t>(size)) == 0;
}
/// Brings what was written to an open file to the disk.
inline bool synchronise(int descriptor) { return ::fsync(descriptor) == 0; }
/// Brings the names in a directory to the disk.
inline bool synchronise_names(const std::filesystem::path& directory) {
    const int descriptor = open_file(directory, O_RDONLY | O_DIRECTORY);
    if (descriptor < 0) return false;
    const bool is_done = synchronise(descriptor);
    const int error = errno;
    ::close(descriptor);
    errno = error;
    return is_done;
}
/// Gives a file another name, in place of a file that has it.
inline bool replace_file(const std::filesystem::path& from, const std::filesystem::path& to) {
    return ::rename(from.c_str(), to.c_str()) == 0;
}
/// Removes a file.
inline bool remove_file(const std::filesystem::path& path) { return ::unlink(path.c_str()) == 0; }

/// Whether standard output is a terminal on which lines can be written over.
inline bool output_is_terminal() { return ::isatty(STDOUT_FILENO) != 0; }
/// Columns of the terminal at standard output, 80 if they are not known.
inline std::size_t terminal_columns() {
    ::winsize size{};
    return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

#endif

/// The most bytes that one call reads or writes: Windows counts them in 32 bits.
inline constexpr std::size_t most_at_once = std::size_t{1} << 30;

/// Reads up to `size` bytes and says how many; 0 at the end.
inline std::ptrdiff_t read_some(int descriptor, void* bytes, std::size_t size) {
    return ::read(descriptor, bytes, static_cast<unsigned>(std::min(size, most_at_once)));
}
/// Writes up to `size` bytes and says how many.
inline std::ptrdiff_t write_some(int descriptor, const void* bytes, std::size_t size) {
    return ::write(descriptor, bytes, static_cast<unsigned>(std::min(size, most_at_once)));
}

}  // namespace detail
SD_NAMESPACE_END
