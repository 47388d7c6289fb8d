// Numbers on their way from the GPU, in pinned memory.
#pragma once

#include "sd/core/readback.hpp"
#include "sd/cuda/toolkit/device.hpp"

#include <map>
#include <mutex>

SD_NAMESPACE_BEGIN

namespace cuda {

/// Pinned memory of the processor, and an event that tells when the copy that was last started with it has ended.
struct PinnedBuffer {
    std::size_t bytes = 0;
    void* memory = nullptr;
    cudaEvent_t copied = nullptr;
};

/// Pinned buffers that are not in use. Taking memory from the system makes a device wait, so none is given back to it.
class PinnedPool {
public:
    /// It is never destroyed: a readback with static storage may outlive any other object.
    static PinnedPool& instance() {
        static PinnedPool* pool = new PinnedPool;
        return *pool;
    }

    /// A buffer of that size, whose last copy has ended.
    [[nodiscard]] PinnedBuffer acquire(std::size_t bytes) {
        {
            const std::lock_guard lock(mutex_);
            const auto found = free_.find(bytes);
            if (found != free_.end()) return free_.extract(found).mapped();
        }
        PinnedBuffer buffer{bytes};
        SD_CUDA_CHECK(cudaEventCreateWithFlags(&buffer.copied, cudaEventDisableTiming));
        try {
            SD_CUDA_CHECK(cudaMallocHost(&buffer.memory, bytes));
        } catch (...) {
            (void)cudaEventDestroy(buffer.copied);
            throw;
        }
        return buffer;
    }

    /// Takes a buffer back and waits for its last copy. One whose copy has failed is left alone: nobody knows when the
    /// device is done with it.
    void release(const PinnedBuffer& buffer) noexcept {
        if (cudaEventSynchronize(buffer.copied) != cudaSuccess) return;
        try {
            const std::lock_guard lock(mutex_);
            free_.emplace(buffer.bytes, buffer);
        } catch (...) {  // no memory for the table's entry
            (void)cudaFreeHost(buffer.memory);
            (void)cudaEventDestroy(buffer.copied);
        }
    }

private:
    std::mutex mutex_;
    std::multimap<std::size_t, PinnedBuffer> free_;
};

}  // namespace cuda

/// The GPU's numbers, copied on the runtime's stream to pinned memory.
template <class T>
class Readback<T, Cuda> {
public:
    /// Of these numbers as they are after all that was started so far. Throws std::runtime_error if the copy cannot be
    /// started.
    explicit Readback(const Tensor<T, Cuda>& numbers)
        : count_(static_cast<std::size_t>(numbers.size())), buffer_(take(count_ * sizeof(T))) {
        const cudaStream_t stream = cuda::Runtime::instance().stream();
        SD_CUDA_CHECK(
            cudaMemcpyAsync(buffer_->memory, numbers.data(), buffer_->bytes, cudaMemcpyDeviceToHost, stream));
        SD_CUDA_CHECK(cudaEventRecord(buffer_->copied, stream));
    }
    /// The numbers, valid as long as this is. Throws std::runtime_error if something that was started on the device
    /// before them has failed.
    [[nodiscard]] std::span<const T> get() {
        SD_CUDA_CHECK(cudaEventSynchronize(buffer_->copied));
        return {static_cast<const T*>(buffer_->memory), count_};
    }

private:
    struct GiveBack {
        void operator()(cuda::PinnedBuffer* buffer) const noexcept {
            cuda::PinnedPool::instance().release(*buffer);
            delete buffer;
        }
    };
    using Owner = std::unique_ptr<cuda::PinnedBuffer, GiveBack>;

    static Owner take(std::size_t bytes) {
        auto buffer = std::make_unique<cuda::PinnedBuffer>();
        *buffer = cuda::PinnedPool::instance().acquire(bytes);
        return Owner(buffer.release());
    }

    std::size_t count_;
    Owner buffer_;
};

SD_NAMESPACE_END
