// Whether numbers are finite, by their bits.
#pragma once

#include "sd/core/config.hpp"

#include <bit>
#include <concepts>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

SD_NAMESPACE_BEGIN

namespace detail {

/// The bits of a float or a double.
template <std::floating_point T>
using FloatBits = std::conditional_t<sizeof(T) == sizeof(std::uint32_t), std::uint32_t, std::uint64_t>;

/// The bits of a type's exponent. Only infinities and NaN have all of them set.
template <std::floating_point T>
inline constexpr FloatBits<T> exponent_bits = std::bit_cast<FloatBits<T>>(std::numeric_limits<T>::infinity());

}  // namespace detail

/// Whether x is neither infinite nor NaN, by the bits of its exponent. So it holds in programs that are compiled with
/// -ffast-math, where std::isfinite is always true and comparisons with NaN say anything.
template <std::floating_point T>
[[nodiscard]] constexpr bool is_finite(T x) {
    static_assert(std::numeric_limits<T>::is_iec559 && sizeof(T) <= sizeof(std::uint64_t), "float or double");
    auto bits = std::bit_cast<detail::FloatBits<T>>(x);
#if defined(__clang__) && defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
    // From clang 17 on an argument is taken to be finite, its bits included. It cannot see through this.
    if (!std::is_constant_evaluated()) asm("" : "+r"(bits));
#endif
    return (bits & detail::exponent_bits<T>) != detail::exponent_bits<T>;
}

/// The same for a type of 16 bits whose exponent is a float's, such as bfloat16.
template <class T>
requires requires(const T& x) {
    { x.bits() } -> std::same_as<std::uint16_t>;
}
[[nodiscard]] constexpr bool is_finite(const T& x) { return (x.bits() & 0x7F80U) != 0x7F80U; }

/// Whether all numbers are finite, and none is NaN.
template <class T>
[[nodiscard]] constexpr bool all_finite(std::span<const T> numbers) {
    bool finite = true;  // without a way out, so that the compiler makes vectors of the loop
    for (const T& x : numbers) finite &= is_finite(x);
    return finite;
}

/// The smallest number above 0 that a type of numbers has with all its digits; for types other than float a double's.
template <class T>
inline constexpr double smallest_number = std::same_as<T, float> ? double{std::numeric_limits<float>::min()}
                                                                 : std::numeric_limits<double>::min();

/// The largest finite number of a type of numbers; for types other than float a double's.
template <class T>
inline constexpr double largest_number = std::same_as<T, float> ? double{std::numeric_limits<float>::max()}
                                                                : std::numeric_limits<double>::max();

/// Whether x is a finite number from `least` to `most`.
[[nodiscard]] constexpr bool is_in_range(double x, double least, double most = std::numeric_limits<double>::max()) {
    return is_finite(x) && x >= least && x <= most;
}

SD_NAMESPACE_END
