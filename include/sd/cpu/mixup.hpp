// Mixtures of pairs of samples. Targets to mix are few: the plain loops serve every scalar type.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/simd.hpp"
#include "sd/reference/mixup.hpp"

#include <algorithm>
#include <cstddef>
#include <span>

SD_NAMESPACE_BEGIN

using reference::mix_samples;
using reference::one_hot_like;
using reference::paste_samples;

/// x_n = share x_n + (1 - share) x_{partner[n]} for all samples n of a new tensor.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> mix_samples(const Tensor<T>& x, std::span<const Index> partner, double share) {
    Tensor<T> mixed = Tensor<T>::empty(x.shape());
    const Index slab = x.size() / std::max<Index>(1, x.extent(0));
    const auto own = static_cast<accumulate_t<T>>(share);
    const auto other = static_cast<accumulate_t<T>>(1 - share);
    parallel_for(x.extent(0), [&](Index n) {
        const T* a = x.data() + n * slab;
        const T* b = x.data() + partner[static_cast<std::size_t>(n)] * slab;
        T* y = mixed.data() + n * slab;
        cpu::for_each_vector<T>(slab, [&](Index i, auto count) {
            const cpu::Vector<T> first = cpu::load_some(a + i, count);
            const cpu::Vector<T> second = cpu::load_some(b + i, count);
            cpu::store_some<T>(own * first + other * second, y + i, count);
        });
    });
    return mixed;
}

/// x_n with the box of x_{partner[n]}, for all samples n of a new tensor; x (N, H, W, C), the box within H and W.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> paste_samples(const Tensor<T>& x, std::span<const Index> partner, const ImageBox& box) {
    Tensor<T> pasted = Tensor<T>::empty(x.shape());
    const Index row = x.extent(2) * x.extent(3);
    const Index slab = x.extent(1) * row;
    const Index first = box.left * x.extent(3), last = box.right * x.extent(3);
    parallel_for(x.extent(0), [&](Index n) {
        const T* own = x.data() + n * slab;
        const T* other = x.data() + partner[static_cast<std::size_t>(n)] * slab;
        T* y = pasted.data() + n * slab;
        std::copy_n(own, slab, y);
        for (Index h = box.top; h < box.bottom; ++h)
            std::copy(other + h * row + first, other + h * row + last, y + h * row + first);
    });
    return pasted;
}

SD_NAMESPACE_END
