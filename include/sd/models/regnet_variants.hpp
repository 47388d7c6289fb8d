// The named networks: torchvision's RegNets and one for CIFAR, built of blocks that can become stochastic. Their names tell
// how many multiplications an image of 224 pixels takes.
#pragma once

#include "sd/models/regnet.hpp"
#include "sd/stochastic_depth/stochastic_residual.hpp"

SD_NAMESPACE_BEGIN

/// A network of RegNet's blocks.
template <class T, class Device = Cpu>
using RegNetModel = RegNet<StochasticResidual<RegNetBranch<T, Device>>>;

namespace detail {

/// Squeezed channels over input channels in RegNetY.
inline constexpr double regnet_y_ratio = 0.25;

}  // namespace detail

/// RegNetX; 5,495,976 parameters with 1000 classes.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_x_400mf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(22, 24, 24.48, 2.54, 16)}, options};
}
/// RegNetX; 7,259,656 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_x_800mf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(16, 56, 35.73, 2.28, 16)}, options};
}
/// RegNetX; 9,190,136 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_x_1_6gf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(18, 80, 34.01, 2.25, 24)}, options};
}
/// RegNetX; 15,296,552 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_x_3_2gf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(25, 88, 26.31, 2.25, 48)}, options};
}
/// RegNetX; 39,572,648 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_x_8gf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(23, 80, 49.56, 2.88, 120)}, options};
}
/// RegNetX; 54,278,536 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_x_16gf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(22, 216, 55.59, 2.1, 128)}, options};
}
/// RegNetX; 107,811,560 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_x_32gf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(23, 320, 69.86, 2.0, 168)}, options};
}
/// RegNetY; 4,344,144 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_y_400mf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(16, 48, 27.89, 2.09, 8), .se_ratio = detail::regnet_y_ratio}, options};
}
/// RegNetY; 6,432,512 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_y_800mf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(14, 56, 38.84, 2.4, 16), .se_ratio = detail::regnet_y_ratio}, options};
}
/// RegNetY; 11,202,430 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_y_1_6gf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(27, 48, 20.71, 2.65, 24), .se_ratio = detail::regnet_y_ratio}, options};
}
/// RegNetY; 19,436,338 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_y_3_2gf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(21, 80, 42.63, 2.66, 24), .se_ratio = detail::regnet_y_ratio}, options};
}
/// RegNetY; 39,381,472 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_y_8gf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(17, 192, 76.82, 2.19, 56), .se_ratio = detail::regnet_y_ratio}, options};
}
/// RegNetY; 83,590,140 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_y_16gf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(18, 200, 106.23, 2.48, 112), .se_ratio = detail::regnet_y_ratio}, options};
}
/// RegNetY; 145,046,770 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_y_32gf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(20, 232, 115.89, 2.53, 232), .se_ratio = detail::regnet_y_ratio}, options};
}
/// RegNetY; 644,812,894 parameters.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> regnet_y_128gf(const RegNetOptions& options = {}) {
    return {{.stages = regnet_stages(27, 456, 160.83, 2.52, 264), .se_ratio = detail::regnet_y_ratio}, options};
}

/// A small one for images of 32 pixels, with squeeze-and-excitation: the first convolution has stride 1, 10 blocks of three
/// stages.
template <class T, class Device = Cpu>
[[nodiscard]] RegNetModel<T, Device> cifar_regnet(const RegNetOptions& options = {.num_classes = 10}) {
    return {{.stages = {{.layers = 2, .width = 32, .group_width = 8, .stride = 1},
                        {.layers = 4, .width = 64, .group_width = 8},
                        {.layers = 4, .width = 128, .group_width = 8}},
             .se_ratio = detail::regnet_y_ratio,
             .stem_channels = 16,
             .stem_stride = 1},
            options};
}

SD_NAMESPACE_END
