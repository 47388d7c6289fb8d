// Mixup's kernels on a device; formulas in train/mixup.hpp.
#pragma once

#include "sd/cuda/cross_entropy.hpp"
#include "sd/train/mixup.hpp"

#include <algorithm>
#include <span>

SD_NAMESPACE_BEGIN

namespace cuda {

template <class T>
struct MixSamples {
    using A = accumulate_t<T>;
    Index size, slab;  ///< elements of all samples, and of one
    const T* x;
    const Index* partner;
    A own, other;
    T* mixed;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index i = thread.block * block_threads + thread.index;
        if (i >= size) return;
        const Index n = i / slab;
        mixed[i] = T(A(own * A(x[i]) + other * A(x[i + (partner[n] - n) * slab])));
    }
};

template <class T>
struct OneHot {
    using A = accumulate_t<T>;
    Index size, classes;
    const Index* labels;
    T* target;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index i = thread.block * block_threads + thread.index;
        if (i < size) target[i] = T(A(labels[i / classes] == i % classes ? 1 : 0));
    }
};

}  // namespace cuda

/// x_n = share x_n + (1 - share) x_{partner[n]} for all samples n of a new tensor.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> mix_samples(const Tensor<T, Device>& x, std::span<const Index> partner, double share) {
    using A = accumulate_t<T>;
    auto mixed = Tensor<T, Device>::empty(x.shape());
    const auto partners = cuda::uploaded<Device>(partner);
    const Index slab = x.size() / std::max<Index>(1, x.extent(0));
    cuda::launch<Device>(cuda::MixSamples<T>{x.size(), slab, x.data(), partners.data(), static_cast<A>(share),
                                             static_cast<A>(1 - share), mixed.data()},
                         cuda::quotient_up(x.size(), cuda::block_threads));
    return mixed;
}

/// The labels as probabilities (N, classes), 1 at the label, where the images are and of their type.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> one_hot_like(const Tensor<T, Device>& images, std::span<const Index> labels,
                                             Index classes) {
    auto target = Tensor<T, Device>::empty({images.extent(0), classes});
    const auto own = cuda::uploaded<Device>(labels);
    cuda::launch<Device>(cuda::OneHot<T>{target.size(), classes, own.data(), target.data()},
                         cuda::quotient_up(target.size(), cuda::block_threads));
    return target;
}

SD_NAMESPACE_END
