// The residual branch F of EfficientNet, up to its last batch norm: MBConv and FusedMBConv.
// M. Sandler et al., "MobileNetV2", CVPR 2018; M. Tan, Q. Le, "EfficientNet", ICML 2019, and "EfficientNetV2", ICML 2021;
// all names as in torchvision.
#pragma once

#include "sd/models/conv_norm.hpp"
#include "sd/nn/optional_layer.hpp"
#include "sd/nn/squeeze_excitation.hpp"

#include <algorithm>
#include <string>
#include <string_view>

SD_NAMESPACE_BEGIN

/// Settings of a branch of EfficientNet.
struct MBConvOptions {
    bool fused = false;          ///< FusedMBConv
    Index expand_ratio = 6;      ///< width inside over in_channels, before rounding to a multiple of 8
    Index kernel = 3;            ///< of the convolution that is not 1x1
    Index stride = 1;            ///< of the same
    Index in_channels = 16;      ///< of x
    Index out_channels = 16;     ///< of F(x)
    BatchNormOptions norm = {};  ///< of all batch norms
};

/// With e = make_divisible(in_channels expand_ratio) channels inside, of x (N, H, W, in_channels):
///
///     MBConv        F(x) = project(excite(depthwise(expand(x))))
///     FusedMBConv   F(x) = project(expand(x)), where expand has the kernel and the stride
///
///     expand     SiLU(bn(conv)), 1x1 to e channels; left out of an MBConv if e = in_channels
///     depthwise  SiLU(bn(conv)), a kernel a channel, with the stride
///     excite     squeeze-and-excitation by max(1, in_channels / 4) channels
///     project    bn(conv), 1x1 to out_channels; left out of a FusedMBConv if e = in_channels, whose F(x) then ends in SiLU
///
/// F(x) is (N, H / stride, W / stride, out_channels), rounded up. One type holds both, as one network does; the parts that
/// a branch has are named block.0, block.1, ... Surgery knows them as EfficientNetMBConv and EfficientNetFusedMBConv.
template <class T, class Device = Cpu>
class MBConv : public Sequential<OptionalLayer<ConvNormActivation<Activation::silu, T, Device>>,
                                 OptionalLayer<ConvNormActivation<Activation::silu, T, Device>>,
                                 OptionalLayer<SqueezeExcitation<T, Device>>, OptionalLayer<ConvNorm<T, Device>>> {
    using ConvSilu = ConvNormActivation<Activation::silu, T, Device>;
    using Excite = SqueezeExcitation<T, Device>;
    using Project = ConvNorm<T, Device>;

public:
    /// Throws std::invalid_argument for settings that do not fit together.
    MBConv(const MBConvOptions& options, Initializer& initializer) : MBConv(options, initializer, Numbered{}) {}

    /// The name that surgery knows it by.
    [[nodiscard]] std::string_view branch_name() const {
        return fused_ ? "EfficientNetFusedMBConv" : "EfficientNetMBConv";
    }

private:
    // Numbers the parts that are there, in order.
    struct Numbered {
        Index next = 0;

        template <class Part, class Make>
        Named<OptionalLayer<Part>> part(bool present, const Make& make) {
            if (!present) return named("", OptionalLayer<Part>());
            return named(text("block.", next++), OptionalLayer<Part>(make()));
        }
    };

    // Braces, so that start values are drawn and parts numbered in the order of the layers.
    MBConv(const MBConvOptions& o, Initializer& initializer, Numbered numbered)
        : Sequential<OptionalLayer<ConvSilu>, OptionalLayer<ConvSilu>, OptionalLayer<Excite>,
                     OptionalLayer<Project>>{numbered.template part<ConvSilu>(
                                                 o.fused || expands(o),
                                                 [&] {
                                                     return conv_norm_activation<Activation::silu, T, Device>(
                                                         expand(o), initializer);
                                                 }),
                                             numbered.template part<ConvSilu>(
                                                 !o.fused,
                                                 [&] {
                                                     return conv_norm_activation<Activation::silu, T, Device>(
                                                         depthwise(o), initializer);
                                                 }),
                                             numbered.template part<Excite>(
                                                 !o.fused,
                                                 [&] {
                                                     return Excite(width(o), std::max<Index>(1, o.in_channels / 4),
                                                                   initializer);
                                                 }),
                                             numbered.template part<Project>(!o.fused || expands(o),
                                                                             [&] {
                                                                                 return conv_norm<T, Device>(
                                                                                     {.in_channels = width(o),
                                                                                      .out_channels = o.out_channels,
                                                                                      .norm = o.norm},
                                                                                     initializer);
                                                                             })},
          fused_(o.fused) {}

    static Index width(const MBConvOptions& o) {
        if (o.in_channels < 1) refuse("MBConv", "in_channels", o.in_channels, "1 or more");
        if (o.expand_ratio < 1) refuse("MBConv", "expand_ratio", o.expand_ratio, "1 or more");
        return make_divisible(static_cast<double>(o.in_channels * o.expand_ratio));
    }
    static bool expands(const MBConvOptions& o) { return width(o) != o.in_channels; }
    static ConvNormOptions expand(const MBConvOptions& o) {
        if (!o.fused) return {.in_channels = o.in_channels, .out_channels = width(o), .norm = o.norm};
        return {.in_channels = o.in_channels,
                .out_channels = expands(o) ? width(o) : o.out_channels,
                .kernel = o.kernel,
                .stride = o.stride,
                .norm = o.norm};
    }
    static ConvNormOptions depthwise(const MBConvOptions& o) {
        return {.in_channels = width(o),
                .out_channels = width(o),
                .kernel = o.kernel,
                .stride = o.stride,
                .groups = width(o),
                .norm = o.norm};
    }

    bool fused_;
};

SD_NAMESPACE_END
