// Few numbers on their way to a device as the argument of a kernel.
#pragma once

#include "sd/device/kernel.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>

SD_NAMESPACE_BEGIN

namespace cuda {

/// Writes bytes that it brings along. Nobody waits for it, the CPU's memory is free at once, and a graph keeps
/// what it brings: labels, selections of samples, tables of tensors.
struct WriteArguments {
    static constexpr std::size_t capacity = 4000;  // less than 4 KiB, which every device takes
    unsigned char bytes[capacity];
    Index count;
    unsigned char* target;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index i = thread.block * block_threads + thread.index;
        if (i < count) target[i] = bytes[i];
    }
};

/// The most bytes that are written this way; more go by a copy.
inline constexpr std::size_t most_argument_bytes = std::size_t{256} << 10;

/// Starts the writing of some bytes of the CPU's memory to the device's, kernel by kernel as many as fit.
template <Accelerator Device>
void write_by_arguments(const void* source, std::size_t bytes, void* target) {
    for (std::size_t first = 0; first < bytes; first += WriteArguments::capacity) {
        const std::size_t count = std::min(bytes - first, WriteArguments::capacity);
        WriteArguments kernel;
        std::memcpy(kernel.bytes, static_cast<const unsigned char*>(source) + first, count);
        kernel.count = static_cast<Index>(count);
        kernel.target = static_cast<unsigned char*>(target) + first;
        launch<Device>(kernel, quotient_up(kernel.count, block_threads));
    }
}

}  // namespace cuda

SD_NAMESPACE_END
