// Kernels whose elements know nothing of each other.
#pragma once

#include "sd/core/tensor.hpp"

SD_NAMESPACE_BEGIN

namespace reference {

/// sum += term, element by element; shapes are equal.
template <class T>
void add_to(Tensor<T>& sum, const Tensor<T>& term) {
    for (Index i = 0; i < sum.size(); ++i) sum.data()[i] = sum.data()[i] + term.data()[i];
}

/// x *= factor, element by element.
template <class T>
void scale_by(Tensor<T>& x, const accumulate_t<T>& factor) {
    for (Index i = 0; i < x.size(); ++i) x.data()[i] = T(x.data()[i] * factor);
}

/// x += share (target - x), element by element; shapes are equal.
template <class T>
void move_towards(Tensor<T>& x, const Tensor<T>& target, const accumulate_t<T>& share) {
    for (Index i = 0; i < x.size(); ++i) x.data()[i] = T(x.data()[i] + share * (target.data()[i] - x.data()[i]));
}

/// Copies `count` elements from element `source_first` on to element `target_first` on.
template <class T>
void copy_elements(const Tensor<T>& source, Index source_first, Index count, Tensor<T>& target, Index target_first) {
    for (Index i = 0; i < count; ++i) target.data()[target_first + i] = source.data()[source_first + i];
}

}  // namespace reference

SD_NAMESPACE_END
