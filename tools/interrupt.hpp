// Ctrl-C and other requests to end, in the middle of a training run.
#pragma once

#include "sd/core/communicator.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <ctime>
#include <span>
#include <unistd.h>
#include <vector>

namespace tools {

/// While it lives, SIGINT (Ctrl-C) and SIGTERM ask the trainer to stop after the batch under way; a second one ends the
/// program at once. SIGUSR1 and SIGUSR2 ask too and never end it: mpirun hands them on to all processes, and ./run
/// sends them for Ctrl-C and SIGTERM. One at a time.
template <class Trainer>
class StopOnSignal {
public:
    explicit StopOnSignal(Trainer& trainer) {
        first_.store(0);
        asked_.store(0);
        trainer_.store(&trainer);
        for (std::size_t i = 0; i < signals.size(); ++i) before_[i] = std::signal(signals[i], handle);
    }
    StopOnSignal(const StopOnSignal&) = delete;
    StopOnSignal& operator=(const StopOnSignal&) = delete;
    ~StopOnSignal() {
        for (std::size_t i = 0; i < signals.size(); ++i) std::signal(signals[i], before_[i]);
        trainer_.store(nullptr);
    }

    /// The exit status of a program that was stopped, the same on all ranks, which all ask: 143 if one was told to
    /// terminate, else 130, as a shell reports a program that the signal ended.
    [[nodiscard]] static int status(sd::Communicator& ranks) {
        const int signal = first_.load();
        const int own = signal == SIGTERM || signal == SIGUSR2 ? 128 + SIGTERM : 128 + SIGINT;
        std::vector<int> all(static_cast<std::size_t>(ranks.size()), own);
        if (ranks.size() > 1) ranks.all_gather(std::span(&own, 1), std::span(all));
        return *std::max_element(all.begin(), all.end());
    }

private:
    static constexpr std::array signals{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

    /// Nanoseconds of a clock that only goes forward.
    static long long now() {
        std::timespec time{};
        ::clock_gettime(CLOCK_MONOTONIC, &time);
        return 1'000'000'000LL * time.tv_sec + time.tv_nsec;
    }

    static void handle(int signal) {
        int none = 0;
        if (first_.compare_exchange_strong(none, signal)) {
            asked_.store(now());
            if (Trainer* trainer = trainer_.load()) trainer->request_stop();
            return;
        }
        // One request may come twice: timeout signals its child and then the child's group, mpirun what was signalled
        // with it.
        const long long asked = asked_.load();
        const bool is_another = asked != 0 && now() - asked > 200'000'000;
        if (is_another && (signal == SIGINT || signal == SIGTERM)) end_by(signal);
    }

    /// Ends the program as the signal does by itself, but for the first process of a container, which it does not end.
    static void end_by(int signal) {
        if (::getpid() == 1) ::_exit(128 + signal);
        std::signal(signal, SIG_DFL);
        std::raise(signal);
    }

    static inline std::atomic<Trainer*> trainer_ = nullptr;
    static inline std::atomic<int> first_ = 0;        ///< signal of the run
    static inline std::atomic<long long> asked_ = 0;  ///< when it came
    static_assert(std::atomic<Trainer*>::is_always_lock_free && std::atomic<long long>::is_always_lock_free);

    std::array<void (*)(int), signals.size()> before_{};
};

/// Lets SIGINT and SIGTERM end the first process of a container, as they end any other: the system leaves that to it.
inline void end_on_signals_as_first_process() {
    if (::getpid() != 1) return;
    for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, [](int got) { ::_exit(128 + got); });
}

}  // namespace tools
