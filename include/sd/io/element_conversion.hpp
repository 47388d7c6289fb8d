// Elements of one type of a file as another: 16-bit and 64-bit floating-point numbers, and whole numbers.
#pragma once

#include "sd/io/safetensors.hpp"

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>

SD_NAMESPACE_BEGIN

namespace detail {

/// The value of an IEEE 754 half-precision number: sign, 5 bits of exponent, 10 of fraction. Exact.
inline float half_value(std::uint16_t bits) {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1FU;
    const std::uint32_t fraction = bits & 0x3FFU;
    if (exponent == 0) {
        const float magnitude = std::ldexp(static_cast<float>(fraction), -24);  // 0 and below the smallest normal one
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
    }
    const std::uint32_t wide = exponent == 0x1FU ? 0xFFU : exponent + 127 - 15;  // infinite and NaN stay so
    return std::bit_cast<float>(sign | (wide << 23) | (fraction << 13));
}

/// Element i of some bytes.
template <class T>
T element_at(std::span<const std::byte> bytes, std::size_t i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    return value;
}

/// Whether elements of the type are floating-point numbers that can be converted.
constexpr bool is_floating(Dtype dtype) {
    return dtype == Dtype::f16 || dtype == Dtype::bf16 || dtype == Dtype::f32 || dtype == Dtype::f64;
}

/// Element i of a tensor as a double, exact for all types of up to 53 bits; nothing for the 8-bit floating-point types.
inline std::optional<double> number_at(const SafeTensorEntry& entry, std::size_t i) {
    const std::span<const std::byte> bytes(entry.bytes);
    switch (entry.dtype) {
        case Dtype::f16:
            return half_value(element_at<std::uint16_t>(bytes, i));
        case Dtype::bf16:
            return std::bit_cast<float>(static_cast<std::uint32_t>(element_at<std::uint16_t>(bytes, i)) << 16);
        case Dtype::f32:
            return element_at<float>(bytes, i);
        case Dtype::f64:
            return element_at<double>(bytes, i);
        case Dtype::boolean:
        case Dtype::u8:
            return element_at<std::uint8_t>(bytes, i);
        case Dtype::i8:
            return element_at<std::int8_t>(bytes, i);
        case Dtype::i16:
            return element_at<std::int16_t>(bytes, i);
        case Dtype::u16:
            return element_at<std::uint16_t>(bytes, i);
        case Dtype::i32:
            return element_at<std::int32_t>(bytes, i);
        case Dtype::u32:
            return element_at<std::uint32_t>(bytes, i);
        case Dtype::i64:
            return static_cast<double>(element_at<std::int64_t>(bytes, i));
        case Dtype::u64:
            return static_cast<double>(element_at<std::uint64_t>(bytes, i));
        default:
            return std::nullopt;
    }
}

/// Whether a finite number is too large for a float. By its bits: infinity is not.
inline bool overflows_float(double number) {
    const bool is_finite = ((std::bit_cast<std::uint64_t>(number) >> 52) & 0x7FFU) != 0x7FFU;
    return is_finite && std::abs(number) > static_cast<double>(std::numeric_limits<float>::max());
}

/// The tensor of floating-point numbers as one of T, each times factor / divisor, computed in double and rounded once.
/// Throws std::runtime_error, naming file and tensor, if T cannot hold a number.
template <class T>
SafeTensorEntry scaled_as(const SafeTensorEntry& entry, double factor, double divisor, const std::string& source,
                          const std::string& name) {
    SafeTensorEntry result{DtypeOf<T>::value, entry.shape, {}};
    const std::size_t count = entry.bytes.size() / static_cast<std::size_t>(dtype_bytes(entry.dtype));
    result.bytes.resize(count * sizeof(T));
    for (std::size_t i = 0; i < count; ++i) {
        const double number = *number_at(entry, i) * factor / divisor;
        if constexpr (sizeof(T) < sizeof(double)) {
            if (overflows_float(number)) {
                refuse_file(source, text("tensor ", in_quotes(name), ": element ", i), number,
                            text("a number that ", dtype_name(result.dtype), " can hold"));
            }
        }
        const T value = static_cast<T>(number);
        std::memcpy(result.bytes.data() + i * sizeof(T), &value, sizeof(T));
    }
    return result;
}

/// The same for a type that is known when the program runs, F32 or F64.
inline SafeTensorEntry scaled_as(Dtype dtype, const SafeTensorEntry& entry, double factor, double divisor,
                                 const std::string& source, const std::string& name) {
    return dtype == Dtype::f64 ? scaled_as<double>(entry, factor, divisor, source, name)
                               : scaled_as<float>(entry, factor, divisor, source, name);
}

}  // namespace detail

SD_NAMESPACE_END
