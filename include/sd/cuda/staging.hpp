// Tensors on their way to the GPU, by a stream of their own.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/device/staging.hpp"
#include "sd/cuda/device.hpp"
#include "sd/cuda/pinned.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cuda {

/// The GPU's: pinned memory, and events between the stream of copies and the runtime's.
template <class T>
class StagingBuffer<T, Cuda> {
public:
    StagingBuffer() = default;
    StagingBuffer(const StagingBuffer&) = delete;
    StagingBuffer& operator=(const StagingBuffer&) = delete;
    /// No copy is under way into memory that goes. If one failed, the device's memory is not given to anybody else.
    ~StagingBuffer() {
        if (pinned_ && !pinned_->copied.has_happened()) (void)new Tensor<T, Cuda>(on_device_);
    }

    void fill(const Tensor<T>& x) {
        const Runtime& runtime = Runtime::instance();
        const std::size_t bytes = static_cast<std::size_t>(x.size()) * sizeof(T);
        if (pinned_) pinned_->copied.wait();
        if (!pinned_ || pinned_->bytes != bytes) {
            on_device_ = {};
            pinned_ = PinnedPool::instance().acquire(bytes);
            on_device_ = Tensor<T, Cuda>::empty({x.size()});
            used_.record(runtime.stream());  // what the memory served for before
        }
        shape_ = x.shape();
        T* const target = static_cast<T*>(pinned_->data);
        parallel_ranges(x.size(), 65536,
                        [&](Index first, Index last) { std::copy(x.data() + first, x.data() + last, target + first); });
        used_.hold(runtime.copy_stream());
        SD_CUDA_CHECK(cudaMemcpyAsync(on_device_.data(), target, bytes, cudaMemcpyHostToDevice, runtime.copy_stream()));
        pinned_->copied.record(runtime.copy_stream());
    }
    [[nodiscard]] Tensor<T, Cuda> begin_use() {
        pinned_->copied.hold(Runtime::instance().stream());
        return on_device_.reshape(shape_);
    }
    void end_use() { used_.record(Runtime::instance().stream()); }

private:
    PinnedBuffer pinned_;
    Tensor<T, Cuda> on_device_;
    Shape shape_;
    Event used_;
};

}  // namespace cuda

SD_NAMESPACE_END
