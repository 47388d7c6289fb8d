// Images with more or fewer channels.
#pragma once

#include "sd/core/tensor.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace reference {

/// Images (N, H, W, channels) with the channels that both have, and zeros in the others; x (N, H, W, C).
template <class T>
[[nodiscard]] Tensor<T> with_channels(const Tensor<T>& x, Index channels) {
    Tensor<T> y(Shape{x.extent(0), x.extent(1), x.extent(2), channels});
    const Index common = std::min(x.extent(3), channels);
    for (Index pixel = 0; pixel < x.extent(0) * x.extent(1) * x.extent(2); ++pixel) {
        const T* source = x.data() + pixel * x.extent(3);
        std::copy(source, source + common, y.data() + pixel * channels);
    }
    return y;
}

}  // namespace reference

SD_NAMESPACE_END
