// What EfficientNet and RegNet and their branches are put together from, with torchvision's names, and how their widths are
// rounded.
#pragma once

#include "sd/nn/activation.hpp"
#include "sd/nn/batch_norm2d.hpp"
#include "sd/nn/conv2d.hpp"
#include "sd/nn/sequential.hpp"

#include <algorithm>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// bn(conv(x)), named 0 and 1: torchvision's Conv2dNormActivation without an activation.
template <class T, class Device = Cpu>
using ConvNorm = Sequential<Conv2d<T, Device>, BatchNorm2d<T, Device>>;
/// act(bn(conv(x))), the convolution named 0 and the norm 1: torchvision's Conv2dNormActivation.
template <Activation activation, class T, class Device = Cpu>
using ConvNormActivation =
    Sequential<Conv2d<T, Device>, BatchNorm2d<T, Device>, ActivationLayer<activation, T, Device>>;

/// Settings of a convolution that a norm follows.
struct ConvNormOptions {
    Index in_channels = 1;       ///< of x
    Index out_channels = 1;      ///< of the convolution
    Index kernel = 1;            ///< odd; the padding is half of it, rounded down
    Index stride = 1;            ///< of the convolution
    Index groups = 1;            ///< of the convolution
    BatchNormOptions norm = {};  ///< of the batch norm
};

namespace detail {

template <class T, class Device>
Conv2d<T, Device> conv_of(const ConvNormOptions& options, Initializer& initializer) {
    return {options.in_channels,
            options.out_channels,
            options.kernel,
            {.stride = options.stride, .padding = options.kernel / 2, .groups = options.groups},
            initializer};
}

/// How many blocks each stage has.
template <class Stage>
[[nodiscard]] std::vector<Index> layers_of(const std::vector<Stage>& stages) {
    std::vector<Index> layers;
    for (const Stage& stage : stages) layers.push_back(stage.layers);
    return layers;
}

}  // namespace detail

/// A ConvNorm with these settings. Throws std::invalid_argument if they do not fit together.
template <class T, class Device>
[[nodiscard]] ConvNorm<T, Device> conv_norm(const ConvNormOptions& options, Initializer& initializer) {
    return ConvNorm<T, Device>{named("0", detail::conv_of<T, Device>(options, initializer)),
                               named("1", BatchNorm2d<T, Device>(options.out_channels, options.norm))};
}

/// A ConvNormActivation with these settings. Throws std::invalid_argument if they do not fit together.
template <Activation activation, class T, class Device>
[[nodiscard]] ConvNormActivation<activation, T, Device> conv_norm_activation(const ConvNormOptions& options,
                                                                             Initializer& initializer) {
    return ConvNormActivation<activation, T, Device>{
        named("0", detail::conv_of<T, Device>(options, initializer)),
        named("1", BatchNorm2d<T, Device>(options.out_channels, options.norm)),
        named("2", ActivationLayer<activation, T, Device>())};
}

/// The multiple of the divisor that is nearest to a width, at least the divisor and not less than nine tenths of the width:
/// 19.2 gives 24. As in MobileNet and torchvision.
[[nodiscard]] inline Index make_divisible(double width, Index divisor = 8) {
    const auto rounded = static_cast<Index>(width + static_cast<double>(divisor) / 2) / divisor * divisor;
    const Index multiple = std::max(divisor, rounded);
    return static_cast<double>(multiple) < 0.9 * width ? multiple + divisor : multiple;
}

SD_NAMESPACE_END
