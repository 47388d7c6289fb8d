// A vector as a number, so that formulas written for any type of number compute all lanes at once.
#pragma once

#include "sd/core/activation.hpp"
#include "sd/cpu/simd.hpp"

#include <Eigen/Core>
#include <cmath>
#include <cstring>
#include <type_traits>

SD_NAMESPACE_BEGIN

namespace cpu {

/// `lanes` numbers. Comparisons give a mask, for select().
template <class T>
struct VectorNumber {
    Vector<T> values;

    [[gnu::always_inline]] explicit VectorNumber(const Vector<T>& numbers) : values(numbers) {}
    /// The number in all lanes.
    [[gnu::always_inline]] explicit VectorNumber(double number) : values(Vector<T>{} + static_cast<T>(number)) {}

    [[gnu::always_inline]] friend VectorNumber operator+(const VectorNumber& a, const VectorNumber& b) {
        return VectorNumber(a.values + b.values);
    }
    [[gnu::always_inline]] friend VectorNumber operator-(const VectorNumber& a, const VectorNumber& b) {
        return VectorNumber(a.values - b.values);
    }
    [[gnu::always_inline]] friend VectorNumber operator*(const VectorNumber& a, const VectorNumber& b) {
        return VectorNumber(a.values * b.values);
    }
    [[gnu::always_inline]] friend VectorNumber operator/(const VectorNumber& a, const VectorNumber& b) {
        return VectorNumber(a.values / b.values);
    }
    [[gnu::always_inline]] friend auto operator<(const VectorNumber& a, const VectorNumber& b) {
        return a.values < b.values;
    }
    [[gnu::always_inline]] friend auto operator>(const VectorNumber& a, const VectorNumber& b) {
        return a.values > b.values;
    }
    [[gnu::always_inline]] friend auto operator<=(const VectorNumber& a, const VectorNumber& b) {
        return a.values <= b.values;
    }
    [[gnu::always_inline]] friend auto operator>=(const VectorNumber& a, const VectorNumber& b) {
        return a.values >= b.values;
    }
    [[gnu::always_inline]] friend auto operator==(const VectorNumber& a, const VectorNumber& b) {
        return a.values == b.values;
    }
};

/// In each lane one of two numbers.
template <class T, class Mask>
[[nodiscard, gnu::always_inline]] inline VectorNumber<T> select(const Mask& mask, const VectorNumber<T>& if_true,
                                                                const VectorNumber<T>& if_false) {
    return VectorNumber<T>(mask ? if_true.values : if_false.values);
}

// GCC 12 warns of its own AVX-512 intrinsics, whose undefined operands are masked out (its bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#if defined(__AVX512F__)
/// exp(x) = 2^n exp(r) of each lane, with n = x / ln 2 to the nearest and exp(r) by a polynomial that interpolates it at
/// Chebyshev's points of [-ln 2 / 2, ln 2 / 2]: within 2 units in the last place. The two instructions that round to n and
/// multiply by 2^n, overflow and underflow included, make it a third quicker than Eigen's.
[[nodiscard, gnu::always_inline]] inline VectorNumber<float> exp(const VectorNumber<float>& x) {
    using N = VectorNumber<float>;
    constexpr double coefficients[] = {
        0.001394116075383, 0.008375168288954, 0.04166635226808, 0.1666641501129, 0.5000000047259, 1.00000003783, 1.0};
    const auto n = _mm512_roundscale_ps(reinterpret_cast<__m512>((N(1.44269504088896) * x).values), 0);
    const N whole(reinterpret_cast<Vector<float>>(n));
    const N r = (x - whole * N(0.693359375)) - whole * N(-2.12194440054690583e-4);  // ln 2 in two parts, one exact
    N polynomial(0);
    for (const double coefficient : coefficients) polynomial = polynomial * r + N(coefficient);
    const auto scaled = _mm512_scalef_ps(reinterpret_cast<__m512>(polynomial.values), n);
    return N(reinterpret_cast<Vector<float>>(scaled));
}
#endif

/// exp of each lane, by Eigen: within 2 units in the last place. NaN stays NaN.
template <class T>
[[nodiscard, gnu::always_inline]] inline VectorNumber<T> exp(const VectorNumber<T>& x) {
    Eigen::Array<T, static_cast<int>(lanes<T>), 1> array;
    std::memcpy(array.data(), &x.values, sizeof x.values);
    array = array.exp().eval();
    return VectorNumber<T>(load(array.data()));
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// The complementary error function of each lane, a float, whose exp(-x^2) is given:
///
///     erfc(a) = t P(t) exp(-a^2),    t = 1 / (1 + 0.4 a),    a >= 0,    erfc(-a) = 2 - erfc(a)
///
/// where P interpolates at Chebyshev's points of [0, 1]: its relative error is below 1e-8. That of the result is
/// rounding's, of x^2 above all: 2e-7 near 0, 2e-6 where erfc is 1e-6.
[[nodiscard, gnu::always_inline]] inline VectorNumber<float> erfc_by(const VectorNumber<float>& exp_of_minus_square,
                                                                     const VectorNumber<float>& x) {
    using N = VectorNumber<float>;
    constexpr double coefficients[] = {-0.0298686284892, 0.143841069283,  -0.243041731836, 0.146803245672,
                                       -0.053793166327,  0.0871206416427, 0.118095123014,  0.171890571917,
                                       0.207600720397,   0.225676316927,  0.225675831456};
    const N a = select(x < N(0), N(0) - x, x);
    const N t = N(1) / (N(1) + N(0.4) * a);
    N polynomial(0);
    for (const double coefficient : coefficients) polynomial = polynomial * t + N(coefficient);
    const N result = t * polynomial * exp_of_minus_square;
    return select(x < N(0), N(2) - result, result);
}

/// The complementary error function of each lane: for double by the standard library.
template <class T>
[[nodiscard, gnu::always_inline]] inline VectorNumber<T> erfc(const VectorNumber<T>& x) {
    if constexpr (std::is_same_v<T, float>) {
        return erfc_by(exp(VectorNumber<T>(0) - x * x), x);
    } else {
        Vector<T> result;
        for (Index i = 0; i < lanes<T>; ++i) result[i] = std::erfc(x.values[i]);
        return VectorNumber<T>(result);
    }
}

/// The normal distribution's function and density of each lane, a float, of one exp.
[[nodiscard, gnu::always_inline]] inline sd::detail::Normal<VectorNumber<float>> normal(const VectorNumber<float>& v) {
    using N = VectorNumber<float>;
    const N e = exp(N(-0.5) * v * v);
    return {N(0.5) * erfc_by(e, v * N(-0.70710678118654752440)), N(0.39894228040143267794) * e};
}

}  // namespace cpu

SD_NAMESPACE_END
