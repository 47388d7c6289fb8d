// The only file that knows of OpenMP. Without it everything runs on the calling thread, with the same results.
#pragma once

#include "sd/core/cpu_quota.hpp"
#include "sd/core/shape.hpp"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <limits>
#include <utility>

#if defined(_OPENMP)
#include <omp.h>
#if __has_include(<pthread.h>) && !defined(_WIN32)
#define SD_HAS_FORK 1
#include <pthread.h>
#include <sys/stat.h>
#endif
#endif

SD_NAMESPACE_BEGIN

namespace detail {

/// How many SerialScope objects this thread has.
inline thread_local int serial_scopes = 0;

/// This thread's number in the innermost parallel loop.
inline thread_local Index loop_thread = 0;

/// Gives this thread a number for as long as it lives.
class LoopThread {
public:
    explicit LoopThread(Index number) : outer_(std::exchange(loop_thread, number)) {}
    ~LoopThread() { loop_thread = outer_; }
    LoopThread(const LoopThread&) = delete;
    LoopThread& operator=(const LoopThread&) = delete;

private:
    Index outer_;
};

#if defined(_OPENMP)

/// What the number of threads is if the program does not set it.
struct ThreadDefaults {
    bool by_environment = false;  // OMP_NUM_THREADS is there
    int processors = 1;           // of the affinity mask: OpenMP's own default
    int quota = 0;                // of the container; 0 if there is none
};

/// The threads of a loop where OpenMP would take `threads`. The quota counts unless the user chose a number.
inline int limited_threads(int threads, bool are_set, const ThreadDefaults& defaults) {
    const bool chosen = are_set || defaults.by_environment || threads != defaults.processors;
    return chosen || defaults.quota == 0 ? threads : std::min(threads, defaults.quota);
}

/// Whether this thread has called set_num_threads.
inline thread_local bool threads_are_set = false;

/// The threads of a loop that this thread starts.
inline int loop_threads() {
    static const ThreadDefaults defaults = [] {
        const char* number = std::getenv("OMP_NUM_THREADS");  // an empty one sets nothing
        return ThreadDefaults{number != nullptr && *number != '\0', omp_get_num_procs(), cpu_quota()};
    }();
    return limited_threads(omp_get_max_threads(), threads_are_set, defaults);
}

#endif

#if defined(SD_HAS_FORK)

/// Whether this process is a child that was forked from one with several threads. Only the thread that forks is in the
/// child, so an OpenMP team that its parent made would be waited for in vain.
inline bool forked_from_threads = false;
inline bool has_threads = false;

/// Asks to be told of forks, from the start of the program: teams may be made without this library.
inline const int fork_is_watched = pthread_atfork(
    [] {
        struct stat tasks;  // Linux: a folder for each thread beside "." and ".."
        has_threads = stat("/proc/self/task", &tasks) != 0 || tasks.st_nlink != 3;
    },
    nullptr, [] { forked_from_threads = forked_from_threads || has_threads; });

#else
inline constexpr bool forked_from_threads = false;
#endif

}  // namespace detail

/// While one lives, parallel loops that its thread starts run on that thread alone. For threads that a program starts
/// itself beside those of the loops, which would otherwise bring a whole team each.
class SerialScope {
public:
    SerialScope() { ++detail::serial_scopes; }
    ~SerialScope() { --detail::serial_scopes; }
    SerialScope(const SerialScope&) = delete;
    SerialScope& operator=(const SerialScope&) = delete;
};

/// Sets how many threads parallel_for may use; at least 1. Results do not depend on it. Without it, and without
/// OMP_NUM_THREADS, there are as many as the affinity mask and the container's CPU quota allow.
inline void set_num_threads(int count) {
    if (count < 1) refuse("set_num_threads", "number of threads", count, "1 or more");
#if defined(_OPENMP)
    omp_set_num_threads(count);
    detail::threads_are_set = true;
#endif
}

/// How many threads parallel_for may use; 1 in a SerialScope, and in a child that was forked from a process with
/// several threads.
[[nodiscard]] inline int num_threads() {
#if defined(_OPENMP)
    return detail::serial_scopes > 0 || detail::forked_from_threads ? 1 : detail::loop_threads();
#else
    return 1;
#endif
}

/// The number of the calling thread among those of the innermost parallel loop that it runs in, 0 to num_threads() - 1
/// as the caller of the loop sees it. For memory that each thread has for itself; results must not depend on it.
[[nodiscard]] inline Index thread_index() { return detail::loop_thread; }

namespace detail {

/// A loop's body without its type, so that the loop itself is compiled once for all bodies.
class LoopBody {
public:
    template <class Body>
    explicit LoopBody(const Body& body)
        : body_(&body), call_([](const void* that, Index i) { (*static_cast<const Body*>(that))(i); }) {}
    void operator()(Index i) const { call_(body_, i); }

private:
    const void* body_;
    void (*call_)(const void*, Index);
};

/// See parallel_for.
[[gnu::noinline]] inline void run_loop(Index count, const LoopBody& body) {
#if defined(_OPENMP)
    const int threads = count > 1 && !omp_in_parallel() ? num_threads() : 1;
    if (threads > 1) {
        std::exception_ptr error;
        Index error_index = std::numeric_limits<Index>::max();
#pragma omp parallel num_threads(threads)
        {
            const LoopThread number(omp_get_thread_num());
#pragma omp for schedule(dynamic, 1) nowait  // the end of the region waits already
            for (Index i = 0; i < count; ++i) {
                try {
                    body(i);
                } catch (...) {
#pragma omp critical(sd_parallel_for_error)
                    if (i < error_index) {
                        error_index = i;
                        error = std::current_exception();
                    }
                }
            }
        }
        if (error) std::rethrow_exception(error);
        return;
    }
#endif
    const LoopThread number(0);
    for (Index i = 0; i < count; ++i) body(i);
}

}  // namespace detail

/// Calls body(i) for every i in [0, count), in any order and on any thread. The calls must be independent of each
/// other. If calls throw, the exception of the lowest i is rethrown after all have ended.
template <class Body>
void parallel_for(Index count, const Body& body) {
    detail::run_loop(count, detail::LoopBody(body));
}

/// Cuts [0, size) into ranges of `grain` and calls body(first, last) for each, as parallel_for does. The cuts depend on
/// the problem alone, never on the number of threads, so sums taken a range at a time are the same for any number.
template <class Body>
void parallel_ranges(Index size, Index grain, const Body& body) {
    const Index ranges = (size + grain - 1) / grain;
    parallel_for(ranges, [&](Index range) {
        const Index first = range * grain;
        body(first, std::min(first + grain, size));
    });
}

SD_NAMESPACE_END
