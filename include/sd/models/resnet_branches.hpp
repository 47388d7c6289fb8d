// The residual branches F of ResNet, up to and including their last batch norm.
// K. He et al., "Deep residual learning for image recognition", CVPR 2016; V1.5 of the bottleneck (the stride on its
// 3x3 convolution) and all names as in torchvision.
#pragma once

#include "sd/nn/activation.hpp"
#include "sd/nn/batch_norm2d.hpp"
#include "sd/nn/conv2d.hpp"
#include "sd/nn/sequential.hpp"

#include <string_view>

SD_NAMESPACE_BEGIN

/// Settings of a residual branch.
struct BranchOptions {
    Index in_channels = 64;  ///< channels of the input
    Index planes =
        64;  ///< channels of the 3x3 convolution at width_per_group 64; the output has expansion times as many
    Index stride = 1;                 ///< of the 3x3 convolution that halves the image, or 1
    Index dilation = 1;               ///< of the 3x3 convolution
    Index groups = 1;                 ///< of the 3x3 convolution (ResNeXt)
    Index width_per_group = 64;       ///< 64 is the plain network's width
    bool zero_init_residual = false;  ///< the last batch norm starts with weight 0, so the block starts as its shortcut
};

/// F(x) = bn2(conv2(relu(bn1(conv1(x))))), two 3x3 convolutions; conv1 has the stride. x (N, H, W, in_channels), F(x)
/// (N, H / stride, W / stride, planes), rounded up.
template <class T, class Device = Cpu>
class BasicBlock : public Sequential<Conv2d<T, Device>, BatchNorm2d<T, Device>, Relu<T, Device>,  //
                                     Conv2d<T, Device>, BatchNorm2d<T, Device>> {
    using Conv = Conv2d<T, Device>;
    using Norm = BatchNorm2d<T, Device>;
    using Act = Relu<T, Device>;

public:
    /// Output channels over planes.
    static constexpr Index expansion = 1;
    /// The name that surgery knows it by.
    static constexpr std::string_view layer_name = "ResNetBasicBlock";

    /// Throws std::invalid_argument for groups, width or dilation other than the defaults, as torchvision does.
    BasicBlock(const BranchOptions& options, Initializer& initializer)
        : Sequential<Conv, Norm, Act, Conv, Norm>{
              named("conv1", Conv(options.in_channels, options.planes, 3, {.stride = options.stride, .padding = 1},
                                  initializer)),
              named("bn1", Norm(options.planes)),  //
              named("relu", Act()),
              named("conv2", Conv(options.planes, options.planes, 3, {.padding = 1}, initializer)),
              named("bn2", Norm(options.planes))} {
        if (options.groups != 1) refuse("BasicBlock", "groups", options.groups, 1);
        if (options.width_per_group != 64) refuse("BasicBlock", "width_per_group", options.width_per_group, 64);
        if (options.dilation != 1) refuse("BasicBlock", "dilation", options.dilation, 1);
        if (options.zero_init_residual) this->template layer<4>().weight()->value.fill(accumulate_t<T>(0));
    }
};

/// F(x) = bn3(conv3(relu(bn2(conv2(relu(bn1(conv1(x)))))))): 1x1 to the branch's width, 3x3 with stride, dilation and
/// groups, 1x1 to 4 planes. The width is floor(planes width_per_group / 64) groups. x (N, H, W, in_channels), F(x)
/// (N, H / stride, W / stride, 4 planes), rounded up.
template <class T, class Device = Cpu>
class Bottleneck : public Sequential<Conv2d<T, Device>, BatchNorm2d<T, Device>, Relu<T, Device>,  //
                                     Conv2d<T, Device>, BatchNorm2d<T, Device>, Relu<T, Device>,  //
                                     Conv2d<T, Device>, BatchNorm2d<T, Device>> {
    using Conv = Conv2d<T, Device>;
    using Norm = BatchNorm2d<T, Device>;
    using Act = Relu<T, Device>;

public:
    /// Output channels over planes.
    static constexpr Index expansion = 4;
    /// The name that surgery knows it by.
    static constexpr std::string_view layer_name = "ResNetBottleneck";

    /// Throws std::invalid_argument for settings that do not fit together.
    Bottleneck(const BranchOptions& options, Initializer& initializer)
        : Sequential<Conv, Norm, Act, Conv, Norm, Act, Conv, Norm>{
              named("conv1", Conv(options.in_channels, width(options), 1, {}, initializer)),
              named("bn1", Norm(width(options))),
              named("relu", Act()),
              named("conv2", Conv(width(options), width(options), 3,
                                  {.stride = options.stride,
                                   .padding = options.dilation,
                                   .dilation = options.dilation,
                                   .groups = options.groups},
                                  initializer)),
              named("bn2", Norm(width(options))),
              named("relu", Act()),
              named("conv3", Conv(width(options), options.planes * expansion, 1, {}, initializer)),
              named("bn3", Norm(options.planes * expansion))} {
        if (options.zero_init_residual) this->template layer<7>().weight()->value.fill(accumulate_t<T>(0));
    }

private:
    static Index width(const BranchOptions& options) {
        return options.planes * options.width_per_group / 64 * options.groups;
    }
};

SD_NAMESPACE_END
