// How parameters and buffers of a layer are found and named.
//
// A layer has one member function
//
//     template <class Visitor> void visit(Visitor&& visitor) { visitor("conv1", conv1_); visitor("weight", weight_); }
//
// that names its parameters (ParameterPtr), its buffers (Tensor or std::int64_t) and its layers, in any order that
// stays. Full names join the names on the way with dots, as in PyTorch's state dicts: "layer1.0.conv1.weight".
#pragma once

#include "sd/core/parameter.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

SD_NAMESPACE_BEGIN

namespace detail {

template <class X>
inline constexpr bool is_parameter = false;
template <class T, class Device>
inline constexpr bool is_parameter<ParameterPtr<T, Device>> = true;

template <class X>
inline constexpr bool is_buffer = std::is_same_v<X, std::int64_t>;
template <class T, class Device>
inline constexpr bool is_buffer<Tensor<T, Device>> = true;

template <class OnParameter, class OnBuffer>
class Walk {
public:
    Walk(std::string prefix, OnParameter& on_parameter, OnBuffer& on_buffer)
        : prefix_(std::move(prefix)), on_parameter_(on_parameter), on_buffer_(on_buffer) {}

    template <class X>
    void operator()(std::string_view name, X& x) {
        const std::string full = prefix_.empty() ? std::string(name) : text(prefix_, '.', name);
        if constexpr (is_parameter<X>) {
            on_parameter_(full, x);
        } else if constexpr (is_buffer<X>) {
            on_buffer_(full, x);
        } else {
            x.visit(Walk(full, on_parameter_, on_buffer_));
        }
    }

private:
    std::string prefix_;
    OnParameter& on_parameter_;
    OnBuffer& on_buffer_;
};

class ForgetWalk {
public:
    template <class X>
    void operator()(std::string_view, X& x) const {
        if constexpr (!is_parameter<X> && !is_buffer<X>) {
            if constexpr (requires { x.forget(); }) x.forget();
            x.visit(*this);
        }
    }
};

template <class OnParameter>
class ParameterWalk {
public:
    explicit ParameterWalk(OnParameter& on_parameter) : on_parameter_(on_parameter) {}

    template <class X>
    void operator()(std::string_view, X& x) const {
        if constexpr (is_parameter<X>) {
            on_parameter_(x);
        } else if constexpr (!is_buffer<X>) {
            x.visit(*this);
        }
    }

private:
    OnParameter& on_parameter_;
};

}  // namespace detail

/// Lets a layer and all layers of it give back what their last forward pass left for backward, by their forget() if they
/// have one. A network does it before a pass that keeps gradients, so that the pass runs in the memory of the one before.
template <class Layer>
void forget_passes(Layer& layer) {
    detail::ForgetWalk()({}, layer);
}

/// Calls on_parameter(full name, ParameterPtr&) and on_buffer(full name, Tensor& or std::int64_t&) for all that the
/// layer and its layers own, in the order of their visits.
template <class Layer, class OnParameter, class OnBuffer>
void for_each_state(Layer& layer, OnParameter&& on_parameter, OnBuffer&& on_buffer) {
    layer.visit(detail::Walk<OnParameter, OnBuffer>("", on_parameter, on_buffer));
}

/// Calls on_parameter(full name, ParameterPtr&) for every parameter.
template <class Layer, class OnParameter>
void for_each_parameter(Layer& layer, OnParameter&& on_parameter) {
    for_each_state(layer, on_parameter, [](const std::string&, auto&) {});
}

/// Calls on_parameter(ParameterPtr&) for every parameter. No names are made, so nothing is allocated.
template <class Layer, class OnParameter>
void for_each_unnamed_parameter(Layer& layer, OnParameter&& on_parameter) {
    layer.visit(detail::ParameterWalk<OnParameter>(on_parameter));
}

/// Gives every parameter its full name.
template <class Layer>
void name_parameters(Layer& layer) {
    for_each_parameter(layer, [](const std::string& name, auto& parameter) { parameter->name = name; });
}

SD_NAMESPACE_END
