// What layer norm's forward pass leaves for its backward pass, and what that gives.
#pragma once

#include "sd/core/tensor.hpp"

SD_NAMESPACE_BEGIN

/// The statistics of each pixel, over its channels.
template <class A, class Device = Cpu>
struct LayerNormStatistics {
    Tensor<A, Device> mean;         ///< (pixels)
    Tensor<A, Device> inverse_std;  ///< (pixels), 1 / sqrt(variance + eps), the variance biased
};

/// The gradients of layer norm.
template <class T, class Device = Cpu>
struct LayerNormGradient {
    Tensor<T, Device> dx;                     ///< of x's shape
    Tensor<accumulate_t<T>, Device> dweight;  ///< (C)
    Tensor<accumulate_t<T>, Device> dbias;    ///< (C)
};

namespace detail {

/// Refuses a weight or a bias that does not have one entry a channel of x (..., C), and x without channels.
template <class T, class A, class Device>
void expect_layer_norm(const char* where, const Tensor<T, Device>& x, const Tensor<A, Device>& weight,
                       const Tensor<A, Device>& bias) {
    const Shape channels{x.extent(x.rank() - 1)};
    if (channels[0] < 1) refuse(where, "channels", channels[0], "1 or more");
    expect_shape(where, "weight", weight.shape(), channels);
    expect_shape(where, "bias", bias.shape(), channels);
}

/// Refuses a gradient of another shape than x, and statistics that do not have one entry a pixel.
template <class T, class A, class Device>
void expect_layer_norm_pass(const char* where, const Tensor<T, Device>& dy, const Tensor<T, Device>& x,
                            const Tensor<A, Device>& weight, const LayerNormStatistics<A, Device>& statistics) {
    expect_layer_norm(where, x, weight, weight);
    expect_shape(where, "dy", dy.shape(), x.shape());
    const Shape pixels{x.size() / weight.size()};
    expect_shape(where, "mean", statistics.mean.shape(), pixels);
    expect_shape(where, "inverse_std", statistics.inverse_std.shape(), pixels);
}

}  // namespace detail

SD_NAMESPACE_END
