// Kernels with a planted fault each, and the emulator's words for it; and their like without the fault.
#include "cuda_emulator.hpp"
#include "messages.hpp"

#include "sd/device/kernel.hpp"

#include <doctest/doctest.h>

#include <initializer_list>
#include <stdexcept>
#include <string>

namespace test_emulator_checks {

using sd::Index;
using sd::cuda::block_threads;
using sd::cuda::Phase;
using sd::cuda::Thread;
using sd_test::Emulator;
using Numbers = sd::Tensor<float, Emulator>;

static_assert(sd_test::checks::are_on);

/// What a launch is stopped with, or "accepted"; and with blocks and threads in the opposite order.
template <class Kernel>
std::string fault_of(const Kernel& kernel, Index blocks = 1) {
    return sd_test::error_of<std::logic_error>([&] { sd::cuda::launch<Emulator>(kernel, blocks); });
}
template <class Kernel>
std::string fault_backwards(const Kernel& kernel, Index blocks = 1) {
    Emulator::backwards = true;
    const std::string fault = fault_of(kernel, blocks);
    Emulator::backwards = false;
    return fault;
}

void check_fault(const std::string& words, std::initializer_list<const char*> expected) {
    CAPTURE(words);
    for (const char* part : expected) CHECK(sd_test::contains(words, part));
}

/// Thread `thread` of block `block` reads element `index` of memory, and writes it to element `target` of result.
struct Read {
    Index block;
    int thread;
    const float* memory;
    Index index;
    float* result;
    Index target;

    void operator()(Thread at) const {
        if (at.block == block && at.index == thread) result[target] = memory[index];
    }
};

Numbers zeros(Index count) { return Numbers::full({count}, 0.0F); }

/// Threads of phase 0 leave a number each, those of phase 1 take it from the thread `step` further.
struct Turn {
    static constexpr int phases = 2;
    struct Shared {
        float part[block_threads];
        float other[block_threads];
    };
    int written;  ///< how many threads leave a number
    int step;
    float* result;

    void operator()(Phase<0>, Thread thread, Shared& shared) const {
        if (thread.index < written) shared.part[thread.index] = 1;
    }
    void operator()(Phase<1>, Thread thread, Shared& shared) const {
        result[thread.block * block_threads + thread.index] = shared.part[thread.index + step];
    }
};

/// The same by a pointer, which the compiler knows no end of, and another end of the block's memory.
struct TurnByPointer {
    static constexpr int phases = 2;
    struct Shared {
        float part[block_threads];
    };
    int step;
    float* result;

    void operator()(Phase<0>, Thread thread, Shared& shared) const { shared.part[thread.index] = 1; }
    void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const float* own = shared.part + thread.index;
        result[thread.index] = own[step];
    }
};

/// All in one phase, and there is no further thread behind the last.
struct TurnWithoutBarrier {
    static constexpr int phases = 1;
    struct Shared {
        float part[block_threads];
    };
    int step;
    float* result;

    void operator()(Phase<0>, Thread thread, Shared& shared) const {
        shared.part[thread.index] = 1;
        const int other = thread.index + step;
        if (other >= 0 && other < block_threads) result[thread.index] = shared.part[other];
    }
};

/// Each thread that `writes` writes the element that `place` gives for block and thread; thread 0 reads element `read`.
struct Scatter {
    Index block_step, thread_step;
    int threads;
    float* memory;

    void operator()(Thread thread) const {
        if (thread.index < threads) memory[thread.block * block_step + thread.index * thread_step] = 1;
    }
};

/// In phase 0 thread `reader` of block 0 reads what thread `writer` of block `block` writes in phase `writes`.
template <int writes>
struct ReadAndWrite {
    static constexpr int phases = 2;
    struct Shared {};
    int reader;
    int other_reader;  ///< reads, too
    Index block;
    int writer;
    float* memory;
    float* result;

    void operator()(Phase<0> phase, Thread thread, Shared&) const {
        if (thread.block == 0 && (thread.index == reader || thread.index == other_reader)) {
            result[thread.index] = memory[0];
        }
        write(phase, thread);
    }
    void operator()(Phase<1> phase, Thread thread, Shared&) const { write(phase, thread); }

private:
    template <int number>
    void write(Phase<number>, Thread thread) const {
        if (number == writes && thread.block == block && thread.index == writer) memory[0] = 1;
    }
};

/// The first thread copies four numbers at once.
struct CopyPack {
    const float* source;
    float* target;

    void operator()(Thread thread) const {
        if (thread.index == 0) sd::cuda::store<4>(sd::cuda::load<4>(source), target);
    }
};

}  // namespace test_emulator_checks

using namespace test_emulator_checks;  // NOLINT: for the test cases below

TEST_CASE("faultless kernels are not stopped") {
    Numbers x = zeros(512), y = zeros(512);
    for (const bool backwards : {false, true}) {
        Emulator::backwards = backwards;
        CHECK(fault_of(Turn{256, 0, y.data()}, 2) == "accepted");
        CHECK(fault_of(TurnByPointer{0, y.data()}) == "accepted");
        CHECK(fault_of(TurnWithoutBarrier{0, y.data()}) == "accepted");
        CHECK(fault_of(Scatter{256, 1, 256, x.data()}, 2) == "accepted");
        CHECK(fault_of(Scatter{256, 0, 1, x.data()}) == "accepted");  // what another launch has written and read
        CHECK(fault_of(Read{1, 7, x.data(), 511, y.data(), 0}, 2) == "accepted");
        // a barrier between reader and writer, and one thread that is both
        CHECK(fault_of(ReadAndWrite<1>{3, 4, 0, 5, x.data(), y.data()}, 2) == "accepted");
        CHECK(fault_of(ReadAndWrite<0>{3, 3, 0, 3, x.data(), y.data()}, 2) == "accepted");
        CHECK(fault_of(CopyPack{x.data() + 4, y.data() + 8}) == "accepted");
    }
    Emulator::backwards = false;
}

TEST_CASE("an access outside of global memory, by a little or by far") {
    Numbers x = zeros(10), y = zeros(1);
    check_fault(fault_of(Read{2, 7, x.data(), 10, y.data(), 0}, 3),
                {"kernel test_emulator_checks::Read, block 2, thread 7, phase 0: ",
                 "reads 4 bytes 0 bytes past the end of 40 bytes of global memory: out of bounds"});
    check_fault(fault_of(Read{0, 0, x.data(), -1, y.data(), 0}),
                {"reads 4 bytes 4 bytes before 40 bytes of global memory: out of bounds"});
    check_fault(fault_of(Read{0, 0, x.data(), 0, y.data(), 3}),
                {"writes 4 bytes 8 bytes past the end of 4 bytes of global memory: out of bounds"});
    check_fault(fault_of(Read{0, 0, x.data(), Index{1} << 20, y.data(), 0}), {"reads 4 bytes", ": out of bounds"});
    check_fault(fault_of(Read{0, 0, x.data(), Index{1} << 40, y.data(), 0}), {"reads 4 bytes of the CPU's memory"});
    Numbers gone = zeros(10);
    const float* memory = gone.data();
    gone = {};
    check_fault(fault_of(Read{0, 0, memory, 0, y.data(), 0}), {"reads 4 bytes", ": out of bounds"});
}

TEST_CASE("an access outside of shared memory, or of an array in it") {
    Numbers y = zeros(512);
    check_fault(fault_of(TurnByPointer{1, y.data()}),
                {"TurnByPointer, block 0, thread 255, phase 1: reads 4 bytes 0 bytes past the end of 1024 bytes of "
                 "shared memory: out of bounds"});
    check_fault(fault_of(TurnByPointer{-1, y.data()}),
                {"thread 0, phase 1: reads 4 bytes 4 bytes before 1024 bytes of shared"});
    check_fault(fault_of(Turn{256, 1, y.data()}), {"Turn, block 0, thread 255, phase 1: ", "test_emulator_checks.cpp:",
                                                   ": takes element 256 of 'float [256]': out of bounds"});
}

TEST_CASE("a read of what nobody has written") {
    Numbers y = zeros(512);
    Numbers x = Numbers::empty({10});
    check_fault(fault_of(Read{0, 0, x.data(), 3, y.data(), 0}),
                {"reads 4 bytes at byte 12 of 40 bytes of global memory, which nobody has written"});
    check_fault(fault_of(Read{0, 0, x.clone().data(), 3, y.data(), 0}), {"which nobody has written"});
    // what a block before has left is not there any more
    check_fault(
        fault_of(Turn{255, 0, y.data()}, 2),
        {"thread 255, phase 1: reads 4 bytes at byte 1020 of 2048 bytes of shared memory, which nobody has written"});
    CHECK(fault_of(Scatter{0, 1, 10, x.data()}) == "accepted");
    CHECK(fault_of(Read{0, 0, x.data(), 3, y.data(), 0}) == "accepted");
}

TEST_CASE("two threads write the same element") {
    Numbers x = zeros(512);
    check_fault(fault_of(Scatter{256, 0, 2, x.data()}),
                {"Scatter, block 0, thread 1, phase 0: writes 4 bytes at byte 0 of 2048 bytes of global memory, which "
                 "thread 0 of block 0, phase 0 wrote, with no barrier between them: a race"});
    check_fault(fault_backwards(Scatter{256, 0, 2, x.data()}),
                {"thread 0, phase 0: writes", "which thread 1 of block 0, phase 0 wrote"});
    check_fault(fault_of(Scatter{0, 1, 1, x.data()}, 2),
                {"block 1, thread 0", "which thread 0 of block 0, phase 0 wrote"});
    check_fault(fault_backwards(Scatter{0, 1, 1, x.data()}, 2),
                {"block 0, thread 0", "which thread 0 of block 1, phase 0 wrote"});
}

TEST_CASE("a thread reads what another writes, whoever comes first") {
    Numbers x = zeros(1), y = zeros(256);
    const TurnWithoutBarrier before{-1, y.data()}, behind{1, y.data()};
    check_fault(fault_of(before),
                {"TurnWithoutBarrier, block 0, thread 1, phase 0: reads 4 bytes at byte 0 of 1024 bytes "
                 "of shared memory, which thread 0 of block 0, phase 0 wrote, with no barrier between"});
    check_fault(fault_of(behind),
                {"thread 0, phase 0: reads 4 bytes at byte 4 of 1024 bytes of shared memory, which nobody"});
    check_fault(fault_backwards(before), {"thread 255, phase 0: reads", "which nobody has written"});
    check_fault(fault_backwards(behind), {"thread 254, phase 0: reads", "which thread 255 of block 0, phase 0 wrote"});
    struct Threads {
        int reader, other_reader;
        Index block;
        int writer;
    };
    for (const Threads& at : {Threads{3, 3, 0, 5}, Threads{5, 5, 0, 3}, Threads{3, 5, 0, 5}, Threads{5, 3, 0, 3},
                              Threads{3, 4, 0, 4}, Threads{3, 3, 1, 3}}) {
        CAPTURE(at.reader);
        CAPTURE(at.writer);
        const ReadAndWrite<0> kernel{at.reader, at.other_reader, at.block, at.writer, x.data(), y.data()};
        check_fault(fault_of(kernel, 2), {"at byte 0 of 4 bytes of global memory, which thread ", ": a race"});
        check_fault(fault_backwards(kernel, 2), {"at byte 0 of 4 bytes of global memory, which thread ", ": a race"});
    }
    // no barrier is between blocks
    const ReadAndWrite<1> later{3, 3, 1, 3, x.data(), y.data()};
    check_fault(fault_of(later, 2), {"block 1, thread 3, phase 1: writes", "which thread 3 of block 0, phase 0 read"});
    check_fault(fault_backwards(later, 2),
                {"block 0, thread 3, phase 0: reads", "which thread 3 of block 1, phase 1 wrote"});
}

TEST_CASE("four numbers at once from where only one may be taken") {
    Numbers x = zeros(12), y = zeros(12);
    check_fault(fault_of(CopyPack{x.data() + 1, y.data()}),
                {"CopyPack, block 0, thread 0, phase 0: ", "kernel.hpp:",
                 "at byte 4 of 48 bytes of global memory, 4 bytes off a multiple of 16: misaligned"});
    check_fault(fault_of(CopyPack{x.data(), y.data() + 2}),
                {"at byte 8 of 48", "8 bytes off a multiple of 16: misaligned"});
}

TEST_CASE("a kernel uses the CPU's memory, or the CPU the device's") {
    Numbers y = zeros(1);
    const sd::Tensor<float> own({1}, {1});
    check_fault(fault_of(Read{0, 0, own.data(), 0, y.data(), 0}),
                {"thread 0, phase 0: reads 4 bytes of the CPU's memory"});
    const float local = 1;
    const auto by_reference = sd_test::error_of<std::logic_error>([&] {
        sd::cuda::launch_each<Emulator>(
            1, [&, target = y.data()](Index) { target[0] = *const_cast<const volatile float*>(&local); });
    });
    check_fault(by_reference, {"reads ", "of the CPU's memory"});
    CHECK(*const_cast<const volatile float*>(y.data()) == 0);
    check_fault(fault_of(Scatter{0, 0, 0, y.data()}),
                {"the CPU reads 4 bytes at byte 0 of 4 bytes of global memory of the device"});
    CHECK(fault_of(Scatter{0, 0, 0, y.data()}) == "accepted");
}
