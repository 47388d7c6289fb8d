// Layers one behind the other: the one way to compose them, and the place where neighbours are fused.
#pragma once

#include "sd/cpu/pending.hpp"
#include "sd/nn/fusion.hpp"
#include "sd/nn/layer.hpp"
#include "sd/nn/stand_in.hpp"
#include "sd/nn/visit.hpp"

#include <array>
#include <cstddef>
#include <string>
#include <tuple>
#include <utility>

SD_NAMESPACE_BEGIN

/// A layer and the name that a Sequential has for it.
template <class LayerType>
struct Named {
    std::string name;  ///< before its members' names
    LayerType layer;   ///< moved into the Sequential
};

/// A layer under a name: sd::named("conv1", sd::Conv2d<float>(...)).
template <class LayerType>
[[nodiscard]] Named<LayerType> named(std::string name, LayerType layer) {
    return {std::move(name), std::move(layer)};
}

/// y = last(... second(first(x))), of layers of one scalar type and device.
///
///     sd::Sequential branch{sd::named("conv", sd::Conv2d<float>(64, 64, 3, {.padding = 1}, initializer)),
///                           sd::named("bn", sd::BatchNorm2d<float>(64)), sd::named("relu", sd::Relu<float>())};
///
/// Braces let start values be drawn in the order of the layers. Convolutions, norms and activations that follow each other
/// share their passes over memory as nn/fusion.hpp draws it, also across a Sequential within another and into the join
/// of a residual block; numbers are those of the layers alone but for rounding. A class derived from Sequential is one.
template <class First, class... Others>
class Sequential : detail::JoinedLayer {
    static constexpr std::size_t count = 1 + sizeof...(Others);

    // A bool, since g++ lists every requirement of a concept.
    static constexpr bool are_layers = (Layer<First> && ... && Layer<Others>);
    static_assert(
        are_layers,
        "sd::Sequential: one of these is no layer: each needs forward(x, context), backward(dy) and visit(visitor)");
    template <std::size_t i>
    using LayerAt = detail::layer_or_stand_in_t<std::tuple_element_t<i, std::tuple<First, Others...>>>;

public:
    using value_type = layer_value_t<LayerAt<0>>;
    using device_type = layer_device_t<LayerAt<0>>;
    static_assert((std::is_same_v<value_type, layer_value_t<detail::layer_or_stand_in_t<Others>>> && ...),
                  "sd::Sequential: layers of more than one scalar type");
    static_assert((std::is_same_v<device_type, layer_device_t<detail::layer_or_stand_in_t<Others>>> && ...),
                  "sd::Sequential: layers of more than one device");

private:
    using T = value_type;
    using Device = device_type;
    using Gradient = detail::FusedGradient<T, Device>;
    using Pass = BatchNormPass<T, Device>;

public:
    /// The layers in forward order.
    explicit Sequential(Named<First> first, Named<Others>... others)
        : names_{std::move(first.name), std::move(others.name)...},
          layers_(std::move(first.layer), std::move(others.layer)...) {}

    /// y of x, as the layers say it.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return materialize(forward_fused(x, context));
    }

    /// Adds the gradients of all parameters and returns dx, or an undefined tensor if it is not asked for. Throws
    /// std::logic_error if the last forward pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy,
                                             InputGradient input_gradient = InputGradient::computed) {
        return backward_fused({dy}, nullptr, input_gradient).dy;
    }

    /// Layer number i, from 0.
    template <std::size_t i>
    [[nodiscard]] auto& layer() {
        return std::get<i>(layers_);
    }
    /// The same, read only.
    template <std::size_t i>
    [[nodiscard]] const auto& layer() const {
        return std::get<i>(layers_);
    }

    /// Names the layers.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visit_members(*this, visitor);
    }
    /// The same, read only.
    template <class Visitor>
    void visit(Visitor&& visitor) const {
        visit_members(*this, visitor);
    }

private:
    friend class detail::Fusion;

    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        [&]<std::size_t... i>(std::index_sequence<i...>) { (visitor(self.names_[i], std::get<i>(self.layers_)), ...); }
        (std::make_index_sequence<count>());
    }

    // Whether layer i is one of a kind that a group may go on with.
    template <std::size_t i>
    static constexpr bool norm_at() {
        if constexpr (i < count) return detail::is_norm<LayerAt<i>>;
        return false;
    }
    template <std::size_t i>
    static constexpr bool layer_scale_at() {
        if constexpr (i < count) return detail::is_layer_scale<LayerAt<i>>;
        return false;
    }
    template <std::size_t i>
    static constexpr Activation activation_at() {
        if constexpr (i < count) return detail::activation_of<LayerAt<i>>();
        return Activation::none;
    }

    // How many layers the group has that begins with layer i.
    template <std::size_t i>
    static constexpr std::size_t group_length() {
        if constexpr (detail::is_conv2d<LayerAt<i>>) {
            if constexpr (layer_scale_at<i + 1>()) return 2;
            constexpr std::size_t norms = norm_at<i + 1>() ? 1 : 0;
            return 1 + norms + (activation_at<i + 1 + norms>() == Activation::none ? 0 : 1);
        } else if constexpr (detail::is_norm<LayerAt<i>>) {
            return activation_at<i + 1>() == Activation::none ? 1 : 2;
        } else {
            return 1;
        }
    }

    // The group that begins with layer i.
    template <std::size_t i, class Layers>
    static auto group(Layers& layers) {
        using detail::Fusion;
        if constexpr (detail::is_conv2d<LayerAt<i>>) {
            if constexpr (layer_scale_at<i + 1>()) {
                return Fusion::ConvScale(std::get<i>(layers), std::get<i + 1>(layers));
            } else if constexpr (norm_at<i + 1>()) {
                return Fusion::ConvNorm(std::get<i>(layers), std::get<i + 1>(layers), activation_at<i + 2>());
            } else {
                return Fusion::ConvActivation(std::get<i>(layers), activation_at<i + 1>());
            }
        } else if constexpr (detail::is_norm<LayerAt<i>>) {
            return Fusion::Norm(std::get<i>(layers), activation_at<i + 1>());
        } else {
            return Fusion::Single(std::get<i>(layers));
        }
    }

    template <std::size_t i = 0>
    Pending<T, Device> forward_fused(const Pending<T, Device>& x, const Context& context) {
        if constexpr (i == count) {
            return x;
        } else {
            return forward_fused<i + group_length<i>()>(group<i>(layers_).forward(x, context), context);
        }
    }

    template <std::size_t i = 0>
    Tensor<T, Device> forward_joined(const Pending<T, Device>& x, const ResidualJoin<T, Device>& join,
                                     const Context& context) {
        constexpr std::size_t next = i + group_length<i>();
        if constexpr (next == count) {
            return group<i>(layers_).forward_joined(x, join, context);
        } else {
            return forward_joined<next>(group<i>(layers_).forward(x, context), join, context);
        }
    }

    template <std::size_t i = 0>
    const Pass* output_pass(const Pass* before) {
        const Pass* const own = group<i>(layers_).output_pass(before);
        if constexpr (i + group_length<i>() == count) {
            return own;
        } else {
            return output_pass<i + group_length<i>()>(own);
        }
    }

    template <std::size_t i = 0>
    Gradient backward_fused(const Gradient& dy, const Pass* before, InputGradient input_gradient) {
        auto own = group<i>(layers_);
        constexpr std::size_t next = i + group_length<i>();
        if constexpr (next == count) {
            return own.backward(dy, before, input_gradient);
        } else {
            return own.backward(backward_fused<next>(dy, own.output_pass(before), InputGradient::computed), before,
                                input_gradient);
        }
    }

    Tensor<T, Device> backward_joined(const Gradient& dy, const Tensor<T, Device>& dshortcut) {
        auto first = group<0>(layers_);
        constexpr std::size_t next = group_length<0>();
        if constexpr (next == count) {
            return first.backward_joined(dy, dshortcut);
        } else {
            return first.backward_joined(backward_fused<next>(dy, first.output_pass(nullptr), InputGradient::computed),
                                         dshortcut);
        }
    }

    std::array<std::string, count> names_;
    std::tuple<detail::layer_or_stand_in_t<First>, detail::layer_or_stand_in_t<Others>...> layers_;
};

SD_NAMESPACE_END
