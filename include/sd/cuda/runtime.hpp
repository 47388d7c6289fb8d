// The device that this process uses: its stream and its memory.
#pragma once

#include "sd/device/block_cache.hpp"
#include "sd/cuda/check.hpp"

#include <cstdint>
#include <string>

SD_NAMESPACE_BEGIN

/// How products of float are computed on the device.
enum class FloatMath {
    exact,  ///< in float
    tf32    ///< on tensor cores: factors are rounded to 10 bits of fraction, sums are float
};

namespace cuda {

/// One device and one stream: all that is started runs in the order of its start, so memory that one kernel leaves is
/// the next one's without waiting. Used by one thread at a time.
class Runtime {
public:
    /// Made at the first use. Throws std::runtime_error if there is no driver or no device. It is never destroyed: a
    /// tensor with static storage may outlive any other object.
    static Runtime& instance() {
        static Runtime* runtime = new Runtime;
        return *runtime;
    }

    [[nodiscard]] cudaStream_t stream() const { return stream_; }
    /// The stream of copies that go on beside the work; whoever uses it sees to the order by events.
    [[nodiscard]] cudaStream_t copy_stream() const { return copy_stream_; }

    /// Memory for what is started next. The pool keeps what it has, so steps after the first take nothing from the
    /// system. Throws std::runtime_error if the device has no memory left.
    [[nodiscard]] Block allocate(std::size_t bytes) {
        const Block block = pool_.allocate(bytes);
        if (bytes > 0 && block.memory == nullptr) {
            throw std::runtime_error(text("sd::Cuda: memory: got none left, expected ", bytes, " bytes beside the ",
                                          pool_.taken(), " that are in use"));
        }
        return block;
    }
    /// Gives memory back after all that was started so far.
    void release(const Block& block) noexcept { pool_.release(block); }

    /// Fills memory that is not in use with ones, after all that was started so far.
    void poison() {
        pool_.for_each_free(
            [this](const Block& block) { SD_CUDA_CHECK(cudaMemsetAsync(block.memory, 0xFF, block.bytes, stream_)); });
    }

    /// While it holds, memory that is given back stays with the pool, see BlockCache::hold.
    void hold_memory(bool held) { pool_.hold(held); }

    /// Waits for all that was started.
    void synchronize() { SD_CUDA_CHECK(cudaStreamSynchronize(stream_)); }

    /// Bytes that the pool has taken from the system; constant in the steady state.
    [[nodiscard]] std::uint64_t reserved_bytes() const { return pool_.taken(); }

    /// What the device calls itself.
    [[nodiscard]] std::string device_name() const {
        int device = 0;
        cudaDeviceProp properties{};
        SD_CUDA_CHECK(cudaGetDevice(&device));
        SD_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
        return properties.name;
    }

    FloatMath float_math = FloatMath::exact;  ///< of convolutions and products

private:
    struct DeviceMemory {
        [[nodiscard]] static void* allocate(std::size_t bytes) {
            void* memory = nullptr;
            const cudaError_t status = cudaMalloc(&memory, bytes);
            if (status == cudaErrorMemoryAllocation) {
                (void)cudaGetLastError();  // or the next launch would tell of it
                return nullptr;
            }
            SD_CUDA_CHECK(status);
            return memory;
        }
        static void release(void* memory) noexcept { SD_CUDA_REPORT(cudaFree(memory)); }
    };

    Runtime() {
        int devices = 0;
        const cudaError_t status = cudaGetDeviceCount(&devices);
        if (status != cudaSuccess || devices == 0) {
            throw std::runtime_error(text("sd::Cuda: devices: got ",
                                          status == cudaSuccess ? "none" : cudaGetErrorString(status),
                                          ", expected an NVIDIA GPU and its driver"));
        }
        SD_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
        SD_CUDA_CHECK(cudaStreamCreateWithFlags(&copy_stream_, cudaStreamNonBlocking));
    }

    cudaStream_t stream_ = nullptr;
    cudaStream_t copy_stream_ = nullptr;
    BlockCache<DeviceMemory> pool_;
};

/// While this is there, work is recorded that starts later, and that uses memory which it has given back by then.
class Recording {
public:
    Recording() { Runtime::instance().hold_memory(true); }
    ~Recording() { Runtime::instance().hold_memory(false); }
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;
};

/// Memory of the pool, given back when it goes.
class Workspace {
public:
    explicit Workspace(std::size_t bytes) : block_(Runtime::instance().allocate(bytes)) {}
    ~Workspace() { Runtime::instance().release(block_); }
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    [[nodiscard]] void* data() const { return block_.memory; }

private:
    Block block_;
};

}  // namespace cuda

/// Chooses how products of float are computed on the device from now on; exact at first. bfloat16 is multiplied on
/// tensor cores in any case, with sums in float.
inline void set_float_math(FloatMath math) { cuda::Runtime::instance().float_math = math; }

/// Waits for all that was started on the device, as a clock that times it must.
inline void synchronize_device() { cuda::Runtime::instance().synchronize(); }

/// How many bytes the device's pool has taken from the system; constant while every request is served by reuse.
[[nodiscard]] inline std::uint64_t device_pool_bytes() { return cuda::Runtime::instance().reserved_bytes(); }

SD_NAMESPACE_END
