// What an optimizer trains.
#pragma once

#include "sd/core/tensor.hpp"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// A trained tensor, its gradient, and whether a gradient was received since the last zero_grad().
/// A parameter whose branch did not run has received none, which differs from a gradient of zeros: an optimizer skips
/// it, weight decay and momentum included.
template <class T, class Device = Cpu>
struct Parameter {
    /// A parameter with a start value and no gradient.
    explicit Parameter(Tensor<T, Device> initial) : value(std::move(initial)) {}

    std::string name;         ///< full name in the model, such as "layer1.0.conv1.weight"
    Tensor<T, Device> value;  ///< what is trained
    Tensor<T, Device> grad;   ///< meaningful only if has_grad
    bool has_grad = false;    ///< whether a gradient was received

    /// PyTorch's word; false: frozen. A frozen parameter receives no gradient, and layers compute none for it.
    bool requires_grad = true;

    /// Called whenever a backward pass has come past the parameter, with a gradient for it or without one.
    std::function<void()> on_backward = {};

    /// Forgets the gradient.
    void zero_grad() {
        has_grad = false;
        grad = {};  // its memory serves the next one
    }

    /// grad += dvalue; nothing if it is frozen. A tensor that nobody else holds is taken over as the first gradient,
    /// without a copy. Adding takes the device's kernel add_to: the CPU's is in cpu/elementwise.hpp.
    /// Throws std::invalid_argument if the shapes differ.
    void add_grad(Tensor<T, Device> dvalue) {
        expect_shape(name.empty() ? "Parameter" : name.c_str(), "gradient", dvalue.shape(), value.shape());
        if (!requires_grad) {
            skip_grad();
            return;
        }
        if (has_grad) {
            add_to(grad, dvalue);
        } else {
            grad = dvalue.is_only_handle() ? std::move(dvalue) : dvalue.clone();
            has_grad = true;
        }
        if (on_backward) on_backward();
    }

    /// add_grad(compute()); nothing is computed if it is frozen.
    template <class Compute>
    void add_computed_grad(const Compute& compute) {
        if (requires_grad) {
            add_grad(compute());
        } else {
            skip_grad();
        }
    }

    /// Called instead of add_grad by a backward pass that has no gradient for the parameter.
    void skip_grad() {
        if (on_backward) on_backward();
    }
};

/// Parameters live on the heap and keep their address when a model moves; an optimizer shares them.
template <class T, class Device = Cpu>
using ParameterPtr = std::shared_ptr<Parameter<T, Device>>;

/// Parameters in some order, such as that of a model's visits; what an optimizer is made of.
template <class T, class Device = Cpu>
using ParameterList = std::vector<ParameterPtr<T, Device>>;

SD_NAMESPACE_END
