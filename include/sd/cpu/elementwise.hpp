// Kernels whose elements know nothing of each other: gradients that add up, weights that are averaged, buckets that ranks
// exchange, other types of number.
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

namespace cpu {

/// Calls use(i, count) for every vector of `size` elements, in parallel.
template <class T, class Use>
void sweep_vectors(Index size, const Use& use) {
    parallel_ranges(size, sweep_elements, [&](Index first, Index last) {
        for_each_vector<T>(last - first, [&](Index i, auto count) { use(first + i, count); });
    });
}

}  // namespace cpu

/// sum += term, element by element; shapes are equal.
template <cpu::Vectorized T>
void add_to(Tensor<T>& sum, const Tensor<T>& term) {
    cpu::sweep_vectors<T>(sum.size(), [&](Index i, auto count) {
        T* target = sum.data() + i;
        cpu::store_some<T>(cpu::load_some(target, count) + cpu::load_some(term.data() + i, count), target, count);
    });
}

/// x *= factor, element by element.
template <cpu::Vectorized T>
void scale_by(Tensor<T>& x, const accumulate_t<T>& factor) {
    cpu::sweep_vectors<T>(x.size(), [&](Index i, auto count) {
        T* target = x.data() + i;
        cpu::store_some<T>(cpu::load_some(target, count) * factor, target, count);
    });
}

/// x += share (target - x), element by element; shapes are equal.
template <cpu::Vectorized T>
void move_towards(Tensor<T>& x, const Tensor<T>& target, const accumulate_t<T>& share) {
    cpu::sweep_vectors<T>(x.size(), [&](Index i, auto count) {
        const cpu::Vector<T> own = cpu::load_some(x.data() + i, count);
        const cpu::Vector<T> other = cpu::load_some(target.data() + i, count);
        cpu::store_some<T>(own + share * (other - own), x.data() + i, count);
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

/// x with another type of elements, each rounded once; x itself if it has that type.
template <cpu::Vectorized T, cpu::Vectorized From>
requires std::same_as<accumulate_t<T>, accumulate_t<From>>
[[nodiscard]] Tensor<T> converted(const Tensor<From>& x) {
    if constexpr (std::is_same_v<T, From>) {
        return x;
    } else {
        Tensor<T> y = Tensor<T>::empty(x.shape());
        cpu::sweep_vectors<T>(x.size(), [&](Index i, auto count) {
            cpu::store_some<T>(cpu::load_some(x.data() + i, count), y.data() + i, count);
        });
        return y;
    }
}

/// The same elements, of a type to calculate with: float.
[[nodiscard]] inline Tensor<float> to_host_numbers(const Tensor<bfloat16>& x) { return converted<float>(x); }

SD_NAMESPACE_END
