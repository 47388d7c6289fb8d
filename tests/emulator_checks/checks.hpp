// What the emulated device asks of its memory and of every thread that it runs, see tests/cuda_emulator.hpp.
//
// With SD_EMULATOR_CHECKS every load and store of a kernel is checked: such a unit is compiled with
// -fsanitize=thread,bounds,alignment, and linked with checks.cpp and hooks.cpp in place of the sanitizers' libraries.
// CMake does that by sd_check_emulator(). Without it, memory is plain memory, and nothing is checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace sd_test::checks {

/// What is known of a launch before its threads run.
struct LaunchFacts {
    const char* kernel;     ///< typeid's name
    const void* arguments;  ///< the kernel itself
    std::size_t argument_bytes;
    std::int64_t blocks;
    int phases;
    std::size_t shared_bytes;  ///< 0 for a kernel without shared memory
};

#ifdef SD_EMULATOR_CHECKS

/// Whether accesses are checked.
inline constexpr bool are_on = true;

/// Memory of the device, aligned to 64 bytes, that nobody has written: all ones. Elements have `element_bytes`.
[[nodiscard]] void* allocate(std::size_t bytes, std::size_t element_bytes);
/// Takes it back: from now on nobody may use it.
void release(void* memory) noexcept;
/// The CPU copies elements to the device, from it, or on it; what nobody has written counts as that in the copy, too.
void copy(void* target, const void* source, std::size_t bytes);

/// A launch under way. A fault ends it: run() throws std::logic_error that names kernel, block, thread, what and where.
/// It throws, too, if the CPU has touched the device's memory before by other means than copy().
class Launch {
public:
    explicit Launch(const LaunchFacts& facts);
    ~Launch();
    Launch(const Launch&) = delete;
    Launch& operator=(const Launch&) = delete;

    /// Calls body(), whose frames must have nothing to destroy.
    template <class Body>
    void run(const Body& body) {
        run_checked([](const void* own) { (*static_cast<const Body*>(own))(); }, &body);
    }
    /// The next block's shared memory, which nobody has written; nullptr if it has none.
    [[nodiscard]] void* begin_block(std::int64_t block);
    /// From here to end_thread() accesses are a kernel's; its own variables are on the stack below `frame`.
    void begin_thread(int phase, int index, const void* frame);
    void end_thread();

private:
    void run_checked(void (*body)(const void*), const void* argument);

    void* shared_ = nullptr;
};

#else

inline constexpr bool are_on = false;

[[nodiscard]] inline void* allocate(std::size_t bytes, std::size_t /*element_bytes*/) {
    return std::memset(::operator new (bytes, std::align_val_t{64}), 0xFF, bytes);
}
inline void release(void* memory) noexcept { ::operator delete (memory, std::align_val_t{64}); }
inline void copy(void* target, const void* source, std::size_t bytes) {
    if (bytes > 0) std::memmove(target, source, bytes);
}

class Launch {
public:
    explicit Launch(const LaunchFacts& facts) : shared_bytes_(facts.shared_bytes) {
        if (shared_bytes_ > 0) shared_.reset(allocate(shared_bytes_, 1));
    }
    template <class Body>
    void run(const Body& body) {
        body();
    }
    [[nodiscard]] void* begin_block(std::int64_t /*block*/) {
        return shared_ ? std::memset(shared_.get(), 0xFF, shared_bytes_) : nullptr;
    }
    void begin_thread(int /*phase*/, int /*index*/, const void* /*frame*/) {}
    void end_thread() {}

private:
    struct Release {
        void operator()(void* memory) const { release(memory); }
    };
    std::size_t shared_bytes_;
    std::unique_ptr<void, Release> shared_;
};

#endif

}  // namespace sd_test::checks
