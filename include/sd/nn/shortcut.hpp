// The shortcuts S of a residual block: identity, 1x1 projection, or pooling with zero channels.
#pragma once

#include "sd/cpu/channels.hpp"
#include "sd/nn/batch_norm2d.hpp"
#include "sd/nn/conv2d.hpp"
#include "sd/nn/identity_shortcut.hpp"
#include "sd/nn/pooling.hpp"
#include "sd/nn/sequential.hpp"

#include <string>
#include <utility>
#include <variant>

SD_NAMESPACE_BEGIN

/// S(x) = bn(conv(x)) with a strided 1x1 convolution: torchvision's `downsample`, which names them "0" and "1".
template <class T, class Device = Cpu>
class ProjectionShortcut : public Sequential<Conv2d<T, Device>, BatchNorm2d<T, Device>> {
public:
    /// S(x) of shape (N, H / stride, W / stride, out_channels), rounded up, of x (N, H, W, in_channels).
    ProjectionShortcut(Index in_channels, Index out_channels, Index stride, Initializer& initializer,
                       const BatchNormOptions& norm = {})
        : Sequential<Conv2d<T, Device>, BatchNorm2d<T, Device>>{
              named("0", Conv2d<T, Device>(in_channels, out_channels, 1, {.stride = stride}, initializer)),
              named("1", BatchNorm2d<T, Device>(out_channels, norm))} {}
};

/// S(x) = 2x2 average pooling with stride 2, and zeros in the channels that x lacks: no parameters. An odd last row or
/// column is averaged by itself, so that S(x) has the size of a branch whose convolution halves the image.
/// The shortcut of G. Huang et al., "Deep networks with stochastic depth", ECCV 2016, in their code for CIFAR.
template <class T, class Device = Cpu>
class PadShortcut {
public:
    using value_type = T;
    using device_type = Device;

    /// Throws std::invalid_argument if out_channels is less than in_channels.
    PadShortcut(Index in_channels, Index out_channels)
        : in_channels_(in_channels),
          out_channels_(out_channels),
          pool_({.kernel = 2, .stride = 2, .ceil_mode = true, .count_include_pad = false}) {
        if (out_channels < in_channels) {
            refuse("PadShortcut", "out_channels", out_channels, text("at least in_channels, ", in_channels));
        }
    }

    /// S(x), (N, H / 2, W / 2, out_channels) rounded up, of x (N, H, W, in_channels). Throws std::invalid_argument for
    /// another shape.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        expect_shape("PadShortcut", "input", x.shape(), {x.extent(0), x.extent(1), x.extent(2), in_channels_});
        return with_channels(pool_.forward(x, context), out_channels_);
    }
    /// The gradient by x. Throws std::logic_error if the last forward pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return pool_.backward(with_channels(dy, in_channels_));
    }

    /// There is nothing to name.
    template <class Visitor>
    void visit(Visitor&&) const {}

private:
    Index in_channels_;
    Index out_channels_;
    AvgPool2d<T, Device> pool_;
};

/// One of the three.
template <class T, class Device = Cpu>
class Shortcut : detail::FusedLayer {
public:
    using value_type = T;
    using device_type = Device;

    Shortcut() = default;
    /// A shortcut of this kind, under this name.
    Shortcut(ProjectionShortcut<T, Device> projection,  // NOLINT(google-explicit-constructor)
             std::string name = "downsample")
        : kind_(std::move(projection)), name_(std::move(name)) {}
    /// A shortcut of this kind.
    Shortcut(PadShortcut<T, Device> pad) : kind_(std::move(pad)) {}  // NOLINT(google-explicit-constructor)

    /// Whether S(x) = x.
    [[nodiscard]] bool is_identity() const { return std::holds_alternative<IdentityShortcut<T, Device>>(kind_); }

    /// S(x); x itself for an identity.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return materialize(forward_fused(x, context));
    }
    /// Adds the gradients of all parameters and returns the gradient by x.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return std::visit([&](auto& kind) { return kind.backward(dy); }, kind_);
    }

    /// Names what is not the identity, "downsample" unless it was given a name.
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
        if (!self.is_identity()) std::visit([&](auto& kind) { visitor(self.name_, kind); }, self.kind_);
    }

    Pending<T, Device> forward_fused(const Pending<T, Device>& x, const Context& context) {
        return std::visit([&](auto& kind) { return detail::Fusion::forward(kind, x, context); }, kind_);
    }
    const BatchNormPass<T, Device>* output_pass(const BatchNormPass<T, Device>* before) {
        return std::visit([&](auto& kind) { return detail::Fusion::output_pass(kind, before); }, kind_);
    }
    detail::FusedGradient<T, Device> backward_fused(const detail::FusedGradient<T, Device>& dy,
                                                    const BatchNormPass<T, Device>* before,
                                                    InputGradient input_gradient) {
        return std::visit([&](auto& kind) { return detail::Fusion::backward(kind, dy, before, input_gradient); },
                          kind_);
    }

    std::variant<IdentityShortcut<T, Device>, ProjectionShortcut<T, Device>, PadShortcut<T, Device>> kind_;
    std::string name_ = "downsample";
};

SD_NAMESPACE_END
