// Images with more or fewer channels, on a device.
#pragma once

#include "sd/device/elementwise.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// Element i of the result.
template <class T>
struct WithChannels {
    const T* x;
    Index from, to;  ///< channels of x and of the result
    [[nodiscard]] SD_HOST_DEVICE accumulate_t<T> operator()(Index i) const {
        const Index c = i % to;
        return c < from ? accumulate_t<T>(x[i / to * from + c]) : accumulate_t<T>(0);
    }
};

}  // namespace cuda

/// Images (N, H, W, channels) with the channels that both have, and zeros in the others; x (N, H, W, C).
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> with_channels(const Tensor<T, Device>& x, Index channels) {
    auto y = Tensor<T, Device>::empty({x.extent(0), x.extent(1), x.extent(2), channels});
    cuda::launch_map<Device>(cuda::WithChannels<T>{x.data(), x.extent(3), channels}, y.size(), y.data());
    return y;
}

SD_NAMESPACE_END
