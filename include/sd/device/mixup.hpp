// Mixup's kernels on a device; formulas in reference/mixup.hpp.
#pragma once

#include "sd/device/cross_entropy.hpp"
#include "sd/cpu/mixup.hpp"

#include <algorithm>
#include <span>

SD_NAMESPACE_BEGIN

namespace cuda {

template <class T>
struct MixSamples {
    using A = accumulate_t<T>;
    Index slab;  ///< elements of a sample
    const T* x;
    const Index* partner;
    A own, other;
    T* mixed;

    SD_HOST_DEVICE void operator()(Index i) const {
        const Index n = i / slab;
        mixed[i] = T(A(own * A(x[i]) + other * A(x[i + (partner[n] - n) * slab])));
    }
};

template <class T>
struct PasteSamples {
    Index height, width, channels;
    const T* x;
    const Index* partner;
    ImageBox box;
    T* pasted;

    SD_HOST_DEVICE void operator()(Index i) const {
        const Index pixel = i / channels;
        const Index n = pixel / (height * width);
        const bool other = box.contains(pixel / width % height, pixel % width);
        pasted[i] = x[other ? i + (partner[n] - n) * height * width * channels : i];
    }
};

template <class T>
struct OneHot {
    using A = accumulate_t<T>;
    Index classes;
    const Index* labels;
    T* target;

    SD_HOST_DEVICE void operator()(Index i) const { target[i] = T(A(labels[i / classes] == i % classes ? 1 : 0)); }
};

}  // namespace cuda

/// x_n = share x_n + (1 - share) x_{partner[n]} for all samples n of a new tensor.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> mix_samples(const Tensor<T, Device>& x, std::span<const Index> partner, double share) {
    using A = accumulate_t<T>;
    auto mixed = Tensor<T, Device>::empty(x.shape());
    const auto partners = cuda::uploaded<Device>(partner);
    const Index slab = x.size() / std::max<Index>(1, x.extent(0));
    cuda::launch_each<Device>(x.size(), cuda::MixSamples<T>{slab, x.data(), partners.data(), static_cast<A>(share),
                                                            static_cast<A>(1 - share), mixed.data()});
    return mixed;
}

/// x_n with the box of x_{partner[n]}, for all samples n of a new tensor; x (N, H, W, C), the box within H and W.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> paste_samples(const Tensor<T, Device>& x, std::span<const Index> partner,
                                              const ImageBox& box) {
    auto pasted = Tensor<T, Device>::empty(x.shape());
    const auto partners = cuda::uploaded<Device>(partner);
    cuda::launch_each<Device>(x.size(), cuda::PasteSamples<T>{x.extent(1), x.extent(2), x.extent(3), x.data(),
                                                              partners.data(), box, pasted.data()});
    return pasted;
}

/// The labels as probabilities (N, classes), 1 at the label, where the images are and of their type.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> one_hot_like(const Tensor<T, Device>& images, std::span<const Index> labels,
                                             Index classes) {
    auto target = Tensor<T, Device>::empty({images.extent(0), classes});
    const auto own = cuda::uploaded<Device>(labels);
    cuda::launch_each<Device>(target.size(), cuda::OneHot<T>{classes, own.data(), target.data()});
    return target;
}

SD_NAMESPACE_END
