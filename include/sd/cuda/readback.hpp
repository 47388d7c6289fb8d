// Numbers on their way from the GPU.
#pragma once

#include "sd/core/device.hpp"
#include "sd/cuda/device.hpp"
#include "sd/cuda/pinned.hpp"

SD_NAMESPACE_BEGIN

/// The GPU's numbers, copied on the runtime's stream to pinned memory.
template <class T>
class Readback<T, Cuda> {
public:
    /// Of these numbers as they are after all that was started so far. Throws std::runtime_error if the copy cannot be
    /// started.
    explicit Readback(const Tensor<T, Cuda>& numbers)
        : buffer_(cuda::PinnedPool::instance().acquire(static_cast<std::size_t>(numbers.size()) * sizeof(T))) {
        const cudaStream_t stream = cuda::Runtime::instance().stream();
        SD_CUDA_CHECK(cudaMemcpyAsync(buffer_->data, numbers.data(), buffer_->bytes, cudaMemcpyDeviceToHost, stream));
        buffer_->copied.record(stream);
    }
    /// The numbers, valid as long as this is. Throws std::runtime_error if something that was started on the device
    /// before them has failed.
    [[nodiscard]] std::span<const T> get() {
        buffer_->copied.wait();
        return {static_cast<const T*>(buffer_->data), buffer_->bytes / sizeof(T)};
    }

private:
    cuda::PinnedBuffer buffer_;
};

SD_NAMESPACE_END
