// A gradient that batch norm's backward has not applied yet, and what its forward pass left for it.
#pragma once

#include "sd/core/pending.hpp"

#include <utility>

SD_NAMESPACE_BEGIN

/// What the forward pass of a batch norm leaves for its backward pass.
template <class T, class Device = Cpu>
struct BatchNormPass {
    Pending<T, Device> y;                         ///< output: raw = the input z, scale = weight inverse_std,
                                                  ///< shift = bias - mean scale, and the activation that follows
    Tensor<accumulate_t<T>, Device> mean;         ///< (C)
    Tensor<accumulate_t<T>, Device> inverse_std;  ///< (C), 1 / sqrt(variance + eps)
    bool batch_statistics = true;                 ///< of the batch, hence functions of z; else constants
};

namespace detail {

/// Refuses a pass of a batch norm whose output has another shape, or whose factors do not have one entry per channel.
template <class T, class Device>
void expect_batch_norm_pass(const char* where, const BatchNormPass<T, Device>& pass, const Shape& shape) {
    const Shape channels{pass.y.channels()};
    expect_shape(where, "batch norm's output", pass.y.shape(), shape);
    expect_shape(where, "scale", pass.y.scale.shape(), channels);
    expect_shape(where, "mean", pass.mean.shape(), channels);
    expect_shape(where, "inverse_std", pass.inverse_std.shape(), channels);
}

/// Refuses a request for the sums of a batch norm without its pass, or the other way round.
template <class Pass, class Sums>
void expect_pass_and_sums(const char* where, const Pass* before, const Sums* sums) {
    if ((before == nullptr) != (sums == nullptr)) {
        refuse(where, "before and sums", before == nullptr ? "sums alone" : "before alone", "both or none");
    }
}

}  // namespace detail

/// The gradient by the input z of a batch norm, as its backward hands it to the convolution before:
///
///     value(..., c) = scale(c) g + slope(c) (z - center(c)) + offset(c)
///                 g = dy act'(scale(c) z + shift(c))
///
/// with z = y.raw, scale and shift those of y, act the activation that follows. Nothing is stored: the consumer applies
/// the rest as it loads an element. A plain tensor converts to one whose values are its own.
template <class T, class Device = Cpu>
struct PendingGradient {
    Tensor<T, Device> dy;                    ///< the gradient by the value of y
    Pending<T, Device> y;                    ///< batch norm's output; undefined raw for a plain gradient
    Tensor<accumulate_t<T>, Device> center;  ///< (C)
    Tensor<accumulate_t<T>, Device> slope;   ///< (C)
    Tensor<accumulate_t<T>, Device> offset;  ///< (C)

    PendingGradient() = default;
    /// A tensor whose elements are the values.
    PendingGradient(Tensor<T, Device> plain) : dy(std::move(plain)) {}  // NOLINT(google-explicit-constructor)
    /// Batch norm's; factors have one entry per channel. Throws std::invalid_argument for other shapes.
    PendingGradient(Tensor<T, Device> upstream, Pending<T, Device> output, Tensor<accumulate_t<T>, Device> centers,
                    Tensor<accumulate_t<T>, Device> slopes, Tensor<accumulate_t<T>, Device> offsets)
        : dy(std::move(upstream)),
          y(std::move(output)),
          center(std::move(centers)),
          slope(std::move(slopes)),
          offset(std::move(offsets)) {
        const Shape channels{y.channels()};
        expect_shape("PendingGradient", "dy", dy.shape(), y.shape());
        expect_shape("PendingGradient", "scale", y.scale.shape(), channels);
        expect_shape("PendingGradient", "center", center.shape(), channels);
        expect_shape("PendingGradient", "slope", slope.shape(), channels);
        expect_shape("PendingGradient", "offset", offset.shape(), channels);
    }

    /// The shape of the values, which is that of dy.
    [[nodiscard]] const Shape& shape() const { return dy.shape(); }
    /// True if dy holds the values.
    [[nodiscard]] bool is_plain() const { return !y.raw; }

    /// The value of element i (row-major), of channel c.
    [[nodiscard]] T apply(Index i, Index c) const {
        using A = accumulate_t<T>;
        if (is_plain()) return dy.data()[i];
        const T z = y.raw.data()[i];
        const T g = activation_gradient(y.activation, dy.data()[i], y.before_activation(z, c));
        return T(y.scale.data()[c] * A(g) + slope.data()[c] * (A(z) - center.data()[c]) + offset.data()[c]);
    }
};

/// What the convolutions of a device load, made once for all that load it. The CPU's apply pending values on
/// load, so it is x as it is; a device whose convolutions take plain tensors makes a plain one.
template <class T>
[[nodiscard]] const Pending<T>& conv2d_operand(const Pending<T>& x) {
    return x;
}
/// The same for a gradient.
template <class T>
[[nodiscard]] const PendingGradient<T>& conv2d_operand(const PendingGradient<T>& dy) {
    return dy;
}

SD_NAMESPACE_END
