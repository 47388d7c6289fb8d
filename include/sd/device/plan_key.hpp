// What a convolution's plan depends on.
#pragma once

#include "sd/core/window.hpp"

#include <array>

SD_NAMESPACE_BEGIN

namespace cuda {

/// The three products of a convolution.
enum class Direction { forward, by_input, by_weight };

/// Equal for convolutions that one plan serves: direction, types and math, and every extent and option.
using PlanKey = std::array<Index, 16>;

/// `math` numbers the types and the math that the plan is for.
[[nodiscard]] inline PlanKey plan_key(Direction direction, Index math, const Conv2dGeometry& g) {
    return {static_cast<Index>(direction),
            math,
            g.batch,
            g.in_height,
            g.in_width,
            g.in_channels,
            g.out_height,
            g.out_width,
            g.out_channels,
            g.kernel_height,
            g.kernel_width,
            g.group_in,
            g.options.stride,
            g.options.padding,
            g.options.dilation,
            g.options.groups};
}

}  // namespace cuda

SD_NAMESPACE_END
