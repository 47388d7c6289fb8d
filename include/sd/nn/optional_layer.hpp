// A layer that may be left out.
#pragma once

#include "sd/nn/fusion.hpp"
#include "sd/nn/layer.hpp"
#include "sd/nn/visit.hpp"

#include <optional>
#include <utility>

SD_NAMESPACE_BEGIN

/// y = layer(x), or y = x without one: a place of a Sequential that is decided when it is built.
template <class LayerType>
class OptionalLayer : detail::JoinedLayer {
public:
    using value_type = layer_value_t<LayerType>;
    using device_type = layer_device_t<LayerType>;

private:
    using T = value_type;
    using Device = device_type;

public:
    /// No layer.
    OptionalLayer() = default;
    /// This layer.
    OptionalLayer(LayerType layer) : layer_(std::move(layer)) {}  // NOLINT(google-explicit-constructor)

    /// layer(x), or x itself.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return layer_ ? layer_->forward(x, context) : x;
    }
    /// The layer's gradient by x, or dy itself.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) { return layer_ ? layer_->backward(dy) : dy; }
    /// Gives back what the last forward pass left for backward.
    void forget() {
        if constexpr (requires { layer_->forget(); }) {
            if (layer_) layer_->forget();
        }
    }
    /// Names what the layer names, with nothing put before it.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        if (layer_) detail::visit_layer(*layer_, visitor);
    }
    /// The same, read only.
    template <class Visitor>
    void visit(Visitor&& visitor) const {
        if (layer_) detail::visit_layer(*layer_, visitor);
    }

private:
    friend class detail::Fusion;

    Pending<T, Device> forward_fused(const Pending<T, Device>& x, const Context& context) {
        return layer_ ? detail::Fusion::forward(*layer_, x, context) : x;
    }
    Tensor<T, Device> forward_joined(const Pending<T, Device>& x, const ResidualJoin<T, Device>& join,
                                     const Context& context) {
        return layer_ ? detail::Fusion::forward_joined(*layer_, x, join, context) : detail::Fusion::joined(x, join);
    }
    const BatchNormPass<T, Device>* output_pass(const BatchNormPass<T, Device>* before) {
        return layer_ ? detail::Fusion::output_pass(*layer_, before) : before;
    }
    detail::FusedGradient<T, Device> backward_fused(const detail::FusedGradient<T, Device>& dy,
                                                    const BatchNormPass<T, Device>* before,
                                                    InputGradient input_gradient) {
        return layer_ ? detail::Fusion::backward(*layer_, dy, before, input_gradient) : dy;
    }
    Tensor<T, Device> backward_joined(const detail::FusedGradient<T, Device>& dy, const Tensor<T, Device>& dshortcut) {
        return layer_ ? detail::Fusion::backward_joined(*layer_, dy, dshortcut) : detail::Fusion::joined(dy, dshortcut);
    }

    std::optional<LayerType> layer_;
};

SD_NAMESPACE_END
