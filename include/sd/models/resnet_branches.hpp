// The residual branches F of ResNet, up to and including their last batch norm.
// K. He et al., "Deep residual learning for image recognition", CVPR 2016; V1.5 of the bottleneck (the stride on its
// 3x3 convolution) and all names as in torchvision.
#pragma once

#include "sd/nn/conv_bn.hpp"

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

/// F(x) = bn2(conv2(relu(bn1(conv1(x))))), two 3x3 convolutions; conv1 has the stride.
template <class T, class Device = Cpu>
class BasicBlock {
public:
    using value_type = T;
    using device_type = Device;
    /// Output channels over planes.
    static constexpr Index expansion = 1;
    /// The name that surgery knows it by.
    static constexpr std::string_view layer_name = "ResNetBasicBlock";

    /// Throws std::invalid_argument for groups, width or dilation other than the defaults, as torchvision does.
    BasicBlock(const BranchOptions& options, Initializer& initializer)
        : first_(options.in_channels, options.planes, 3, {.stride = options.stride, .padding = 1}, Activation::relu,
                 initializer),
          second_(options.planes, options.planes, 3, {.padding = 1}, Activation::none, initializer) {
        if (options.groups != 1) refuse("BasicBlock", "groups", options.groups, 1);
        if (options.width_per_group != 64) refuse("BasicBlock", "width_per_group", options.width_per_group, 64);
        if (options.dilation != 1) refuse("BasicBlock", "dilation", options.dilation, 1);
        if (options.zero_init_residual) second_.bn().weight()->value.fill(accumulate_t<T>(0));
    }

    /// F(x), (N, H / stride, W / stride, planes) rounded up, as a pending tensor; x (N, H, W, in_channels).
    [[nodiscard]] Pending<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return second_.forward(first_.forward(x, context), context);
    }
    /// Adds the gradients of all parameters and returns the gradient by x. Throws std::logic_error if the last forward
    /// pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return backward(GradientWithSums<T, Device>{dy, batch_norm_sums(dy, output_pass())});
    }
    /// The same with the sums of the last batch norm's backward given.
    [[nodiscard]] Tensor<T, Device> backward(const GradientWithSums<T, Device>& dy) {
        return first_.backward(second_.backward(dy, first_));
    }
    /// What the last batch norm's forward pass left for backward.
    [[nodiscard]] const BatchNormPass<T, Device>& output_pass() const { return second_.pass(); }

    /// Names conv1, bn1, conv2 and bn2.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("conv1", first_.conv());
        visitor("bn1", first_.bn());
        visitor("conv2", second_.conv());
        visitor("bn2", second_.bn());
    }

private:
    ConvBn<T, Device> first_;
    ConvBn<T, Device> second_;
};

/// F(x) = bn3(conv3(relu(bn2(conv2(relu(bn1(conv1(x)))))))): 1x1 to the branch's width, 3x3 with stride, dilation and
/// groups, 1x1 to 4 planes. The width is floor(planes width_per_group / 64) groups.
template <class T, class Device = Cpu>
class Bottleneck {
public:
    using value_type = T;
    using device_type = Device;
    /// Output channels over planes.
    static constexpr Index expansion = 4;
    /// The name that surgery knows it by.
    static constexpr std::string_view layer_name = "ResNetBottleneck";

    /// Throws std::invalid_argument for settings that do not fit together.
    Bottleneck(const BranchOptions& options, Initializer& initializer)
        : first_(options.in_channels, width(options), 1, {}, Activation::relu, initializer),
          second_(width(options), width(options), 3,
                  {.stride = options.stride,
                   .padding = options.dilation,
                   .dilation = options.dilation,
                   .groups = options.groups},
                  Activation::relu, initializer),
          third_(width(options), options.planes * expansion, 1, {}, Activation::none, initializer) {
        if (options.zero_init_residual) third_.bn().weight()->value.fill(accumulate_t<T>(0));
    }

    /// F(x), (N, H / stride, W / stride, 4 planes) rounded up, as a pending tensor; x (N, H, W, in_channels).
    [[nodiscard]] Pending<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return third_.forward(second_.forward(first_.forward(x, context), context), context);
    }
    /// Adds the gradients of all parameters and returns the gradient by x. Throws std::logic_error if the last forward
    /// pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return backward(GradientWithSums<T, Device>{dy, batch_norm_sums(dy, output_pass())});
    }
    /// The same with the sums of the last batch norm's backward given.
    [[nodiscard]] Tensor<T, Device> backward(const GradientWithSums<T, Device>& dy) {
        return first_.backward(second_.backward(third_.backward(dy, second_), first_));
    }
    /// What the last batch norm's forward pass left for backward.
    [[nodiscard]] const BatchNormPass<T, Device>& output_pass() const { return third_.pass(); }

    /// Names conv1, bn1, conv2, bn2, conv3 and bn3.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("conv1", first_.conv());
        visitor("bn1", first_.bn());
        visitor("conv2", second_.conv());
        visitor("bn2", second_.bn());
        visitor("conv3", third_.conv());
        visitor("bn3", third_.bn());
    }

private:
    static Index width(const BranchOptions& options) {
        return options.planes * options.width_per_group / 64 * options.groups;
    }

    ConvBn<T, Device> first_;
    ConvBn<T, Device> second_;
    ConvBn<T, Device> third_;
};

SD_NAMESPACE_END
