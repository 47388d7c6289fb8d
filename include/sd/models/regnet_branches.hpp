// The residual branch F of RegNet, up to its last batch norm.
// I. Radosavovic et al., "Designing network design spaces", CVPR 2020; all names as in torchvision.
#pragma once

#include "sd/models/conv_norm.hpp"
#include "sd/nn/optional_layer.hpp"
#include "sd/nn/squeeze_excitation.hpp"

#include <cmath>
#include <string_view>
#include <utility>

SD_NAMESPACE_BEGIN

/// Settings of a branch of RegNet.
struct RegNetBranchOptions {
    Index in_channels = 32;            ///< of x
    Index out_channels = 32;           ///< of F(x)
    Index stride = 1;                  ///< of the 3x3 convolution
    Index group_width = 16;            ///< channels of a group of the 3x3 convolution
    double bottleneck_multiplier = 1;  ///< width of the 3x3 convolution over out_channels, before rounding
    double se_ratio = 0;         ///< squeezed channels over in_channels, before rounding; 0: no squeeze-and-excitation
    BatchNormOptions norm = {};  ///< of all batch norms
};

/// F(x) = f.c(f.se(f.b(f.a(x)))) of x (N, H, W, in_channels), (N, H / stride, W / stride, out_channels), rounded up:
///
///     f.a    ReLU(bn(conv)), 1x1 to w = bottleneck_multiplier out_channels
///     f.b    ReLU(bn(conv)), 3x3 with the stride, w / group_width groups
///     f.se   squeeze-and-excitation by se_ratio in_channels, with ReLU (RegNetY)
///     f.c    bn(conv), 1x1 to out_channels
///
/// Widths are rounded to the nearest whole number, halves to even, as Python does.
template <class T, class Device = Cpu>
class RegNetBranch
    : public Sequential<ConvNormActivation<Activation::relu, T, Device>,
                        ConvNormActivation<Activation::relu, T, Device>,
                        OptionalLayer<SqueezeExcitation<T, Device, Activation::relu>>, ConvNorm<T, Device>> {
    using ConvRelu = ConvNormActivation<Activation::relu, T, Device>;
    using Excite = SqueezeExcitation<T, Device, Activation::relu>;
    using Last = ConvNorm<T, Device>;

public:
    /// The name that surgery knows it by.
    static constexpr std::string_view layer_name = "RegNetBlock";

    /// Throws std::invalid_argument for settings that do not fit together.
    RegNetBranch(const RegNetBranchOptions& o, Initializer& initializer)
        : Sequential<ConvRelu, ConvRelu, OptionalLayer<Excite>, Last>{
              named("f.a", conv_norm_activation<Activation::relu, T, Device>(
                               {.in_channels = o.in_channels, .out_channels = width(o), .norm = o.norm}, initializer)),
              named("f.b", conv_norm_activation<Activation::relu, T, Device>({.in_channels = width(o),
                                                                              .out_channels = width(o),
                                                                              .kernel = 3,
                                                                              .stride = o.stride,
                                                                              .groups = width(o) / o.group_width,
                                                                              .norm = o.norm},
                                                                             initializer)),
              named("f.se", excite(o, initializer)),
              named("f.c",
                    conv_norm<T, Device>({.in_channels = width(o), .out_channels = o.out_channels, .norm = o.norm},
                                         initializer))} {}

private:
    static Index width(const RegNetBranchOptions& o) {
        if (o.group_width < 1) refuse("RegNetBranch", "group_width", o.group_width, "1 or more");
        const auto width =
            static_cast<Index>(std::nearbyint(static_cast<double>(o.out_channels) * o.bottleneck_multiplier));
        if (width < 1 || width % o.group_width != 0) {
            refuse("RegNetBranch", "width of the 3x3 convolution", width,
                   text("a multiple of group_width, ", o.group_width));
        }
        return width;
    }

    static OptionalLayer<Excite> excite(const RegNetBranchOptions& o, Initializer& initializer) {
        if (o.se_ratio == 0) return {};
        const auto squeezed = static_cast<Index>(std::nearbyint(o.se_ratio * static_cast<double>(o.in_channels)));
        Excite layer(width(o), squeezed, initializer);
        set_bias(layer.fc1(), width(o), initializer);
        set_bias(layer.fc2(), squeezed, initializer);
        return OptionalLayer<Excite>(std::move(layer));  // nvcc does not move by itself here
    }
    // From U(-1 / sqrt(fan in), 1 / sqrt(fan in)), PyTorch's default, which torchvision's RegNet leaves them.
    static void set_bias(Conv2d<T, Device>& conv, Index fan_in, Initializer& initializer) {
        const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
        Tensor<accumulate_t<T>, Device>& bias = conv.bias()->value;
        bias = to_device<Device>(initializer.uniform<accumulate_t<T>>(bias.shape(), bound));
    }
};

SD_NAMESPACE_END
