// A library to preload, under which a system call of the program fails or is its last: what a full disk, a failing one
// or a kill do, at a place that can be chosen. Calls that touch files under one folder are counted, from 1:
//
//     SD_FAULT_DIRECTORY    the folder, as an absolute path
//     SD_FAULT_CALL         the number of the call that fails; none: all are only counted
//     SD_FAULT_KIND         error      it returns -1 and errno is SD_FAULT_ERRNO
//                           short      it writes half of the bytes, the next write fails as above
//                           kill       SIGKILL instead of it
//                           killed     SIGKILL after it
//                           interrupt  SIGINT before it, as by Ctrl-C; then it goes on
//                           terminate  SIGTERM before it; then it goes on
//                           directory  of every directory, fsync returns -1 and errno is SD_FAULT_ERRNO
//     SD_FAULT_LOG          a file that gets a line for every counted call
//
// Calls are counted where a library asks for them, so those inside of the C library itself are not.
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

namespace {

std::string setting(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

/// What the environment asks for; not destroyed, since files are closed until the very end.
struct Plan {
    std::string directory = setting("SD_FAULT_DIRECTORY");
    long call = std::atol(setting("SD_FAULT_CALL").c_str());
    std::string kind = setting("SD_FAULT_KIND");
    int error = std::atoi(setting("SD_FAULT_ERRNO").c_str());
    std::string log = setting("SD_FAULT_LOG");
    std::atomic<long> calls = 0;
    std::array<std::atomic<bool>, 4096> is_watched{};  ///< by file descriptor
};
Plan& plan() {
    static Plan* const only = new Plan;
    return *only;
}

template <class Function>
Function* next(const char* name) {
    return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

bool is_watched(const char* path) {
    return !plan().directory.empty() && std::string_view(path).starts_with(plan().directory);
}
bool is_watched(int descriptor) {
    return descriptor >= 0 && descriptor < static_cast<int>(plan().is_watched.size()) &&
           plan().is_watched[static_cast<std::size_t>(descriptor)];
}
void watch(int descriptor, bool on) {
    if (descriptor >= 0 && descriptor < static_cast<int>(plan().is_watched.size())) {
        plan().is_watched[static_cast<std::size_t>(descriptor)] = on;
    }
}

void log_call(long number, const char* name) {
    if (plan().log.empty()) return;
    const int file = next<int(const char*, int, ...)>("open")(plan().log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
    std::array<char, 64> line{};
    const int size = std::snprintf(line.data(), line.size(), "%ld %s\n", number, name);
    if (next<ssize_t(int, const void*, std::size_t)>("write")(file, line.data(), static_cast<std::size_t>(size)) !=
        size) {
        std::abort();
    }
    next<int(int)>("close")(file);
}

enum class Fate { normal, error, half };

/// Counts a call and says what becomes of it.
Fate fate_of(const char* name) {
    static std::atomic<bool> next_write_fails = false;
    const long number = ++plan().calls;
    log_call(number, name);
    if (std::string_view(name) == "write" && next_write_fails.exchange(false)) return Fate::error;
    if (number != plan().call) return Fate::normal;
    if (plan().kind == "kill") std::raise(SIGKILL);
    if (plan().kind == "interrupt") std::raise(SIGINT);
    if (plan().kind == "terminate") std::raise(SIGTERM);
    if (plan().kind == "short" && std::string_view(name) == "write") {
        next_write_fails = true;
        return Fate::half;
    }
    return plan().kind == "error" ? Fate::error : Fate::normal;
}

template <class Result>
Result done(Result result) {
    if (plan().kind == "killed" && plan().calls == plan().call) std::raise(SIGKILL);
    return result;
}

template <class Call>
auto unless_it_fails(bool is_counted, const char* name, const Call& call) -> decltype(call()) {
    if (!is_counted) return call();
    if (fate_of(name) == Fate::error) {
        errno = plan().error;
        return -1;
    }
    return done(call());
}

int open_file(const char* name, const char* path, int flags, mode_t mode) {
    return unless_it_fails(is_watched(path), "open", [&] {
        const int descriptor = next<int(const char*, int, ...)>(name)(path, flags, mode);
        watch(descriptor, is_watched(path));
        return descriptor;
    });
}

mode_t mode_after(int flags, std::va_list list) {
    return (flags & O_CREAT) != 0 ? static_cast<mode_t>(va_arg(list, unsigned)) : mode_t{0};
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
    std::va_list list;
    va_start(list, flags);
    const mode_t mode = mode_after(flags, list);
    va_end(list);
    return open_file("open", path, flags, mode);
}

int open64(const char* path, int flags, ...) {
    std::va_list list;
    va_start(list, flags);
    const mode_t mode = mode_after(flags, list);
    va_end(list);
    return open_file("open64", path, flags, mode);
}

ssize_t read(int descriptor, void* bytes, std::size_t size) {
    return unless_it_fails(is_watched(descriptor), "read",
                           [&] { return next<ssize_t(int, void*, std::size_t)>("read")(descriptor, bytes, size); });
}

ssize_t write(int descriptor, const void* bytes, std::size_t size) {
    auto* const real = next<ssize_t(int, const void*, std::size_t)>("write");
    if (!is_watched(descriptor)) return real(descriptor, bytes, size);
    const Fate fate = fate_of("write");
    if (fate == Fate::error) {
        errno = plan().error;
        return -1;
    }
    return done(real(descriptor, bytes, fate == Fate::half ? (size + 1) / 2 : size));
}

int fsync(int descriptor) {
    struct ::stat status {};
    const bool is_directory = ::fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode);
    if (is_directory && is_watched(descriptor) && plan().kind == "directory") {
        errno = plan().error;
        return -1;
    }
    return unless_it_fails(is_watched(descriptor), "fsync", [&] { return next<int(int)>("fsync")(descriptor); });
}

// A failing close has closed all the same.
int close(int descriptor) {
    const bool is_counted = is_watched(descriptor);
    const Fate fate = is_counted ? fate_of("close") : Fate::normal;
    watch(descriptor, false);
    const int result = next<int(int)>("close")(descriptor);
    if (!is_counted) return result;
    if (fate == Fate::error) {
        errno = plan().error;
        return -1;
    }
    return done(result);
}

int ftruncate(int descriptor, off_t size) noexcept {
    return unless_it_fails(is_watched(descriptor), "ftruncate",
                           [&] { return next<int(int, off_t)>("ftruncate")(descriptor, size); });
}

int rename(const char* from, const char* to) noexcept {
    return unless_it_fails(is_watched(to), "rename",
                           [&] { return next<int(const char*, const char*)>("rename")(from, to); });
}

int unlink(const char* path) noexcept {
    return unless_it_fails(is_watched(path), "unlink", [&] { return next<int(const char*)>("unlink")(path); });
}

int remove(const char* path) noexcept {
    return unless_it_fails(is_watched(path), "remove", [&] { return next<int(const char*)>("remove")(path); });
}

int mkdir(const char* path, mode_t mode) noexcept {
    return unless_it_fails(is_watched(path), "mkdir",
                           [&] { return next<int(const char*, mode_t)>("mkdir")(path, mode); });
}

}  // extern "C"
