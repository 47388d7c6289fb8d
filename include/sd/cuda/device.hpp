// The GPU as a device of tensors: where elements are, and how kernels start.
#pragma once

#include "sd/device/elementwise.hpp"
#include "sd/cuda/runtime.hpp"
#include "sd/device/write_arguments.hpp"

#include <cstddef>
#include <limits>
#include <memory>
#include <type_traits>
#include <typeinfo>
#include <utility>

#if !defined(__CUDACC__)
#error "sd/cuda: a unit that includes sd/cuda/cuda.hpp is compiled by nvcc"
#endif

SD_NAMESPACE_BEGIN

/// An NVIDIA GPU.
struct Cuda {
    static constexpr bool in_cpu_memory = false;   ///< elements are in the GPU's memory
    static constexpr bool runs_beside_cpu = true;  ///< the stream's work goes on while the CPU does
    static constexpr bool replays_steps = true;    ///< by CUDA graphs
    static constexpr bool runs_kernels = true;     ///< what makes it an accelerator
};

namespace cuda {

template <class Kernel, int... phases>
__device__ void run_phases(const Kernel& kernel, Thread thread, typename Kernel::Shared& shared,
                           std::integer_sequence<int, phases...>) {
    ((kernel(Phase<phases>(), thread, shared), __syncthreads()), ...);
}

/// The one entry of all kernels.
template <class Kernel>
__global__ void __launch_bounds__(block_threads) run_kernel(const __grid_constant__ Kernel kernel) {
    const Thread thread{static_cast<Index>(blockIdx.x), static_cast<int>(threadIdx.x)};
    if constexpr (requires { Kernel::phases; }) {
        __shared__ alignas(16) unsigned char memory[sizeof(typename Kernel::Shared)];
        run_phases(kernel, thread, *reinterpret_cast<typename Kernel::Shared*>(memory),
                   std::make_integer_sequence<int, Kernel::phases>());
    } else {
        kernel(thread);
    }
}

template <>
struct Launcher<Cuda> {
    template <class Kernel>
    static void run(const Kernel& kernel, Index blocks) {
        if (blocks > std::numeric_limits<int>::max()) {
            refuse("sd::Cuda", "blocks of a kernel", blocks, std::numeric_limits<int>::max());
        }
        run_kernel<<<static_cast<unsigned>(blocks), block_threads, 0, Runtime::instance().stream()>>>(kernel);
        check(words_of(cudaGetLastError()), typeid(Kernel).name(), __FILE__, __LINE__);
    }
};

}  // namespace cuda

/// The GPU's storage, in the device's pool. Copies to it leave the CPU's memory free to be changed as soon as
/// they return; copies from it wait for the device.
template <class T>
class Storage<T, Cuda> {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    Storage() = default;
    /// Elements are left as they are.
    explicit Storage(Index count) : count_(count) {
        if (count > 0) buffer_ = std::allocate_shared<cuda::Workspace>(PoolAllocator<cuda::Workspace>(), bytes(count));
    }
    /// The first element, on the device; null if there is none.
    [[nodiscard]] T* data() const { return buffer_ == nullptr ? nullptr : static_cast<T*>(buffer_->data()); }
    /// Sets every element.
    void fill(const T& value) {
        cuda::launch_map<Cuda>(cuda::Constant<accumulate_t<T>>{accumulate_t<T>(value)}, count_, data());
    }
    /// Copies as many elements from another storage of the device.
    void copy_from(const Storage& other) { copy(other.data(), count_, data(), cudaMemcpyDeviceToDevice); }
    /// Copies the first `count` elements from the CPU's memory. Few of them travel with a kernel, so that nobody
    /// waits; more are waited for, since the device may read them from where they are.
    void write(const T* source, Index count) {
        if (bytes(count) <= cuda::most_argument_bytes) {
            cuda::write_by_arguments<Cuda>(source, bytes(count), data());
        } else {
            copy(source, count, data(), cudaMemcpyHostToDevice);
            cuda::Runtime::instance().synchronize();
        }
    }
    /// Copies the first `count` elements to the CPU's memory, and waits for them.
    void read(T* target, Index count) const {
        copy(data(), count, target, cudaMemcpyDeviceToHost);
        cuda::Runtime::instance().synchronize();
    }
    /// True if nobody else refers to the elements.
    [[nodiscard]] bool is_only_reference() const { return buffer_.use_count() == 1; }

private:
    [[nodiscard]] static std::size_t bytes(Index count) { return static_cast<std::size_t>(count) * sizeof(T); }
    static void copy(const T* from, Index count, T* to, cudaMemcpyKind kind) {
        if (count == 0) return;
        SD_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes(count), kind, cuda::Runtime::instance().stream()));
    }

    std::shared_ptr<cuda::Workspace> buffer_;
    Index count_ = 0;
};

/// Fills the memory that freed tensors left in the device's pool with NaN, as the CPU's does.
inline void poison_pool(Cuda) { cuda::Runtime::instance().poison(); }

SD_NAMESPACE_END
