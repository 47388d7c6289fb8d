// A tensor whose last per-channel scale, shift and activation have not been applied yet.
#pragma once

#include "sd/core/activation.hpp"
#include "sd/core/tensor.hpp"

#include <utility>

SD_NAMESPACE_BEGIN

/// Stands for
///
///     value(..., c) = act(scale(c) * raw(..., c) + shift(c))
///
/// and is what goes from a convolution through its batch norm to the next convolution: only `raw` is stored, and the
/// consumer applies the rest on load. Zero padding comes after it: padded elements are 0, not act(shift).
/// An undefined scale means scale 1 and shift 0, so a plain tensor converts to a pending one.
template <class T, class Device = Cpu>
struct Pending {
    Tensor<T, Device> raw;                     ///< (..., C)
    Tensor<accumulate_t<T>, Device> scale;     ///< (C) or undefined
    Tensor<accumulate_t<T>, Device> shift;     ///< (C), defined exactly if scale is
    Activation activation = Activation::none;  ///< act, to be applied last

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
    [[nodiscard]] bool is_plain() const { return !scale && activation == Activation::none; }

    /// What the activation is applied to where channel c has the raw value v.
    [[nodiscard]] T before_activation(const T& v, Index c) const {
        return scale ? T(scale.data()[c] * v + shift.data()[c]) : v;
    }
    /// The value of channel c whose raw value is v.
    [[nodiscard]] T apply(const T& v, Index c) const { return activate(activation, before_activation(v, c)); }
};

SD_NAMESPACE_END
