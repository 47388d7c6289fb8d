// The norm of several tensors as one vector, cut to a largest one, on a device; formula in reference/clip_norm.hpp.
#pragma once

#include "sd/cpu/clip_norm.hpp"
#include "sd/device/kernel.hpp"

#include <cmath>
#include <span>

SD_NAMESPACE_BEGIN

namespace cuda {

/// sums[block] = the sum of the squares of the block's elements.
template <class T>
struct SumOfSquares {
    static constexpr int phases = 2;
    static constexpr Index block_elements = 16 * block_threads;
    struct Shared {
        double part[block_threads];
    };
    Index size;
    const T* x;
    double* sums;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const Index begin = thread.block * block_elements;
        double sum = 0;
        for (Index i = begin + thread.index; i < begin + block_elements && i < size; i += block_threads) {
            const auto value = static_cast<double>(accumulate_t<T>(x[i]));
            sum += value * value;
        }
        shared.part[thread.index] = sum;
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        if (thread.index == 0) sums[thread.block] = sum_of_block(shared.part);
    }
};

/// numbers = the norm, and the factor that cuts it; by one block.
struct NormAndFactor {
    static constexpr int phases = 2;
    struct Shared {
        double part[block_threads];
    };
    Index count;
    const double* sums;
    double max_norm;
    double* numbers;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        double sum = 0;
        for (Index i = thread.index; i < count; i += block_threads) sum += sums[i];
        shared.part[thread.index] = sum;
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        using std::sqrt;
        if (thread.index != 0) return;
        const double norm = sqrt(sum_of_block(shared.part));
        const double factor = max_norm / (norm + 1e-6);
        numbers[0] = norm;
        numbers[1] = factor < 1 ? factor : 1.0;
    }
};

/// x *= numbers[1].
template <class T>
struct TimesFactor {
    const double* numbers;
    T* x;
    SD_HOST_DEVICE void operator()(Index i) const {
        using A = accumulate_t<T>;
        x[i] = T(A(A(x[i]) * static_cast<A>(numbers[1])));
    }
};

}  // namespace cuda

/// Scales the tensors so that their norm as one vector is at most max_norm, and returns the norm before, as a tensor of
/// one, left on the device: nobody waits for it.
template <class T, cuda::Accelerator Device>
Tensor<double, Device> clip_norm(std::span<Tensor<T, Device>> tensors, double max_norm) {
    using Kernel = cuda::SumOfSquares<T>;
    Index blocks = 0;
    for (const auto& x : tensors) blocks += cuda::quotient_up(x.size(), Kernel::block_elements);
    auto sums = Tensor<double, Device>::empty({blocks});
    Index first = 0;
    for (const auto& x : tensors) {
        const Index own = cuda::quotient_up(x.size(), Kernel::block_elements);
        cuda::launch<Device>(Kernel{x.size(), x.data(), sums.data() + first}, own);
        first += own;
    }
    auto numbers = Tensor<double, Device>::empty({2});
    cuda::launch<Device>(cuda::NormAndFactor{blocks, sums.data(), max_norm, numbers.data()}, 1);
    for (auto& x : tensors) cuda::launch_each<Device>(x.size(), cuda::TimesFactor<T>{numbers.data(), x.data()});
    return numbers.in_room({1});
}

SD_NAMESPACE_END
