// Which neighbours in a Sequential share a pass over memory, and what goes between them.
//
//     forward     x ──> conv ──> z, moments ──> norm ──> Pending{z, scale, shift, act} ──> conv, max pool or join
//                       writes z, gathers       stores nothing                         applies it on load
//
//     backward    dx, sums <── conv <── PendingGradient <── norm <── dy, its sums <── conv or join
//                 of the norm before    applied on load              writes dy, gathers the sums of this norm
//
// A convolution, the norm behind it and the activation behind that are one group: a pass over memory in either
// direction. Without a norm, bias and activation take its place: z + bias is a norm whose statistics are constants; so is
// gamma (z + bias), a layer scale behind a convolution. A norm that follows no convolution is a group with its
// activation. Every other layer is a group of its own. What a group leaves pending, the next one loads if it can; other
// layers get a plain tensor. In evaluation without gradients norm, bias and activation are folded into the convolution,
// and nothing is pending; a residual branch that ends in a convolution, with a norm or layer scale behind it or without,
// hands its block's addition to that convolution, which adds the shortcut to what it writes. Backward, in training, a
// branch that begins with a convolution hands it the addition of the two gradients by the block's input.
#pragma once

#include "sd/core/pending_gradient.hpp"
#include "sd/cpu/batch_norm.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/cpu/residual_join.hpp"
#include "sd/nn/layer.hpp"

#include <type_traits>

SD_NAMESPACE_BEGIN

template <class T, class Device>
class Conv2d;
template <class T, class Device>
class PixelLinear;
template <class T, class Device>
class BatchNorm2d;
template <class T, class Device>
class LayerScale;
template <Activation activation, class T, class Device>
class ActivationLayer;

namespace detail {

/// The gradient by the output of a layer, and the sums that the norm at the layer's end needs of it; undefined sums:
/// whoever wrote the gradient did not gather them. A gate's gradient may still be to be applied; then there are sums.
template <class T, class Device>
struct FusedGradient {
    Tensor<T, Device> dy;
    BatchNormSums<accumulate_t<T>, Device> sums = {};
    GateGradient<T, Device> gate = {};
};

/// A layer that loads and leaves pending tensors is derived from this, and has for Fusion
///
///     forward_fused(x, context)                  y, plain or pending, of a pending x
///     output_pass(before)                        the last pass of the norm that it ends in, or null; `before`, the norm
///                                                that x is pending from, if it hands x on as it is
///     backward_fused(dy, before, input_gradient) dx, with the sums of `before` if it is given and the layer can gather
///                                                them
struct FusedLayer {};

/// One that may begin or end in a convolution is derived from this, and also has
///
///     forward_joined(x, join, context)           the join with the layer's output, of a pass without gradients
///     backward_joined(dy, dshortcut)             dshortcut + dx
struct JoinedLayer : FusedLayer {};

template <class LayerType>
inline constexpr bool is_fused = std::is_base_of_v<FusedLayer, LayerType>;
template <class LayerType>
inline constexpr bool is_joined = std::is_base_of_v<JoinedLayer, LayerType>;

template <class LayerType>
inline constexpr bool is_conv2d = false;
template <class T, class Device>
inline constexpr bool is_conv2d<Conv2d<T, Device>> = true;
template <class T, class Device>
inline constexpr bool is_conv2d<PixelLinear<T, Device>> = true;

template <class LayerType>
inline constexpr bool is_norm = false;
template <class T, class Device>
inline constexpr bool is_norm<BatchNorm2d<T, Device>> = true;

template <class LayerType>
inline constexpr bool is_layer_scale = false;
template <class T, class Device>
inline constexpr bool is_layer_scale<LayerScale<T, Device>> = true;

template <class LayerType>
inline constexpr bool is_activation = false;
template <Activation activation, class T, class Device>
inline constexpr bool is_activation<ActivationLayer<activation, T, Device>> = true;

/// The activation that a layer applies; none for a layer of another kind.
template <class LayerType>
constexpr Activation activation_of() {
    if constexpr (is_activation<LayerType>) {
        return LayerType::activation;
    } else {
        return Activation::none;
    }
}

/// Runs layers with pending tensors between them: any layer by forward, output_pass and backward, and the groups of a
/// Sequential.
class Fusion {
    template <class LayerType>
    using PendingOf = Pending<layer_value_t<LayerType>, layer_device_t<LayerType>>;
    template <class LayerType>
    using JoinOf = ResidualJoin<layer_value_t<LayerType>, layer_device_t<LayerType>>;
    template <class LayerType>
    using TensorOf = Tensor<layer_value_t<LayerType>, layer_device_t<LayerType>>;
    template <class LayerType>
    using PassOf = BatchNormPass<layer_value_t<LayerType>, layer_device_t<LayerType>>;
    template <class LayerType>
    using GradientOf = FusedGradient<layer_value_t<LayerType>, layer_device_t<LayerType>>;

public:
    /// y = layer(x), pending where the layer can leave it so.
    template <class LayerType>
    static PendingOf<LayerType> forward(LayerType& layer, const PendingOf<LayerType>& x, const Context& context) {
        if constexpr (is_fused<LayerType>) {
            return layer.forward_fused(x, context);
        } else {
            return layer.forward(materialize(x), context);
        }
    }

    /// A branch, computed, and the join.
    template <class T, class Device>
    static Tensor<T, Device> joined(const Pending<T, Device>& branch, const ResidualJoin<T, Device>& join) {
        return residual_join_forward<T>(join.shortcut, branch, BranchSamples(), join.branch_scale, join.relu);
    }

    /// The join with layer(x) in a pass without gradients, by the layer's last convolution where there is one at its end.
    template <class LayerType>
    static TensorOf<LayerType> forward_joined(LayerType& layer, const PendingOf<LayerType>& x,
                                              const JoinOf<LayerType>& join, const Context& context) {
        if constexpr (is_joined<LayerType>) {
            return layer.forward_joined(x, join, context);
        } else {
            return joined(forward(layer, x, context), join);
        }
    }

    /// The norm whose output y is, as its last pass left it, or null. Whoever writes dy may gather its sums. `before` is
    /// the norm whose output x is.
    template <class LayerType>
    static const PassOf<LayerType>* output_pass(LayerType& layer, const PassOf<LayerType>* before) {
        if constexpr (is_fused<LayerType>) {
            return layer.output_pass(before);
        } else {
            return nullptr;
        }
    }

    /// dx, with the sums of `before` if the layer can gather them.
    template <class LayerType>
    static GradientOf<LayerType> backward(LayerType& layer, const GradientOf<LayerType>& dy,
                                          const PassOf<LayerType>* before, InputGradient input_gradient) {
        if constexpr (is_fused<LayerType>) {
            return layer.backward_fused(dy, before, input_gradient);
        } else {
            return {layer.backward(dy.dy)};
        }
    }

    /// A branch's gradient by its input, computed, and the shortcut's.
    template <class T, class Device>
    static Tensor<T, Device> joined(const FusedGradient<T, Device>& dx, const Tensor<T, Device>& dshortcut) {
        return add_selected<T>(dshortcut, dx.dy, BranchSamples());
    }

    /// dshortcut + dx, added by the layer's first convolution where there is one at its beginning.
    template <class LayerType>
    static TensorOf<LayerType> backward_joined(LayerType& layer, const GradientOf<LayerType>& dy,
                                               const TensorOf<LayerType>& dshortcut) {
        if constexpr (is_joined<LayerType>) {
            return layer.backward_joined(dy, dshortcut);
        } else {
            return joined(backward(layer, dy, nullptr, InputGradient::computed), dshortcut);
        }
    }

    /// A convolution and the norm behind it.
    template <class T, class Device>
    class ConvNorm {
    public:
        ConvNorm(Conv2d<T, Device>& conv, BatchNorm2d<T, Device>& norm, Activation activation)
            : conv_(conv), norm_(norm), activation_(activation) {}

        Pending<T, Device> forward(const Pending<T, Device>& x, const Context& context) {
            if (!context.gradients()) {
                const auto [scale, shift] = norm_.folded(conv_.bias());
                return conv_.forward_affine(x, scale, shift, activation_, context);
            }
            Moments<accumulate_t<T>, Device> moments;
            const bool gathers = context.training() && !conv_.bias();
            const Tensor<T, Device> z = conv_.forward_raw(x, context, gathers ? &moments : nullptr);
            if (!conv_.bias()) return norm_.pending(z, moments, activation_, context);
            // Of a bias that a norm takes away again nothing is made: it is added in a pass of its own.
            const Tensor<T, Device> biased = conv_.add_bias(z);
            if (context.training()) moments = batch_moments(biased);
            return norm_.pending(biased, moments, activation_, context);
        }
        Tensor<T, Device> forward_joined(const Pending<T, Device>& x, const ResidualJoin<T, Device>& join,
                                         const Context& context) {
            if (activation_ != Activation::none) return joined(forward(x, context), join);
            const auto [scale, shift] = norm_.folded(conv_.bias());
            return conv_.forward_joined(x, scale, shift, join);
        }
        const BatchNormPass<T, Device>* output_pass(const BatchNormPass<T, Device>*) { return &norm_.pass(); }
        FusedGradient<T, Device> backward(const FusedGradient<T, Device>& dy, const BatchNormPass<T, Device>* before,
                                          InputGradient input_gradient) {
            return conv_.backward_raw(by_raw(dy), before, input_gradient);
        }
        Tensor<T, Device> backward_joined(const FusedGradient<T, Device>& dy, const Tensor<T, Device>& dshortcut) {
            return conv_.backward_joined(by_raw(dy), dshortcut);
        }

    private:
        // Adds the gradients of norm and bias; what is left is by the convolution's raw output.
        PendingGradient<T, Device> by_raw(const FusedGradient<T, Device>& dy) {
            PendingGradient<T, Device> dz = norm_.backward_pending(dy);
            if (conv_.bias()) {
                dz = materialize(dz);
                conv_.backward_bias(dz.dy);
            }
            return dz;
        }

        Conv2d<T, Device>& conv_;
        BatchNorm2d<T, Device>& norm_;
        Activation activation_;
    };

    /// A convolution without a norm, and the activation behind it.
    template <class T, class Device>
    class ConvActivation {
    public:
        ConvActivation(Conv2d<T, Device>& conv, Activation activation) : conv_(conv), activation_(activation) {}

        Pending<T, Device> forward(const Pending<T, Device>& x, const Context& context) {
            if (activation_ == Activation::none || !context.gradients()) {
                return conv_.forward_activated(x, activation_, context);
            }
            return conv_.pending(conv_.forward_raw(x, context, nullptr), activation_, context);
        }
        Tensor<T, Device> forward_joined(const Pending<T, Device>& x, const ResidualJoin<T, Device>& join,
                                         const Context& context) {
            if (activation_ != Activation::none) return joined(forward(x, context), join);
            return conv_.forward_joined(x, conv_.per_channel(1), conv_.shift(), join);
        }
        const BatchNormPass<T, Device>* output_pass(const BatchNormPass<T, Device>*) {
            return activation_ != Activation::none && conv_.bias() ? &conv_.pass() : nullptr;
        }
        FusedGradient<T, Device> backward(const FusedGradient<T, Device>& dy, const BatchNormPass<T, Device>* before,
                                          InputGradient input_gradient) {
            return conv_.backward_raw(by_raw(dy), before, input_gradient);
        }
        Tensor<T, Device> backward_joined(const FusedGradient<T, Device>& dy, const Tensor<T, Device>& dshortcut) {
            return conv_.backward_joined(by_raw(dy), dshortcut);
        }

    private:
        // Adds the gradient of the bias; what is left is by the convolution's raw output.
        PendingGradient<T, Device> by_raw(const FusedGradient<T, Device>& dy) {
            if (activation_ != Activation::none) return conv_.backward_pending(dy);
            conv_.backward_bias(dy.dy);
            return dy.dy;
        }

        Conv2d<T, Device>& conv_;
        Activation activation_;
    };

    /// A convolution and the layer scale behind it.
    template <class T, class Device>
    class ConvScale {
    public:
        ConvScale(Conv2d<T, Device>& conv, LayerScale<T, Device>& scale) : conv_(conv), scale_(scale) {}

        Pending<T, Device> forward(const Pending<T, Device>& x, const Context& context) {
            if (!context.gradients()) {
                const auto [scale, shift] = scale_.folded(conv_.bias());
                return conv_.forward_affine(x, scale, shift, Activation::none, context);
            }
            return scale_.pending(conv_.forward_raw(x, context, nullptr), conv_.bias(), context);
        }
        Tensor<T, Device> forward_joined(const Pending<T, Device>& x, const ResidualJoin<T, Device>& join,
                                         const Context&) {
            const auto [scale, shift] = scale_.folded(conv_.bias());
            return conv_.forward_joined(x, scale, shift, join);
        }
        const BatchNormPass<T, Device>* output_pass(const BatchNormPass<T, Device>*) { return &scale_.pass(); }
        FusedGradient<T, Device> backward(const FusedGradient<T, Device>& dy, const BatchNormPass<T, Device>* before,
                                          InputGradient input_gradient) {
            return conv_.backward_raw(scale_.backward_pending(dy, conv_.bias()), before, input_gradient);
        }
        Tensor<T, Device> backward_joined(const FusedGradient<T, Device>& dy, const Tensor<T, Device>& dshortcut) {
            return conv_.backward_joined(scale_.backward_pending(dy, conv_.bias()), dshortcut);
        }

    private:
        Conv2d<T, Device>& conv_;
        LayerScale<T, Device>& scale_;
    };

    /// A norm that follows no convolution.
    template <class T, class Device>
    class Norm {
    public:
        Norm(BatchNorm2d<T, Device>& norm, Activation activation) : norm_(norm), activation_(activation) {}

        Pending<T, Device> forward(const Pending<T, Device>& x, const Context& context) {
            const Tensor<T, Device> z = materialize(x);
            Moments<accumulate_t<T>, Device> moments;
            if (context.training()) moments = batch_moments(z);
            return norm_.pending(z, moments, activation_, context);
        }
        Tensor<T, Device> forward_joined(const Pending<T, Device>& x, const ResidualJoin<T, Device>& join,
                                         const Context& context) {
            return joined(forward(x, context), join);
        }
        const BatchNormPass<T, Device>* output_pass(const BatchNormPass<T, Device>*) { return &norm_.pass(); }
        FusedGradient<T, Device> backward(const FusedGradient<T, Device>& dy, const BatchNormPass<T, Device>*,
                                          InputGradient) {
            return {materialize(norm_.backward_pending(dy))};
        }
        Tensor<T, Device> backward_joined(const FusedGradient<T, Device>& dy, const Tensor<T, Device>& dshortcut) {
            return joined(backward(dy, nullptr, InputGradient::computed), dshortcut);
        }

    private:
        BatchNorm2d<T, Device>& norm_;
        Activation activation_;
    };

    /// A layer that is a group of its own.
    template <class LayerType>
    class Single {
    public:
        explicit Single(LayerType& layer) : layer_(layer) {}

        PendingOf<LayerType> forward(const PendingOf<LayerType>& x, const Context& context) {
            return Fusion::forward(layer_, x, context);
        }
        TensorOf<LayerType> forward_joined(const PendingOf<LayerType>& x, const JoinOf<LayerType>& join,
                                           const Context& context) {
            return Fusion::forward_joined(layer_, x, join, context);
        }
        const PassOf<LayerType>* output_pass(const PassOf<LayerType>* before) {
            return Fusion::output_pass(layer_, before);
        }
        GradientOf<LayerType> backward(const GradientOf<LayerType>& dy, const PassOf<LayerType>* before,
                                       InputGradient input_gradient) {
            return Fusion::backward(layer_, dy, before, input_gradient);
        }
        TensorOf<LayerType> backward_joined(const GradientOf<LayerType>& dy, const TensorOf<LayerType>& dshortcut) {
            return Fusion::backward_joined(layer_, dy, dshortcut);
        }

    private:
        LayerType& layer_;
    };
};

}  // namespace detail

SD_NAMESPACE_END
