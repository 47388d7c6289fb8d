// A tensor whose last per-channel scale, shift and activation, and a gate of each sample, have not been applied yet.
#pragma once

#include "sd/core/activation.hpp"
#include "sd/core/tensor.hpp"

#include <utility>

SD_NAMESPACE_BEGIN

/// Stands for
///
///     value(n, ..., c) = gate(n, c) act(scale(c) raw(n, ..., c) + shift(c))
///
/// and is what goes from a convolution through its batch norm to the next convolution: only `raw` is stored, and the
/// consumer applies the rest on load. Zero padding comes after it: padded elements are 0, not act(shift).
/// An undefined scale means scale 1 and shift 0, an undefined gate 1, so a plain tensor converts to a pending one.
template <class T, class Device = Cpu>
struct Pending {
    Tensor<T, Device> raw;                     ///< (..., C)
    Tensor<accumulate_t<T>, Device> scale;     ///< (C) or undefined
    Tensor<accumulate_t<T>, Device> shift;     ///< (C), defined exactly if scale is
    Activation activation = Activation::none;  ///< act
    Tensor<T, Device> gate;                    ///< (N, C) or undefined: of squeeze-and-excitation, to be applied last

    Pending() = default;
    /// A tensor whose raw values are its values.
    Pending(Tensor<T, Device> plain) : raw(std::move(plain)) {}  // NOLINT(google-explicit-constructor)
    /// Raw values with what is still to be applied. Throws std::invalid_argument unless scale and shift have one entry
    /// a channel.
    Pending(Tensor<T, Device> raw_values, Tensor<accumulate_t<T>, Device> channel_scale,
            Tensor<accumulate_t<T>, Device> channel_shift, Activation last)
        : raw(std::move(raw_values)),
          scale(std::move(channel_scale)),
          shift(std::move(channel_shift)),
          activation(last) {
        const Shape channels{raw.extent(raw.rank() - 1)};
        expect_shape("Pending", "scale", scale.shape(), channels);
        expect_shape("Pending", "shift", shift.shape(), channels);
    }

    /// The shape of the values, which is that of raw.
    [[nodiscard]] const Shape& shape() const { return raw.shape(); }
    /// The last extent.
    [[nodiscard]] Index channels() const { return raw.extent(raw.rank() - 1); }

    /// True if the raw values are the values.
    [[nodiscard]] bool is_plain() const { return !scale && activation == Activation::none && !gate; }

    /// The same with a gate, in the place of any that it has. Throws std::invalid_argument unless the gate has one entry
    /// for each sample's channel.
    [[nodiscard]] Pending gated(Tensor<T, Device> factors) const {
        expect_shape("Pending", "gate", factors.shape(), {raw.extent(0), channels()});
        Pending result = *this;
        result.gate = std::move(factors);
        return result;
    }

    /// What the activation is applied to where channel c has the raw value v.
    [[nodiscard]] T before_activation(const T& v, Index c) const {
        return scale ? T(scale.data()[c] * v + shift.data()[c]) : v;
    }
    /// The value of element i (row-major).
    [[nodiscard]] T value(Index i) const {
        const Index c = i % channels();
        const T activated = activate(activation, before_activation(raw.data()[i], c));
        return gate ? T(gate.data()[i / (raw.size() / raw.extent(0)) * channels() + c] * activated) : activated;
    }
};

/// The same without a gate, for those who load none: its values, if it has one.
template <class T, class Device>
[[nodiscard]] Pending<T, Device> ungated(const Pending<T, Device>& x) {
    return x.gate ? Pending<T, Device>(materialize(x)) : x;
}

SD_NAMESPACE_END
