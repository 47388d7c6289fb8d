// The fully connected layer.
#pragma once

#include "sd/core/kept_weights.hpp"
#include "sd/core/parameter.hpp"
#include "sd/cpu/linear.hpp"
#include "sd/nn/cache.hpp"
#include "sd/nn/initializer.hpp"
#include "sd/nn/layer.hpp"
#include "sd/nn/visit.hpp"

#include <cmath>

SD_NAMESPACE_BEGIN

/// y = x weight^T + bias with x (N, in_features), y (N, out_features); start values from U(±1 / sqrt(in_features)).
template <class T, class Device = Cpu>
class Linear {
    using A = accumulate_t<T>;

public:
    using value_type = T;
    using device_type = Device;

    /// Weight and bias from U(-1/sqrt(in_features), 1/sqrt(in_features)), as in PyTorch.
    Linear(Index in_features, Index out_features, Initializer& initializer) {
        if (in_features < 1) refuse("Linear", "in_features", in_features, "1 or more");
        if (out_features < 1) refuse("Linear", "out_features", out_features, "1 or more");
        const double bound = 1 / std::sqrt(static_cast<double>(in_features));
        weight_ = std::make_shared<Parameter<A, Device>>(
            to_device<Device>(initializer.uniform<A>({out_features, in_features}, bound)));
        bias_ =
            std::make_shared<Parameter<A, Device>>(to_device<Device>(initializer.uniform<A>({out_features}, bound)));
    }
    /// These start values, weight (out_features, in_features) and bias (out_features). Throws std::invalid_argument if
    /// they do not fit.
    Linear(const Tensor<A>& weight, const Tensor<A>& bias) {
        expect_rank("Linear", "weight", weight.shape(), 2);
        if (weight.size() < 1) refuse("Linear", "shape of weight", weight.shape(), "1 or more of each");
        expect_shape("Linear", "bias", bias.shape(), {weight.extent(0)});
        weight_ = std::make_shared<Parameter<A, Device>>(to_device<Device>(weight));
        bias_ = std::make_shared<Parameter<A, Device>>(to_device<Device>(bias));
    }
    Linear(const Linear&) = delete;
    /// Moves; parameters keep their addresses.
    Linear(Linear&&) = default;
    Linear& operator=(Linear&&) = default;
    ~Linear() = default;

    /// y (N, out_features) of x (N, in_features). Throws std::invalid_argument for another shape.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        if (context.gradients()) kept_.clear();
        KeptWeights* kept = context.gradients() ? nullptr : &kept_;
        Tensor<T, Device> y = linear_forward(x, weight_->value, bias_->value, kept);
        input_.keep(context, x);
        return y;
    }

    /// Adds the gradients of weight and bias, those that are not frozen, and returns dx.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        const Tensor<T, Device>& x = input_.get("Linear");
        weight_->add_computed_grad([&] { return linear_by_weight(dy, x); });
        bias_->add_computed_grad([&] { return linear_by_bias(dy); });
        return linear_by_input(dy, weight_->value);
    }

    /// Gives back what the last forward pass left for backward.
    void forget() { input_.forget(); }

    /// (out_features, in_features).
    [[nodiscard]] const ParameterPtr<A, Device>& weight() const { return weight_; }
    /// (out_features).
    [[nodiscard]] const ParameterPtr<A, Device>& bias() const { return bias_; }

    /// Names weight and bias.
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
    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        visitor("weight", self.weight_);
        visitor("bias", self.bias_);
    }

    ParameterPtr<A, Device> weight_;
    ParameterPtr<A, Device> bias_;
    Cache<Tensor<T, Device>> input_;
    KeptWeights kept_;  ///< from passes without gradients; any other gives it back
};

SD_NAMESPACE_END
