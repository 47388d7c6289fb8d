// Memory of the CPU that the GPU copies from and to by itself.
#pragma once

#include "sd/cuda/runtime.hpp"

#include <map>
#include <memory>
#include <mutex>

SD_NAMESPACE_BEGIN

namespace cuda {

/// An event of a stream: what is recorded now can be waited for later.
class Event {
public:
    Event() {
        (void)Runtime::instance();  // for its word on missing devices
        SD_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
    }
    ~Event() { SD_CUDA_REPORT(cudaEventDestroy(event_)); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;

    /// Happens when all that was started on the stream so far is finished.
    void record(cudaStream_t stream) { SD_CUDA_CHECK(cudaEventRecord(event_, stream)); }
    /// What is started on the stream from now on waits for the event.
    void hold(cudaStream_t stream) const { SD_CUDA_CHECK(cudaStreamWaitEvent(stream, event_)); }
    /// Waits for it; returns at once if nothing was recorded. Throws std::runtime_error if what it waits for has
    /// failed.
    void wait() const { SD_CUDA_CHECK(cudaEventSynchronize(event_)); }
    /// The same where nothing may be thrown: false if it has failed.
    [[nodiscard]] bool has_happened() const noexcept { return SD_CUDA_REPORT(cudaEventSynchronize(event_)); }

private:
    cudaEvent_t event_ = nullptr;
};

/// Pinned memory, and an event that tells when the copy that was last started with it has ended.
struct PinnedMemory {
    explicit PinnedMemory(std::size_t size) : bytes(size) { SD_CUDA_CHECK(cudaMallocHost(&data, size)); }
    ~PinnedMemory() { SD_CUDA_REPORT(cudaFreeHost(data)); }
    PinnedMemory(const PinnedMemory&) = delete;
    PinnedMemory& operator=(const PinnedMemory&) = delete;

    std::size_t bytes;
    void* data = nullptr;
    Event copied;  ///< the last copy has ended
};

/// Gives pinned memory back to the pool.
struct ReturnPinned {
    void operator()(PinnedMemory* memory) const noexcept;
};

/// Pinned memory of the pool, given back when this goes.
using PinnedBuffer = std::unique_ptr<PinnedMemory, ReturnPinned>;

/// Pinned memory that is not in use. Taking it from the system makes a device wait, so none is given back.
class PinnedPool {
public:
    /// It is never destroyed: what uses it may have static storage.
    static PinnedPool& instance() {
        static PinnedPool* pool = new PinnedPool;
        return *pool;
    }

    /// Memory of that size, whose last copy has ended.
    [[nodiscard]] PinnedBuffer acquire(std::size_t bytes) {
        const std::lock_guard lock(mutex_);
        const auto found = free_.find(bytes);
        if (found == free_.end()) return PinnedBuffer(new PinnedMemory(bytes));
        return PinnedBuffer(free_.extract(found).mapped().release());
    }

    /// Takes memory back after its last copy has ended. If that failed, nobody knows when the device is done with it:
    /// it is left alone.
    void release(PinnedMemory* memory) noexcept {
        if (!memory->copied.has_happened()) return;
        std::unique_ptr<PinnedMemory> owner(memory);
        try {
            const std::lock_guard lock(mutex_);
            free_.emplace(memory->bytes, std::move(owner));
        } catch (...) {  // no memory for the table's entry: it goes back to the system
        }
    }

private:
    std::mutex mutex_;
    std::multimap<std::size_t, std::unique_ptr<PinnedMemory>> free_;
};

inline void ReturnPinned::operator()(PinnedMemory* memory) const noexcept { PinnedPool::instance().release(memory); }

}  // namespace cuda

SD_NAMESPACE_END
