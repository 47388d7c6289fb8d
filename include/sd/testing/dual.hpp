// Dual numbers: a value and its derivatives, computed together and exact to rounding.
// W. Clifford, "Preliminary sketch of biquaternions", 1873; as a way to differentiate programs: R. Wengert, "A simple
// automatic derivative evaluation program", 1964.
#pragma once

#include "sd/core/config.hpp"

#include <array>
#include <cmath>
#include <cstddef>

SD_NAMESPACE_BEGIN

namespace testing {

/// value + sum over k of slope_k e_k with e_i e_j = 0, so that arithmetic carries `directions` derivatives along:
///
///     f(a + b e) = f(a) + f'(a) b e
///
/// Comparisons look at the value alone: at a kink, the derivative is that of the side on which the value lies. Layers
/// built with Dual for their scalar run through the plain loops of reference/. Arithmetic compiles for a device too:
/// some formulas are shared with it.
struct Dual {
    /// How many derivatives are carried.
    static constexpr std::size_t directions = 8;

    double value = 0;                        ///< f
    std::array<double, directions> slope{};  ///< derivatives of f, one a direction

    Dual() = default;
    /// A constant: all derivatives are 0.
    SD_HOST_DEVICE explicit Dual(double number) : value(number) {}

    /// value f, slopes df times those of a.
    SD_HOST_DEVICE static Dual chain(const Dual& a, double f, double df) {
        Dual result(f);
        for (std::size_t k = 0; k < directions; ++k) result.slope[k] = df * a.slope[k];
        return result;
    }
    /// value f, slopes df_da times those of a plus df_db times those of b.
    SD_HOST_DEVICE static Dual chain(const Dual& a, const Dual& b, double f, double df_da, double df_db) {
        Dual result(f);
        for (std::size_t k = 0; k < directions; ++k) result.slope[k] = df_da * a.slope[k] + df_db * b.slope[k];
        return result;
    }

    SD_HOST_DEVICE friend Dual operator+(const Dual& a, const Dual& b) { return chain(a, b, a.value + b.value, 1, 1); }
    SD_HOST_DEVICE friend Dual operator-(const Dual& a, const Dual& b) { return chain(a, b, a.value - b.value, 1, -1); }
    SD_HOST_DEVICE friend Dual operator*(const Dual& a, const Dual& b) {
        return chain(a, b, a.value * b.value, b.value, a.value);
    }
    SD_HOST_DEVICE friend Dual operator/(const Dual& a, const Dual& b) {
        const double quotient = a.value / b.value;
        return chain(a, b, quotient, 1 / b.value, -quotient / b.value);
    }
    SD_HOST_DEVICE friend Dual operator-(const Dual& a) { return chain(a, -a.value, -1); }
    SD_HOST_DEVICE friend Dual operator+(const Dual& a) { return a; }
    SD_HOST_DEVICE Dual& operator+=(const Dual& other) { return *this = *this + other; }
    SD_HOST_DEVICE Dual& operator-=(const Dual& other) { return *this = *this - other; }
    SD_HOST_DEVICE Dual& operator*=(const Dual& other) { return *this = *this * other; }
    SD_HOST_DEVICE Dual& operator/=(const Dual& other) { return *this = *this / other; }

    friend bool operator==(const Dual& a, const Dual& b) { return a.value == b.value; }
    friend auto operator<=>(const Dual& a, const Dual& b) { return a.value <=> b.value; }

    SD_HOST_DEVICE friend Dual exp(const Dual& a) { return chain(a, std::exp(a.value), std::exp(a.value)); }
    SD_HOST_DEVICE friend Dual log(const Dual& a) { return chain(a, std::log(a.value), 1 / a.value); }
    SD_HOST_DEVICE friend Dual tanh(const Dual& a) {
        const double t = std::tanh(a.value);
        return chain(a, t, 1 - t * t);
    }
    /// The complementary error function, 1 - erf(a).
    SD_HOST_DEVICE friend Dual erfc(const Dual& a) {
        constexpr double slope_at_0 = -1.12837916709551257390;  // -2 / sqrt(pi)
        return chain(a, std::erfc(a.value), slope_at_0 * std::exp(-a.value * a.value));
    }
    SD_HOST_DEVICE friend Dual sqrt(const Dual& a) {
        const double root = std::sqrt(a.value);
        return chain(a, root, 0.5 / root);
    }
    SD_HOST_DEVICE friend Dual abs(const Dual& a) { return a.value < 0 ? -a : a; }
};

}  // namespace testing

SD_NAMESPACE_END
