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

/// x_n = share x_n + (1 - share) x_{partner[n]} for all samples n of a new tensor.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> mix_samples(const Tensor<T>& x, std::span<const Index> partner, double share) {
    Tensor<T> mixed = Tensor<T>::empty(x.shape());
    const Index slab = x.size() / std::max<Index>(1, x.extent(0));
    const T own = static_cast<T>(share);
    const T other = static_cast<T>(1 - share);
    parallel_for(x.extent(0), [&](Index n) {
        const T* a = x.data() + n * slab;
        const T* b = x.data() + partner[static_cast<std::size_t>(n)] * slab;
        T* y = mixed.data() + n * slab;
        for (Index i = 0; i < slab; ++i) y[i] = own * a[i] + other * b[i];
    });
    return mixed;
}

SD_NAMESPACE_END
