// What a layer is: the contract of everything that computes tensors from tensors and can be trained.
#pragma once

#include "sd/core/tensor.hpp"
#include "sd/nn/context.hpp"

#include <concepts>
#include <string_view>

SD_NAMESPACE_BEGIN

namespace detail {

// The scalar type of a layer: its member value_type, or else the first argument of its class template.
template <class LayerType>
struct FirstArgument {};
template <template <class, class...> class Template, class T, class... Rest>
struct FirstArgument<Template<T, Rest...>> {
    using type = T;
};
template <class LayerType>
struct LayerValue : FirstArgument<LayerType> {};
template <class LayerType>
requires requires { typename LayerType::value_type; }
struct LayerValue<LayerType> {
    using type = typename LayerType::value_type;
};

template <class LayerType>
struct LayerDevice {
    using type = Cpu;
};
template <class LayerType>
requires requires { typename LayerType::device_type; }
struct LayerDevice<LayerType> {
    using type = typename LayerType::device_type;
};

struct IgnoreMember {
    template <class Member>
    void operator()(std::string_view, Member&) const {}
};

}  // namespace detail

/// The scalar type of a layer: its member value_type, or else the first argument of its class template.
template <class LayerType>
using layer_value_t = typename detail::LayerValue<LayerType>::type;
/// The device of a layer: its member device_type, or else the CPU.
template <class LayerType>
using layer_device_t = typename detail::LayerDevice<LayerType>::type;
/// What a layer takes and gives.
template <class LayerType>
using layer_tensor_t = Tensor<layer_value_t<LayerType>, layer_device_t<LayerType>>;

/// It computes y = forward(x, context).
template <class LayerType>
concept HasForward = requires(LayerType layer, const layer_tensor_t<LayerType>& x, const Context& context) {
    { layer.forward(x, context) } -> std::convertible_to<layer_tensor_t<LayerType>>;
};
/// It computes dx = backward(dy).
template <class LayerType>
concept HasBackward = requires(LayerType layer, const layer_tensor_t<LayerType>& dy) {
    { layer.backward(dy) } -> std::convertible_to<layer_tensor_t<LayerType>>;
};
/// It names its members.
template <class LayerType>
concept HasVisit = requires(LayerType layer, detail::IgnoreMember visitor) {
    layer.visit(visitor);
};

/// A layer, of the library or of a user:
///
///     y = forward(x, context)    y, and what backward needs if context.gradients(); writes nothing if not
///     dx = backward(dy)          of the last forward pass that kept gradients: adds the gradients of its parameters and
///                                returns the gradient by x; may be called again
///     visit(visitor)             names its parameters, buffers and layers, see nn/visit.hpp
///
/// The scalar type is the member value_type or the first argument of the class template, the device the member
/// device_type or the CPU. If it has forget(), a network calls that before each forward pass that keeps gradients: what
/// the last pass left for backward may go.
template <class LayerType>
concept Layer = HasForward<LayerType> && HasBackward<LayerType> && HasVisit<LayerType>;

/// Whether a backward pass computes the gradient by what the layer was given, which the first layer of a network does
/// not need in training.
enum class InputGradient {
    computed,  ///< returned by backward
    skipped    ///< not computed: a training step is a few percent shorter
};

SD_NAMESPACE_END
