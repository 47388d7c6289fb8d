// The named networks: torchvision's EfficientNets and one for CIFAR, built of blocks that can become stochastic.
//
// Their authors train them with StochasticMethod::sample, Scaling::train, DropDistribution::linear_efficientnet and the rate
// 0.2. Images are as large as each was trained for: 224 to 600 pixels for B0 to B7.
#pragma once

#include "sd/models/efficientnet.hpp"

SD_NAMESPACE_BEGIN

/// A network of MBConv and FusedMBConv blocks, with nothing after the addition.
template <class T, class Device = Cpu>
using EfficientNetModel = EfficientNet<StochasticResidual<MBConv<T, Device>, AnyPolicy, NoActivation>>;

namespace detail {

/// B0 with its widths times `width` and its depths times `depth`, both rounded up as torchvision does.
inline EfficientNetArchitecture efficientnet_b(double width, double depth, const BatchNormOptions& norm = {}) {
    EfficientNetArchitecture a{.stages = {{false, 1, 3, 1, 16, 1},
                                          {false, 6, 3, 2, 24, 2},
                                          {false, 6, 5, 2, 40, 2},
                                          {false, 6, 3, 2, 80, 3},
                                          {false, 6, 5, 1, 112, 3},
                                          {false, 6, 5, 2, 192, 4},
                                          {false, 6, 3, 1, 320, 1}},
                               .stem_channels = make_divisible(32 * width),
                               .norm = norm};
    for (EfficientNetStage& stage : a.stages) {
        stage.out_channels = make_divisible(static_cast<double>(stage.out_channels) * width);
        stage.layers = static_cast<Index>(std::ceil(static_cast<double>(stage.layers) * depth));
    }
    return a;
}

inline EfficientNetArchitecture efficientnet_v2(std::vector<EfficientNetStage> stages) {
    const Index stem = stages.front().out_channels;
    return {.stages = std::move(stages), .stem_channels = stem, .head_channels = 1280, .norm = {.eps = 1e-3}};
}

/// Batch norm of B5 to B7, whose weights torchvision took from TensorFlow.
inline constexpr BatchNormOptions batch_norm_of_tensorflow{.eps = 1e-3, .momentum = 0.01};

}  // namespace detail

/// 5,288,548 parameters with 1000 classes.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> efficientnet_b0(const EfficientNetOptions& options = {}) {
    return {detail::efficientnet_b(1.0, 1.0), options};
}
/// 7,794,184 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> efficientnet_b1(const EfficientNetOptions& options = {}) {
    return {detail::efficientnet_b(1.0, 1.1), options};
}
/// 9,109,994 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> efficientnet_b2(const EfficientNetOptions& options = {}) {
    return {detail::efficientnet_b(1.1, 1.2), options};
}
/// 12,233,232 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> efficientnet_b3(const EfficientNetOptions& options = {}) {
    return {detail::efficientnet_b(1.2, 1.4), options};
}
/// 19,341,616 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> efficientnet_b4(const EfficientNetOptions& options = {}) {
    return {detail::efficientnet_b(1.4, 1.8), options};
}
/// 30,389,784 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> efficientnet_b5(const EfficientNetOptions& options = {}) {
    return {detail::efficientnet_b(1.6, 2.2, detail::batch_norm_of_tensorflow), options};
}
/// 43,040,704 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> efficientnet_b6(const EfficientNetOptions& options = {}) {
    return {detail::efficientnet_b(1.8, 2.6, detail::batch_norm_of_tensorflow), options};
}
/// 66,347,960 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> efficientnet_b7(const EfficientNetOptions& options = {}) {
    return {detail::efficientnet_b(2.0, 3.1, detail::batch_norm_of_tensorflow), options};
}
/// EfficientNetV2; 21,458,488 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> efficientnet_v2_s(const EfficientNetOptions& options = {}) {
    return {detail::efficientnet_v2({{true, 1, 3, 1, 24, 2},
                                     {true, 4, 3, 2, 48, 4},
                                     {true, 4, 3, 2, 64, 4},
                                     {false, 4, 3, 2, 128, 6},
                                     {false, 6, 3, 1, 160, 9},
                                     {false, 6, 3, 2, 256, 15}}),
            options};
}
/// EfficientNetV2; 54,139,356 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> efficientnet_v2_m(const EfficientNetOptions& options = {}) {
    return {detail::efficientnet_v2({{true, 1, 3, 1, 24, 3},
                                     {true, 4, 3, 2, 48, 5},
                                     {true, 4, 3, 2, 80, 5},
                                     {false, 4, 3, 2, 160, 7},
                                     {false, 6, 3, 1, 176, 14},
                                     {false, 6, 3, 2, 304, 18},
                                     {false, 6, 3, 1, 512, 5}}),
            options};
}
/// EfficientNetV2; 118,515,272 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> efficientnet_v2_l(const EfficientNetOptions& options = {}) {
    return {detail::efficientnet_v2({{true, 1, 3, 1, 32, 4},
                                     {true, 4, 3, 2, 64, 7},
                                     {true, 4, 3, 2, 96, 7},
                                     {false, 4, 3, 2, 192, 10},
                                     {false, 6, 3, 1, 224, 19},
                                     {false, 6, 3, 2, 384, 25},
                                     {false, 6, 3, 1, 640, 7}}),
            options};
}

/// A small one for images of 32 pixels: the first convolution has stride 1, 13 blocks of four stages.
template <class T, class Device = Cpu>
[[nodiscard]] EfficientNetModel<T, Device> cifar_efficientnet(const EfficientNetOptions& options = {
                                                                  .num_classes = 10}) {
    return {
        {.stages = {{false, 1, 3, 1, 16, 2}, {false, 4, 3, 1, 24, 4}, {false, 4, 3, 2, 40, 4}, {false, 4, 5, 2, 64, 3}},
         .stem_channels = 16,
         .stem_stride = 1},
        options};
}

SD_NAMESPACE_END
