// Ctrl-C in the middle of a training run.
#pragma once

#include <atomic>
#include <csignal>

namespace tools {

/// While it lives, Ctrl-C asks the trainer to stop after the batch under way; a second Ctrl-C ends the program.
/// SIGUSR1, which mpirun hands on to all processes, asks too. One at a time.
template <class Trainer>
class StopOnInterrupt {
public:
    explicit StopOnInterrupt(Trainer& trainer) {
        trainer_.store(&trainer);
        std::signal(SIGINT, handle);
        std::signal(SIGUSR1, handle);
    }
    StopOnInterrupt(const StopOnInterrupt&) = delete;
    StopOnInterrupt& operator=(const StopOnInterrupt&) = delete;
    ~StopOnInterrupt() {
        std::signal(SIGINT, SIG_DFL);
        std::signal(SIGUSR1, SIG_DFL);
        trainer_.store(nullptr);
    }

private:
    static void handle(int signal) {
        if (signal == SIGINT) std::signal(SIGINT, SIG_DFL);
        if (Trainer* trainer = trainer_.load()) trainer->request_stop();
    }

    static inline std::atomic<Trainer*> trainer_ = nullptr;
    static_assert(std::atomic<Trainer*>::is_always_lock_free);
};

}  // namespace tools
