// Kernels whose elements know nothing of each other: gradients that add up, weights that are averaged, buckets that ranks
// exchange.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/reference/elementwise.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

using reference::add_to;
using reference::copy_elements;
using reference::move_towards;
using reference::scale_by;

/// sum += term, element by element; shapes are equal.
template <cpu::Vectorized T>
void add_to(Tensor<T>& sum, const Tensor<T>& term) {
    parallel_ranges(sum.size(), cpu::sweep_elements, [&](Index first, Index last) {
        T* target = sum.data();
        const T* source = term.data();
        for (Index i = first; i < last; ++i) target[i] = target[i] + source[i];
    });
}

/// x *= factor, element by element.
template <cpu::Vectorized T>
void scale_by(Tensor<T>& x, const accumulate_t<T>& factor) {
    parallel_ranges(x.size(), cpu::sweep_elements, [&](Index first, Index last) {
        T* target = x.data();
        for (Index i = first; i < last; ++i) target[i] = target[i] * factor;
    });
}

/// x += share (target - x), element by element; shapes are equal.
template <cpu::Vectorized T>
void move_towards(Tensor<T>& x, const Tensor<T>& target, const accumulate_t<T>& share) {
    parallel_ranges(x.size(), cpu::sweep_elements, [&](Index first, Index last) {
        T* own = x.data();
        const T* other = target.data();
        for (Index i = first; i < last; ++i) own[i] = own[i] + share * (other[i] - own[i]);
    });
}

/// Copies `count` elements from element `source_first` on to element `target_first` on.
template <cpu::Vectorized T>
void copy_elements(const Tensor<T>& source, Index source_first, Index count, Tensor<T>& target, Index target_first) {
    parallel_ranges(count, cpu::sweep_elements, [&](Index first, Index last) {
        const T* from = source.data() + source_first;
        std::copy(from + first, from + last, target.data() + target_first + first);
    });
}

SD_NAMESPACE_END
