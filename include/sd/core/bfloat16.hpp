// The upper half of a float: eight bits of exponent, seven of fraction.
#pragma once

#include "sd/core/tensor.hpp"

#include <bit>
#include <cstdint>

SD_NAMESPACE_BEGIN

/// A 16-bit floating-point number with a float's range. A format to store activations in: arithmetic is done in float,
/// and parameters, statistics and sums are float (accumulate_t).
class bfloat16 {
public:
    bfloat16() = default;
    /// Rounds to the nearest, ties to even. NaN stays NaN.
    SD_HOST_DEVICE explicit bfloat16(float value) {
        const auto word = std::bit_cast<std::uint32_t>(value);
        const bool is_nan = (word & 0x7FFFFFFFU) > 0x7F800000U;
        const std::uint32_t rounded = is_nan ? word | 0x400000U : word + 0x7FFFU + ((word >> 16) & 1U);
        bits_ = static_cast<std::uint16_t>(rounded >> 16);
    }
    /// Exact.
    SD_HOST_DEVICE explicit operator float() const {
        return std::bit_cast<float>(static_cast<std::uint32_t>(bits_) << 16);
    }
    /// The bits: sign, exponent, fraction.
    [[nodiscard]] SD_HOST_DEVICE std::uint16_t bits() const { return bits_; }

private:
    std::uint16_t bits_;
};

/// Sums of bfloat16 are kept in float.
template <>
struct Accumulate<bfloat16> {
    using type = float;  ///< float
};

SD_NAMESPACE_END
