// The layer normalisation layer.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/parameter.hpp"
#include "sd/cpu/layer_norm.hpp"
#include "sd/nn/cache.hpp"
#include "sd/nn/layer.hpp"
#include "sd/nn/visit.hpp"

#include <utility>

SD_NAMESPACE_BEGIN

/// Settings of layer normalisation.
struct LayerNormOptions {
    double eps = 1e-6;  ///< added to the variance; positive. torchvision's ConvNeXt's; PyTorch's own default is 1e-5
};

/// y = weight (x - mean) / sqrt(variance + eps) + bias, each pixel by mean and biased variance of its own channels, in
/// training and evaluation alike. x (..., C): images (N, H, W, C), or features (N, C); weight and bias (C).
/// J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016; on channels as in ConvNeXt (Z. Liu et al., 2022).
template <class T, class Device = Cpu>
class LayerNorm2d {
    using A = accumulate_t<T>;

public:
    using value_type = T;
    using device_type = Device;

    /// Weight 1, bias 0. Throws std::invalid_argument for settings outside their ranges.
    explicit LayerNorm2d(Index channels, const LayerNormOptions& options = {}) : options_(options) {
        if (channels < 1) refuse("LayerNorm2d", "channels", channels, "1 or more");
        if (!is_in_range(options.eps, smallest_number<A>, largest_number<A>)) {
            refuse("LayerNorm2d", "eps", options.eps, "a positive number");
        }
        weight_ = std::make_shared<Parameter<A, Device>>(Tensor<A, Device>::full({channels}, A(1)));
        bias_ = std::make_shared<Parameter<A, Device>>(Tensor<A, Device>(Shape{channels}));
    }
    LayerNorm2d(const LayerNorm2d&) = delete;
    /// Moves; parameters keep their addresses.
    LayerNorm2d(LayerNorm2d&&) = default;
    LayerNorm2d& operator=(LayerNorm2d&&) = default;
    ~LayerNorm2d() = default;

    /// y of the shape of x (..., C). Throws std::invalid_argument for another number of channels.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        LayerNormStatistics<A, Device> statistics;
        Tensor<T, Device> y = layer_norm_forward(x, weight_->value, bias_->value, options_.eps,
                                                 context.gradients() ? &statistics : nullptr);
        pass_.keep(context, {x, std::move(statistics)});
        return y;
    }

    /// Adds the gradients of weight and bias and returns dx. Throws std::logic_error if the last forward pass kept no
    /// gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        const Pass& pass = pass_.get("LayerNorm2d");
        LayerNormGradient<T, Device> gradient = layer_norm_backward(dy, pass.x, weight_->value, pass.statistics);
        weight_->add_grad(std::move(gradient.dweight));
        bias_->add_grad(std::move(gradient.dbias));
        return gradient.dx;
    }

    /// Gives back what the last forward pass left for backward.
    void forget() { pass_.forget(); }

    /// Scale (C).
    [[nodiscard]] const ParameterPtr<A, Device>& weight() const { return weight_; }
    /// Shift (C).
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

    struct Pass {
        Tensor<T, Device> x;
        LayerNormStatistics<A, Device> statistics;
    };

    LayerNormOptions options_;
    ParameterPtr<A, Device> weight_;
    ParameterPtr<A, Device> bias_;
    Cache<Pass> pass_;
};

SD_NAMESPACE_END
