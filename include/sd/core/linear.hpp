// What the kernels of the fully connected layer refuse alike.
#pragma once

#include "sd/core/shape.hpp"

SD_NAMESPACE_BEGIN

namespace detail {

/// Refuses x (N, I), weight (O, I) and bias (O) that do not fit together.
inline void expect_linear(const Shape& x, const Shape& weight, const Shape& bias) {
    constexpr const char* where = "linear_forward";
    expect_rank(where, "x", x, 2);
    expect_rank(where, "weight", weight, 2);
    expect_shape(where, "x", x, {x[0], weight[1]});
    expect_shape(where, "bias", bias, {weight[0]});
}

/// Refuses dy (N, O) and weight (O, I) that do not fit together.
inline void expect_linear_by_input(const Shape& dy, const Shape& weight) {
    constexpr const char* where = "linear_by_input";
    expect_rank(where, "dy", dy, 2);
    expect_rank(where, "weight", weight, 2);
    expect_shape(where, "dy", dy, {dy[0], weight[0]});
}

/// Refuses dy (N, O) and x (N, I) that do not fit together.
inline void expect_linear_by_weight(const Shape& dy, const Shape& x) {
    constexpr const char* where = "linear_by_weight";
    expect_rank(where, "dy", dy, 2);
    expect_rank(where, "x", x, 2);
    expect_shape(where, "x", x, {dy[0], x[1]});
}

}  // namespace detail

SD_NAMESPACE_END
