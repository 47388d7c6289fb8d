// The activation after a residual block's addition.
#pragma once

#include "sd/core/tensor.hpp"
#include "sd/nn/context.hpp"

#include <concepts>

SD_NAMESPACE_BEGIN

/// max(v, 0), in the same pass as the addition.
struct ReluActivation {};

/// The sum as it is.
struct NoActivation {};

/// An activation of the library's or a layer of the user's: forward(x, context) and backward(dy).
template <class Activation, class T, class Device>
concept ResidualActivation = std::same_as<Activation, ReluActivation> || std::same_as<Activation, NoActivation> ||
    requires(Activation activation, const Tensor<T, Device>& tensor, const Context& context) {
    { activation.forward(tensor, context) } -> std::convertible_to<Tensor<T, Device>>;
    { activation.backward(tensor) } -> std::convertible_to<Tensor<T, Device>>;
};

SD_NAMESPACE_END
