// A gradient that batch norm's backward has not applied yet, and what its forward pass left for it.
#pragma once

#include "sd/core/pending.hpp"
#include "sd/core/window.hpp"

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

/// Refuses sums of a batch norm's backward that do not have one entry per channel, and what expect_batch_norm_pass()
/// refuses.
template <class T, class Device, class Sums>
void expect_batch_norm_sums(const Shape& dy, const BatchNormPass<T, Device>& pass, const Sums& sums) {
    constexpr const char* where = "batch_norm_by_input";
    expect_batch_norm_pass(where, pass, dy);
    const Shape channels{pass.y.channels()};
    expect_shape(where, "sums.dweight", sums.dweight.shape(), channels);
    expect_shape(where, "sums.dbias", sums.dbias.shape(), channels);
}

/// Refuses what gate_sums cannot take: dy and x (N, H, W, C) of two shapes, or a batch norm whose output is not x.
template <class Pass>
void expect_gate_sums(const Shape& dy, const Shape& x, const Pass* before) {
    constexpr const char* where = "gate_sums";
    expect_rank(where, "dy", dy, 4);
    expect_shape(where, "x", x, dy);
    if (before != nullptr) expect_batch_norm_pass(where, *before, dy);
}

/// Refuses sums of a gate, of_gate (N, C), that have none of the batch norm before it, or deviations that do not have
/// one entry per channel.
inline void expect_sums_of_norm(const Shape& of_gate, const Shape& of_norm, const Shape& inverse_std) {
    constexpr const char* where = "batch_norm_sums";
    expect_shape(where, "sums of the norm", of_norm, {of_gate[0], 4, of_gate[1]});
    expect_shape(where, "inverse_std", inverse_std, {of_gate[1]});
}

}  // namespace detail

/// The gradient by x of a gradient dy by y = gate(n, c) x, where the gate depends on x through the mean of each sample's
/// channel:
///
///     value(n, ..., c) = factor(n, c) dy(n, ..., c) + common(n, c)
///
/// with factor = gate(n, c). Undefined tensors: there is no gate, and the value is dy.
template <class T, class Device = Cpu>
struct GateGradient {
    Tensor<T, Device> factor;  ///< (N, C)
    Tensor<T, Device> common;  ///< (N, C), what all pixels receive through the mean

    /// Whether there is a gate.
    [[nodiscard]] explicit operator bool() const { return static_cast<bool>(factor); }
};

/// The gradient by the input z of a batch norm, as its backward hands it to the convolution before:
///
///     value(n, ..., c) = scale(c) g + slope(c) (z - center(c)) + offset(c)
///                    g = upstream act'(scale(c) z + shift(c))
///             upstream = dy, or behind a gate factor(n, c) dy + common(n, c), see GateGradient
///
/// with z = y.raw, scale and shift those of y, act the activation that follows. Nothing is stored: the consumer applies
/// the rest as it loads an element. A plain tensor converts to one whose values are its own.
template <class T, class Device = Cpu>
struct PendingGradient {
    Tensor<T, Device> dy;                    ///< the gradient by the value of y, or of y gated
    Pending<T, Device> y;                    ///< batch norm's output; undefined raw for a plain gradient
    Tensor<accumulate_t<T>, Device> center;  ///< (C)
    Tensor<accumulate_t<T>, Device> slope;   ///< (C)
    Tensor<accumulate_t<T>, Device> offset;  ///< (C)
    GateGradient<T, Device> gate;            ///< what lies between y and dy, if anything

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

    /// The same through a gate. Throws std::invalid_argument unless it has one entry for each sample's channel.
    [[nodiscard]] PendingGradient through(GateGradient<T, Device> own) const {
        if (own) {
            const Shape channels{dy.extent(0), y.channels()};
            expect_shape("PendingGradient", "factor of the gate", own.factor.shape(), channels);
            expect_shape("PendingGradient", "common term of the gate", own.common.shape(), channels);
        }
        PendingGradient result = *this;
        result.gate = std::move(own);
        return result;
    }

    /// The value of element i (row-major).
    [[nodiscard]] T value(Index i) const {
        using A = accumulate_t<T>;
        if (is_plain()) return dy.data()[i];
        const Index c = i % y.channels();
        T upstream = dy.data()[i];
        if (gate) {
            const Index own = i / (dy.size() / dy.extent(0)) * y.channels() + c;
            upstream = T(gate.factor.data()[own] * upstream + gate.common.data()[own]);
        }
        const T z = y.raw.data()[i];
        const T g = activation_gradient(y.activation, upstream, y.before_activation(z, c));
        return T(y.scale.data()[c] * A(g) + slope.data()[c] * (A(z) - center.data()[c]) + offset.data()[c]);
    }
};

/// What the convolutions of a device with weights of this shape load, made once for all that load it. The CPU's apply
/// pending values on load, so it is x as it is; a device whose convolutions take plain tensors makes a plain one.
template <class T>
[[nodiscard]] const Pending<T>& conv2d_operand(const Pending<T>& x, const Shape& /*weight*/,
                                               const Conv2dOptions& /*options*/) {
    return x;
}
/// The same for a gradient.
template <class T>
[[nodiscard]] const PendingGradient<T>& conv2d_operand(const PendingGradient<T>& dy, const Shape& /*weight*/,
                                                       const Conv2dOptions& /*options*/) {
    return dy;
}

SD_NAMESPACE_END
