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

/// Pinned memory that is not in use. Taking it from the system makes a device wait, so none is given back.
class PinnedPool {
public:
    /// It is never destroyed: what uses it may have static storage.
    static PinnedPool& instance() {
        static PinnedPool* pool = new PinnedPool;
        return *pool;
    }

    /// Memory of that size, whose last copy has ended.
    [[nodiscard]] std::unique_ptr<PinnedMemory> acquire(std::size_t bytes) {
        {
            const std::lock_guard lock(mutex_);
            const auto found = free_.find(bytes);
            if (found != free_.end()) return std::move(free_.extract(found).mapped());
        }
        return std::make_unique<PinnedMemory>(bytes);
    }

    /// Takes memory back after its last copy has ended. If that failed, nobody knows when the device is done with it:
    /// it is left alone.
    void release(std::unique_ptr<PinnedMemory> memory) noexcept {
        if (!memory->copied.has_happened()) {
            (void)memory.release();
            return;
        }
        try {
            const std::lock_guard lock(mutex_);
            const std::size_t bytes = memory->bytes;
            free_.emplace(bytes, std::move(memory));
        } catch (...) {  // no memory for the table's entry: it goes back to the system
        }
    }

private:
    std::mutex mutex_;
    std::multimap<std::size_t, std::unique_ptr<PinnedMemory>> free_;
};

/// Pinned memory of the pool, given back when this goes.
class PinnedBuffer {
public:
    explicit PinnedBuffer(std::size_t bytes) : memory_(PinnedPool::instance().acquire(bytes)) {}
    ~PinnedBuffer() {
        if (memory_ != nullptr) PinnedPool::instance().release(std::move(memory_));
    }
    PinnedBuffer(PinnedBuffer&&) noexcept = default;
    PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
        std::swap(memory_, other.memory_);
        return *this;
    }

    [[nodiscard]] void* data() const { return memory_->data; }
    [[nodiscard]] std::size_t bytes() const { return memory_->bytes; }
    /// Of the last copy.
    [[nodiscard]] Event& copied() { return memory_->copied; }

private:
    std::unique_ptr<PinnedMemory> memory_;
};

}  // namespace cuda

SD_NAMESPACE_END
