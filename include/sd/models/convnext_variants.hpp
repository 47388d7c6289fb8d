// The named ConvNeXts: torchvision's, and a small one for CIFAR.
#pragma once

#include "sd/models/convnext.hpp"
#include "sd/stochastic_depth/options.hpp"

SD_NAMESPACE_BEGIN

/// Drop rates of the last block that torchvision and the authors train with.
namespace convnext_drop_rate {
inline constexpr double tiny = 0.1;   ///< of convnext_tiny
inline constexpr double small = 0.4;  ///< of convnext_small
inline constexpr double base = 0.5;   ///< of convnext_base
inline constexpr double large = 0.5;  ///< of convnext_large
}  // namespace convnext_drop_rate

/// Stochastic depth as ConvNeXt is trained with: samples are dropped, rates grow from 0 at the first block to drop_rate at
/// the last, and survival is made up for in training:
///
///     sd::apply_stochastic_depth(model, sd::convnext_stochastic_depth(sd::convnext_drop_rate::tiny));
///
/// No layer mixes samples, so with compute = Compute::survivors the numbers are the same but for rounding, and what is
/// dropped is not computed.
[[nodiscard]] inline StochasticDepthOptions convnext_stochastic_depth(double drop_rate) {
    return {.target_layer_name = "ConvNeXtBlock",
            .stochastic_method = StochasticMethod::sample,
            .drop_rate = drop_rate,
            .drop_distribution = DropDistribution::linear,
            .scaling = Scaling::train};
}

/// 18 blocks; 28,589,128 parameters with 1000 classes.
template <class T, class Device = Cpu>
[[nodiscard]] ConvNeXt<T, Device> convnext_tiny(const ConvNeXtOptions& options = {}) {
    return {{.layers = {3, 3, 9, 3}, .channels = {96, 192, 384, 768}}, options};
}
/// 36 blocks; 50,223,688 parameters with 1000 classes.
template <class T, class Device = Cpu>
[[nodiscard]] ConvNeXt<T, Device> convnext_small(const ConvNeXtOptions& options = {}) {
    return {{.layers = {3, 3, 27, 3}, .channels = {96, 192, 384, 768}}, options};
}
/// 36 blocks; 88,591,464 parameters with 1000 classes.
template <class T, class Device = Cpu>
[[nodiscard]] ConvNeXt<T, Device> convnext_base(const ConvNeXtOptions& options = {}) {
    return {{.layers = {3, 3, 27, 3}, .channels = {128, 256, 512, 1024}}, options};
}
/// 36 blocks; 197,767,336 parameters with 1000 classes.
template <class T, class Device = Cpu>
[[nodiscard]] ConvNeXt<T, Device> convnext_large(const ConvNeXtOptions& options = {}) {
    return {{.layers = {3, 3, 27, 3}, .channels = {192, 384, 768, 1536}}, options};
}

/// A ConvNeXt of 9 blocks for images of 32x32 pixels, of patches of 2x2: small enough to train on two cores.
/// num_classes is options.num_classes, 10 for CIFAR-10. Not of the paper.
template <class T, class Device = Cpu>
[[nodiscard]] ConvNeXt<T, Device> cifar_convnext(const ConvNeXtOptions& options = {.num_classes = 10}) {
    return {{.layers = {3, 3, 3}, .channels = {32, 64, 128}, .patch = 2}, options};
}

SD_NAMESPACE_END
