// Mixtures of pairs of samples, by shares and by boxes, and targets to mix.
#pragma once

#include "sd/core/tensor.hpp"
#include "sd/core/window.hpp"

#include <algorithm>
#include <cstddef>
#include <span>

SD_NAMESPACE_BEGIN

namespace reference {

/// x_n = share x_n + (1 - share) x_{partner[n]} for all samples n of a new tensor.
template <class T>
[[nodiscard]] Tensor<T> mix_samples(const Tensor<T>& x, std::span<const Index> partner, double share) {
    Tensor<T> mixed = Tensor<T>::empty(x.shape());
    const Index slab = x.size() / std::max<Index>(1, x.extent(0));
    const T own = static_cast<T>(share);
    const T other = static_cast<T>(1 - share);
    for (Index n = 0; n < x.extent(0); ++n) {
        const T* a = x.data() + n * slab;
        const T* b = x.data() + partner[static_cast<std::size_t>(n)] * slab;
        for (Index i = 0; i < slab; ++i) mixed.data()[n * slab + i] = own * a[i] + other * b[i];
    }
    return mixed;
}

/// x_n with the box of x_{partner[n]}, for all samples n of a new tensor; x (N, H, W, C), the box within H and W.
template <class T>
[[nodiscard]] Tensor<T> paste_samples(const Tensor<T>& x, std::span<const Index> partner, const ImageBox& box) {
    Tensor<T> pasted = x.clone();
    for (Index n = 0; n < x.extent(0); ++n) {
        for (Index h = box.top; h < box.bottom; ++h) {
            for (Index w = box.left; w < box.right; ++w) {
                for (Index c = 0; c < x.extent(3); ++c) {
                    pasted(n, h, w, c) = x(partner[static_cast<std::size_t>(n)], h, w, c);
                }
            }
        }
    }
    return pasted;
}

/// The labels as probabilities (N, classes), 1 at the label, where the images are and of their type.
template <class T>
[[nodiscard]] Tensor<T> one_hot_like(const Tensor<T>& images, std::span<const Index> labels, Index classes) {
    Tensor<T> targets({images.extent(0), classes});
    for (std::size_t n = 0; n < labels.size(); ++n) targets(static_cast<Index>(n), labels[n]) = T(1);
    return targets;
}

}  // namespace reference

SD_NAMESPACE_END
