// The layer scale layer. Behind a convolution in a Sequential it costs no pass of its own, see nn/fusion.hpp.
#pragma once

#include "sd/core/parameter.hpp"
#include "sd/cpu/batch_norm.hpp"
#include "sd/nn/cache.hpp"
#include "sd/nn/fusion.hpp"
#include "sd/nn/layer.hpp"
#include "sd/nn/visit.hpp"

#include <utility>

SD_NAMESPACE_BEGIN

/// y = gamma x, one factor a channel. x (..., C); gamma (C, 1, 1), as torchvision's layer_scale has it.
/// H. Touvron et al., "Going deeper with image transformers", ICCV 2021.
template <class T, class Device = Cpu>
class LayerScale {
    using A = accumulate_t<T>;

public:
    using value_type = T;
    using device_type = Device;

    /// All factors begin as `start`. Throws std::invalid_argument for fewer than one channel.
    explicit LayerScale(Index channels, double start = 1e-6) {
        if (channels < 1) refuse("LayerScale", "channels", channels, "1 or more");
        gamma_ =
            std::make_shared<Parameter<A, Device>>(Tensor<A, Device>::full({channels, 1, 1}, static_cast<A>(start)));
    }
    LayerScale(const LayerScale&) = delete;
    /// Moves; the parameter keeps its address.
    LayerScale(LayerScale&&) = default;
    LayerScale& operator=(LayerScale&&) = default;
    ~LayerScale() = default;

    /// y of the shape of x (..., C). Throws std::invalid_argument for another number of channels.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return materialize(pending(x, nullptr, context));
    }
    /// Adds the gradient of gamma and returns dx. Throws std::logic_error if the last forward pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return materialize(backward_pending({dy}, nullptr));
    }
    /// Gives back what the last forward pass left for backward.
    void forget() { pass_.forget(); }

    /// (C, 1, 1).
    [[nodiscard]] const ParameterPtr<A, Device>& gamma() const { return gamma_; }

    /// Names gamma.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("gamma", gamma_);
    }
    /// The same, read only.
    template <class Visitor>
    void visit(Visitor&& visitor) const {
        visitor("gamma", gamma_);
    }

private:
    friend class detail::Fusion;

    // Scale and shift (C) of gamma (z + bias) = scale z + shift; no bias is 0.
    struct Affine {
        Tensor<A, Device> scale;
        Tensor<A, Device> shift;
    };
    Affine folded(const ParameterPtr<A, Device>& bias) const {
        return {scale(), bias ? times(bias->value, scale()) : per_channel(0)};
    }

    // gamma (z + bias), pending on z: a norm whose statistics are constants, the mean -bias and the deviation 1.
    Pending<T, Device> pending(const Tensor<T, Device>& z, const ParameterPtr<A, Device>& bias,
                               const Context& context) {
        const Affine affine = folded(bias);
        const Pending<T, Device> y(z, affine.scale, affine.shift, Activation::none);
        const Tensor<A, Device> mean = bias ? times(bias->value, per_channel(-1)) : per_channel(0);
        pass_.keep(context, {y, mean, per_channel(1), false});
        return y;
    }
    const BatchNormPass<T, Device>& pass() const { return pass_.get("LayerScale"); }

    // Adds the gradients of gamma and bias and returns the gradient by z, pending. Sums that nobody gathered are gathered
    // here.
    PendingGradient<T, Device> backward_pending(const detail::FusedGradient<T, Device>& dy,
                                                const ParameterPtr<A, Device>& bias) {
        const BatchNormSums<A, Device> sums = dy.sums.dbias ? dy.sums : batch_norm_sums(dy.dy, pass());
        gamma_->add_computed_grad([&] { return sums.dweight.reshape(gamma_->value.shape()); });
        if (bias) bias->add_computed_grad([&] { return times(sums.dbias, pass().y.scale); });
        const Tensor<A, Device> zeros = per_channel(0);
        return PendingGradient<T, Device>(dy.dy, pass().y, zeros, zeros, zeros).through(dy.gate);
    }

    [[nodiscard]] Index channels() const { return gamma_->value.extent(0); }
    Tensor<A, Device> scale() const { return gamma_->value.reshape({channels()}); }
    Tensor<A, Device> per_channel(int value) const { return Tensor<A, Device>::full({channels()}, A(value)); }
    // values(c) factors(c), by a kernel that every device has.
    Tensor<A, Device> times(const Tensor<A, Device>& values, const Tensor<A, Device>& factors) const {
        return materialize(
                   Pending<A, Device>(values.reshape({1, channels()}), factors, per_channel(0), Activation::none))
            .reshape({channels()});
    }

    ParameterPtr<A, Device> gamma_;
    Cache<BatchNormPass<T, Device>> pass_;
};

SD_NAMESPACE_END
