// Convolution weights between PyTorch's order, in which parameters are kept, and channels last, which libraries want.
#pragma once

#include "sd/core/window.hpp"
#include "sd/device/elementwise.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// The place of element i of (O, KH, KW, I) in (O, I, KH, KW): `taps` is KH KW.
[[nodiscard]] SD_HOST_DEVICE constexpr Index place_in_oihw(Index i, Index taps, Index channels) {
    const Index o = i / (taps * channels);
    const Index tap = i / channels % taps;
    return (o * channels + i % channels) * taps + tap;
}
/// The place of element i of (O, I, KH, KW) in (O, KH, KW, I).
[[nodiscard]] SD_HOST_DEVICE constexpr Index place_in_ohwi(Index i, Index taps, Index channels) {
    return place_in_oihw(i, channels, taps);
}

/// Element i of weights in the other order.
template <class From, bool to_ohwi>
struct ReorderedWeights {
    const From* source;
    Index taps, channels;
    [[nodiscard]] SD_HOST_DEVICE accumulate_t<From> operator()(Index i) const {
        return accumulate_t<From>(
            source[to_ohwi ? place_in_oihw(i, taps, channels) : place_in_ohwi(i, taps, channels)]);
    }
};

/// Weights (O, I, KH, KW) in the order (O, KH, KW, I), as elements of type T; the shape stays.
template <class T, class From, Accelerator Device>
[[nodiscard]] Tensor<T, Device> weights_channels_last(const Tensor<From, Device>& weight) {
    const Index taps = weight.extent(2) * weight.extent(3);
    if constexpr (std::is_same_v<T, From>) {
        if (taps == 1) return weight;
    }
    auto result = Tensor<T, Device>::empty(weight.shape());
    launch_map<Device>(ReorderedWeights<From, true>{weight.data(), taps, weight.extent(1)}, result.size(),
                       result.data());
    return result;
}

/// The way back, into `target`.
template <class T, class From, Accelerator Device>
void weights_channels_first(const Tensor<From, Device>& weight, Tensor<T, Device>& target) {
    const Index taps = target.extent(2) * target.extent(3);
    launch_map<Device>(ReorderedWeights<From, false>{weight.data(), taps, target.extent(1)}, target.size(),
                       target.data());
}

}  // namespace cuda

SD_NAMESPACE_END
