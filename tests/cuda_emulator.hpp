// A device for tests: runs the kernels of cuda/ on the CPU, block by block, phase by phase, thread by thread.
//
// What it shows is all that a kernel computes: indices, masks, the order of sums, phases. Memory is handed out filled
// with NaN. Blocks and the threads of a phase run forwards or backwards. In programs that are compiled for it, every load
// and store of a kernel is checked: emulator_checks/checks.hpp.
#pragma once

#include "emulator_checks/checks.hpp"

#include "sd/core/device.hpp"
#include "sd/device/staging.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <limits>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

namespace sd_test {

/// Work that is to run later, and memory that was given back meanwhile, which that work may still use.
struct Recording {
    std::vector<std::function<void()>> work;
    std::vector<std::string> names;  ///< of the work, with its blocks
    std::vector<std::shared_ptr<void>> memory;
};

struct Emulator {
    static constexpr bool in_cpu_memory = false;
    static constexpr bool runs_beside_cpu = true;
    static constexpr bool replays_steps = true;
    static constexpr bool runs_kernels = true;
    static inline bool backwards = false;          ///< the order of blocks and threads
    static inline sd::Index launches = 0;          ///< kernels started so far
    static inline sd::Index allocations = 0;       ///< pieces of memory taken so far
    static inline std::size_t live_bytes = 0;      ///< memory that tensors hold
    static inline int reads = 0;                   ///< how often the CPU has waited for what it wanted at once
    static inline int under_way = 0;               ///< numbers that were asked for and not waited for yet
    static inline Recording* recording = nullptr;  ///< of the step under way, if it is recorded
    static inline std::vector<std::vector<std::string>> graphs{};  ///< the work of each step that was recorded

    /// Runs some work, or puts it off to the end of the recorded step.
    static void start(std::string name, std::function<void()> work) {
        if (recording == nullptr) {
            work();
            return;
        }
        recording->names.push_back(std::move(name));
        recording->work.push_back(std::move(work));
    }
    static void expect_no_recording() {
        if (recording != nullptr) throw std::logic_error("read in a recorded step");
    }

    friend void poison_pool(Emulator) {}  // memory is NaN whenever it is handed out
};

}  // namespace sd_test

SD_NAMESPACE_BEGIN

template <class T>
class Storage<T, sd_test::Emulator> {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    Storage() = default;
    explicit Storage(Index count) : count_(count) {
        const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
        if (count == 0) return;
        const auto free = [bytes](void* memory) {
            sd_test::checks::release(memory);
            sd_test::Emulator::live_bytes -= bytes;
        };
        elements_ = std::shared_ptr<void>(sd_test::checks::allocate(bytes, sizeof(T)), [free](void* memory) {
            const std::shared_ptr<void> owner(memory, free);
            if (sd_test::Emulator::recording != nullptr) sd_test::Emulator::recording->memory.push_back(owner);
        });
        ++sd_test::Emulator::allocations;
        sd_test::Emulator::live_bytes += bytes;
    }
    [[nodiscard]] T* data() const { return static_cast<T*>(elements_.get()); }
    void fill(const T& value) {
        sd_test::Emulator::start("fill", [own = *this, value] {
            const std::vector<T> numbers(static_cast<std::size_t>(own.count_), value);
            sd_test::checks::copy(own.data(), numbers.data(), numbers.size() * sizeof(T));
        });
    }
    void copy_from(const Storage& other) {
        sd_test::Emulator::start("copy", [own = *this, other] {
            sd_test::checks::copy(own.data(), other.data(), static_cast<std::size_t>(own.count_) * sizeof(T));
        });
    }
    void write(const T* source, Index count) {
        sd_test::Emulator::start("write", [own = *this, numbers = std::vector<T>(source, source + count)] {
            sd_test::checks::copy(own.data(), numbers.data(), numbers.size() * sizeof(T));
        });
    }
    void read(T* target, Index count) const {
        sd_test::Emulator::expect_no_recording();
        ++sd_test::Emulator::reads;
        sd_test::checks::copy(target, data(), static_cast<std::size_t>(count) * sizeof(T));
    }
    [[nodiscard]] bool is_only_reference() const { return elements_.use_count() == 1; }

private:
    std::shared_ptr<void> elements_;
    Index count_ = 0;
};

/// A step's work, which runs when all of it has been recorded.
template <>
class StepGraph<sd_test::Emulator> {
public:
    template <class Work>
    void run(const Work& work) {
        sd_test::Recording recording;
        sd_test::Emulator::recording = &recording;
        try {
            work();
        } catch (...) {
            sd_test::Emulator::recording = nullptr;
            throw;
        }
        sd_test::Emulator::recording = nullptr;
        for (const auto& part : recording.work) part();
        sd_test::Emulator::graphs.push_back(std::move(recording.names));
    }
};

/// Numbers as they are when they are asked for, not to be seen before somebody waits for them.
template <class T>
class Readback<T, sd_test::Emulator> {
public:
    explicit Readback(const Tensor<T, sd_test::Emulator>& numbers)
        : numbers_(static_cast<std::size_t>(numbers.size())) {
        sd_test::Emulator::expect_no_recording();
        sd_test::checks::copy(numbers_.data(), numbers.data(), numbers_.size() * sizeof(T));
        ++sd_test::Emulator::under_way;
    }
    Readback(Readback&& other) noexcept
        : numbers_(std::move(other.numbers_)), is_under_way_(std::exchange(other.is_under_way_, false)) {}
    Readback& operator=(Readback&& other) noexcept {
        std::swap(numbers_, other.numbers_);
        std::swap(is_under_way_, other.is_under_way_);
        return *this;
    }
    ~Readback() { arrive(); }
    [[nodiscard]] std::span<const T> get() {
        arrive();
        return numbers_;
    }

private:
    void arrive() {
        if (std::exchange(is_under_way_, false)) --sd_test::Emulator::under_way;
    }

    std::vector<T> numbers_;
    bool is_under_way_ = true;
};

namespace cuda {

/// Its copy takes place as late as it may: when it must have ended. Outside of its use the device's tensor is not
/// there.
template <class T>
class StagingBuffer<T, sd_test::Emulator> {
public:
    void fill(const Tensor<T>& x) {
        if (in_use_) throw std::logic_error("filled in its use");
        own_ = x.clone();
    }
    [[nodiscard]] Tensor<T, sd_test::Emulator> begin_use() {
        in_use_ = true;
        on_device_ = to_device<sd_test::Emulator>(own_);
        return on_device_;
    }
    void end_use() {
        on_device_.fill(std::numeric_limits<T>::quiet_NaN());
        in_use_ = false;
    }

private:
    bool in_use_ = false;
    Tensor<T> own_;
    Tensor<T, sd_test::Emulator> on_device_;
};

template <>
struct Launcher<sd_test::Emulator> {
    template <class Kernel>
    static void run(const Kernel& kernel, Index blocks) {
        ++sd_test::Emulator::launches;
        sd_test::Emulator::start(text(typeid(Kernel).name(), ' ', blocks), [=] { run_blocks(kernel, blocks); });
    }

private:
    using Launch = sd_test::checks::Launch;

    template <class Kernel>
    static constexpr int phases_of() {
        if constexpr (requires { Kernel::phases; }) {
            return Kernel::phases;
        } else {
            return 1;
        }
    }
    template <class Kernel>
    static constexpr std::size_t shared_bytes_of() {
        if constexpr (requires { Kernel::phases; }) {
            return sizeof(typename Kernel::Shared);
        } else {
            return 0;
        }
    }

    template <class Kernel>
    static void run_blocks(const Kernel& kernel, Index blocks) {
        Launch launch(
            {typeid(Kernel).name(), &kernel, sizeof(kernel), blocks, phases_of<Kernel>(), shared_bytes_of<Kernel>()});
        launch.run([&] {
            in_order(blocks, [&](Index block) {
                run_phases(launch, kernel, block, launch.begin_block(block),
                           std::make_integer_sequence<int, phases_of<Kernel>()>());
            });
        });
    }

    template <class Body>
    static void in_order(Index count, const Body& body) {
        for (Index i = 0; i < count; ++i) body(sd_test::Emulator::backwards ? count - 1 - i : i);
    }
    template <class Kernel, int... phases>
    static void run_phases(Launch& launch, const Kernel& kernel, Index block, void* shared,
                           std::integer_sequence<int, phases...>) {
        (in_order(block_threads,
                  [&](Index index) {
                      run_thread<phases>(&launch, &kernel, Thread{block, static_cast<int>(index)}, shared);
                  }),
         ...);
    }
    /// In a frame of its own, so that it is known which variables are the thread's.
    template <int phase, class Kernel>
    [[gnu::noinline]] static void run_thread(Launch* launch, const Kernel* kernel, Thread thread, void* shared) {
        launch->begin_thread(phase, thread.index, __builtin_frame_address(0));
        if constexpr (requires { Kernel::phases; }) {
            (*kernel)(Phase<phase>(), thread, *static_cast<typename Kernel::Shared*>(shared));
        } else {
            (*kernel)(thread);
        }
        launch->end_thread();
    }
};

}  // namespace cuda

SD_NAMESPACE_END
