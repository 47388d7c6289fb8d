// What the parameters of layers receive that a backward pass left out.
#pragma once

#include "sd/nn/visit.hpp"

SD_NAMESPACE_BEGIN

/// Tells all parameters of a layer that backward has no gradient for them: optimizers leave them as they are.
template <class Layer>
void skip_gradients(Layer& layer) {
    for_each_unnamed_parameter(layer, [](auto& parameter) { parameter->skip_grad(); });
}

/// Adds zeros to the gradients of all parameters of a layer.
template <class Layer>
void add_zero_gradients(Layer& layer) {
    for_each_unnamed_parameter(
        layer, [](auto& parameter) { parameter->add_grad(decltype(parameter->value)(parameter->value.shape())); });
}

SD_NAMESPACE_END
