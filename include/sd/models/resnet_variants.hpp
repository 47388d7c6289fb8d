// The named networks: torchvision's ResNets and the CIFAR networks, built of blocks that can become stochastic.
#pragma once

#include "sd/models/resnet.hpp"
#include "sd/stochastic_depth/stochastic_residual.hpp"

SD_NAMESPACE_BEGIN

/// A network of basic blocks.
template <class T, class Device = Cpu>
using BasicResNet = ResNet<StochasticResidual<BasicBlock<T, Device>>>;
/// A network of bottleneck blocks.
template <class T, class Device = Cpu>
using BottleneckResNet = ResNet<StochasticResidual<Bottleneck<T, Device>>>;

/// 18 layers; 11,689,512 parameters with 1000 classes.
template <class T, class Device = Cpu>
[[nodiscard]] BasicResNet<T, Device> resnet18(const ResNetOptions& options = {}) {
    return {{.layers = {2, 2, 2, 2}}, options};
}
/// 34 layers; 21,797,672 parameters with 1000 classes.
template <class T, class Device = Cpu>
[[nodiscard]] BasicResNet<T, Device> resnet34(const ResNetOptions& options = {}) {
    return {{.layers = {3, 4, 6, 3}}, options};
}
/// 50 layers; 25,557,032 parameters with 1000 classes.
template <class T, class Device = Cpu>
[[nodiscard]] BottleneckResNet<T, Device> resnet50(const ResNetOptions& options = {}) {
    return {{.layers = {3, 4, 6, 3}}, options};
}
/// 101 layers; 44,549,160 parameters with 1000 classes.
template <class T, class Device = Cpu>
[[nodiscard]] BottleneckResNet<T, Device> resnet101(const ResNetOptions& options = {}) {
    return {{.layers = {3, 4, 23, 3}}, options};
}
/// 152 layers; 60,192,808 parameters with 1000 classes.
template <class T, class Device = Cpu>
[[nodiscard]] BottleneckResNet<T, Device> resnet152(const ResNetOptions& options = {}) {
    return {{.layers = {3, 8, 36, 3}}, options};
}
/// ResNeXt-50, 32 groups of 4 channels (S. Xie et al., CVPR 2017); 25,028,904 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] BottleneckResNet<T, Device> resnext50_32x4d(const ResNetOptions& options = {}) {
    return {{.layers = {3, 4, 6, 3}, .groups = 32, .width_per_group = 4}, options};
}
/// ResNeXt-101, 32 groups of 8 channels; 88,791,336 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] BottleneckResNet<T, Device> resnext101_32x8d(const ResNetOptions& options = {}) {
    return {{.layers = {3, 4, 23, 3}, .groups = 32, .width_per_group = 8}, options};
}
/// Wide ResNet-50-2 (S. Zagoruyko, N. Komodakis, BMVC 2016); 68,883,240 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] BottleneckResNet<T, Device> wide_resnet50_2(const ResNetOptions& options = {}) {
    return {{.layers = {3, 4, 6, 3}, .width_per_group = 128}, options};
}
/// Wide ResNet-101-2; 126,886,696 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] BottleneckResNet<T, Device> wide_resnet101_2(const ResNetOptions& options = {}) {
    return {{.layers = {3, 4, 23, 3}, .width_per_group = 128}, options};
}

namespace detail {
inline ResNetArchitecture cifar_architecture(Index depth, Index layers_per_block) {
    const Index blocks = (depth - 2) / (3 * layers_per_block);
    if (blocks < 1 || blocks * 3 * layers_per_block + 2 != depth) {
        refuse("cifar_resnet", "depth", depth, text(3 * layers_per_block, " n + 2 with n of 1 or more"));
    }
    return {.layers = {blocks, blocks, blocks},
            .planes = {16, 32, 64},
            .stem_channels = 16,
            .stem = Stem::cifar,
            .shortcut = ShortcutKind::pad};
}
}  // namespace detail

/// The CIFAR network of basic blocks of depth 6n + 2: 20, 32, 44, 56, 110, 1202 (K. He et al., section 4.2), with the
/// parameter-free shortcut of the stochastic depth paper. num_classes is options.num_classes, 10 for CIFAR-10.
template <class T, class Device = Cpu>
[[nodiscard]] BasicResNet<T, Device> cifar_resnet(Index depth, const ResNetOptions& options = {.num_classes = 10}) {
    return {detail::cifar_architecture(depth, 2), options};
}
/// The CIFAR network of bottleneck blocks of depth 9n + 2: 29, 56, 110, 164.
template <class T, class Device = Cpu>
[[nodiscard]] BottleneckResNet<T, Device> cifar_bottleneck_resnet(Index depth,
                                                                  const ResNetOptions& options = {.num_classes = 10}) {
    return {detail::cifar_architecture(depth, 3), options};
}

SD_NAMESPACE_END
