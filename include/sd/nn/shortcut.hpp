// The shortcuts S of a residual block: identity, 1x1 projection, or pooling with zero channels.
#pragma once

#include "sd/cpu/channels.hpp"
#include "sd/nn/conv_bn.hpp"
#include "sd/nn/pooling.hpp"

#include <variant>

SD_NAMESPACE_BEGIN

/// S(x) = x.
struct IdentityShortcut {};

/// S(x) = bn(conv(x)) with a strided 1x1 convolution: torchvision's `downsample`.
template <class T, class Device = Cpu>
class ProjectionShortcut {
public:
    /// A 1x1 convolution of these settings and its batch norm.
    ProjectionShortcut(Index in_channels, Index out_channels, Index stride, Initializer& initializer)
        : unit_(in_channels, out_channels, 1, {.stride = stride}, Activation::none, initializer) {}

    /// S(x), (N, H / stride, W / stride, out_channels) rounded up, as a pending tensor; x (N, H, W, in_channels).
    [[nodiscard]] Pending<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return unit_.forward(x, context);
    }
    /// Adds the gradients of all parameters and returns the gradient by x. Throws std::logic_error if the last forward
    /// pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) { return unit_.backward(dy); }

    /// Names the convolution "0" and the batch norm "1", as torchvision does.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("0", unit_.conv());
        visitor("1", unit_.bn());
    }

private:
    ConvBn<T, Device> unit_;
};

/// S(x) = 2x2 average pooling with stride 2, and zeros in the channels that x lacks: no parameters. An odd last row or
/// column is averaged by itself, so that S(x) has the size of a branch whose convolution halves the image.
/// The shortcut of G. Huang et al., "Deep networks with stochastic depth", ECCV 2016, in their code for CIFAR.
template <class T, class Device = Cpu>
class PadShortcut {
public:
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
    [[nodiscard]] Pending<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        expect_shape("PadShortcut", "input", x.shape(), {x.extent(0), x.extent(1), x.extent(2), in_channels_});
        return with_channels(pool_.forward(x, context), out_channels_);
    }
    /// The gradient by x. Throws std::logic_error if the last forward pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return pool_.backward(with_channels(dy, in_channels_));
    }

    /// There is nothing to name.
    template <class Visitor>
    void visit(Visitor&&) {}

private:
    Index in_channels_;
    Index out_channels_;
    AvgPool2d<T, Device> pool_;
};

/// One of the three.
template <class T, class Device = Cpu>
class Shortcut {
public:
    Shortcut() = default;
    /// A shortcut of this kind.
    Shortcut(ProjectionShortcut<T, Device> projection)
        : kind_(std::move(projection)) {}  // NOLINT(google-explicit-constructor)
    /// A shortcut of this kind.
    Shortcut(PadShortcut<T, Device> pad) : kind_(std::move(pad)) {}  // NOLINT(google-explicit-constructor)

    /// Whether S(x) = x.
    [[nodiscard]] bool is_identity() const { return std::holds_alternative<IdentityShortcut>(kind_); }

    /// S(x) as a pending tensor; x itself for an identity.
    [[nodiscard]] Pending<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return std::visit(
            [&]<class Kind>(Kind& kind) -> Pending<T, Device> {
                if constexpr (std::is_same_v<Kind, IdentityShortcut>) {
                    return x;
                } else {
                    return kind.forward(x, context);
                }
            },
            kind_);
    }

    /// The gradient by x.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return std::visit(
            [&]<class Kind>(Kind& kind) -> Tensor<T, Device> {
                if constexpr (std::is_same_v<Kind, IdentityShortcut>) {
                    return dy;
                } else {
                    return kind.backward(dy);
                }
            },
            kind_);
    }

    /// Names what there is, "downsample".
    template <class Visitor>
    void visit(Visitor&& visitor) {
        std::visit(
            [&]<class Kind>(Kind& kind) {
                if constexpr (!std::is_same_v<Kind, IdentityShortcut>) visitor("downsample", kind);
            },
            kind_);
    }

private:
    std::variant<IdentityShortcut, ProjectionShortcut<T, Device>, PadShortcut<T, Device>> kind_;
};

SD_NAMESPACE_END
