// What a kernel is, and what it may know of its thread. This file and the kernels need no CUDA: what starts them on a
// device, or runs them thread by thread on the CPU for tests, is a Launcher.
//
// A kernel is a struct whose members are its arguments. Threads of a block share memory and wait for each other between
// phases, nowhere else:
//
//     struct Scale {                                            without shared memory
//         void operator()(Thread) const;
//     };
//     struct Sum {                                              with it
//         static constexpr int phases = 2;
//         struct Shared { float part[block_threads]; };
//         void operator()(Phase<0>, Thread, Shared&) const;     all threads, then
//         void operator()(Phase<1>, Thread, Shared&) const;     all threads
//     };
//
// Threads of different blocks never meet, and within a phase none reads what another writes. So the order in which
// blocks and threads run cannot matter: same input, same bits. There are no atomic operations.
#pragma once

#include "sd/core/tensor.hpp"

#include <concepts>
#include <type_traits>

SD_NAMESPACE_BEGIN

namespace cuda {

/// Threads of every block.
inline constexpr int block_threads = 256;

/// A thread's place: its block, and its number in the block.
struct Thread {
    Index block;
    int index;
};

/// A part of a kernel that all threads of a block finish before the next.
template <int number>
using Phase = std::integral_constant<int, number>;

/// A device that runs kernels, as its tag says: what it is chosen by. CompleteAccelerator lists what it then has.
template <class Device>
concept Accelerator = requires {
    requires Device::runs_kernels;
};

/// Launcher<Device>::run(kernel, blocks) starts `blocks` blocks of a kernel, after all that was started before.
template <class Device>
struct Launcher;

/// Starts a kernel; nothing is started for no blocks.
template <Accelerator Device, class Kernel>
void launch(const Kernel& kernel, Index blocks) {
    if (blocks > 0) Launcher<Device>::run(kernel, blocks);
}

/// a / b rounded up.
[[nodiscard]] SD_HOST_DEVICE constexpr Index quotient_up(Index a, Index b) { return (a + b - 1) / b; }

/// The sum of what the threads of a block have shared, in their order.
template <class A>
[[nodiscard]] SD_HOST_DEVICE A sum_of_block(const A (&part)[block_threads]) {
    A sum = A(0);
    for (int i = 0; i < block_threads; ++i) sum += part[i];
    return sum;
}

/// operation(i) for i from 0 to count - 1, one a thread.
template <class Operation>
struct Each {
    Index count;
    Operation operation;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index i = thread.block * block_threads + thread.index;
        if (i < count) operation(i);
    }
};

/// Starts operation(i) for i from 0 to count - 1.
template <Accelerator Device, class Operation>
void launch_each(Index count, const Operation& operation) {
    launch<Device>(Each<Operation>{count, operation}, quotient_up(count, block_threads));
}

/// Neighbouring elements that a thread loads or stores at once.
template <class T, int width>
struct alignas(sizeof(T) * width) Pack {
    T value[width];
};

template <int width, class T>
[[nodiscard]] SD_HOST_DEVICE Pack<T, width> load(const T* source) {
    return *reinterpret_cast<const Pack<T, width>*>(source);
}
template <int width, class T>
SD_HOST_DEVICE void store(const Pack<T, width>& pack, T* target) {
    *reinterpret_cast<Pack<T, width>*>(target) = pack;
}

/// Calls use(std::integral_constant<int, width>) with the elements of T that a thread takes at once: 16 bytes where
/// rows of `channels` elements allow it, else one.
template <class T, class Use>
void with_width(Index channels, const Use& use) {
    constexpr int wide = static_cast<int>(16 / sizeof(T));
    if (channels % wide == 0) {
        use(std::integral_constant<int, wide>());
    } else {
        use(std::integral_constant<int, 1>());
    }
}

}  // namespace cuda

SD_NAMESPACE_END
