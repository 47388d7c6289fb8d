// A square of as many vectors as a vector has lanes, turned over in registers.
#pragma once

#include "sd/cpu/simd.hpp"

#include <utility>

SD_NAMESPACE_BEGIN

namespace cpu {

/// The lanes of a and b in turn, a0 b0 a1 b1 ..., of their first halves or of their second ones.
template <class T, bool second_half>
[[nodiscard, gnu::always_inline]] inline Vector<T> interleave(const Vector<T>& a, const Vector<T>& b) {
#if defined(__CUDACC__)  // nvcc's front end loses the pack
    constexpr Index first = second_half ? lanes<T> / 2 : 0;
    Vector<T> result;
    for (Index i = 0; i < lanes<T>; ++i) result[i] = (i % 2 == 0 ? a : b)[first + i / 2];
    return result;
#else
    return [&]<int... i>(std::integer_sequence<int, i...>) {
        constexpr int all = static_cast<int>(lanes<T>);
        constexpr int first = second_half ? all / 2 : 0;
        return __builtin_shufflevector(a, b, (first + i / 2 + i % 2 * all)...);
    }
    (std::make_integer_sequence<int, static_cast<int>(lanes<T>)>{});
#endif
}

/// Lane c of vector r becomes lane r of vector c. Interleaving vector i with vector i + lanes / 2 turns the bits of
/// (vector, lane) by one place; after log2(lanes) times the two have changed places.
template <class T>
[[gnu::always_inline]] inline void transpose(Vector<T> (&rows)[lanes<T>]) {
    constexpr Index half = lanes<T> / 2;
#pragma GCC unroll 4
    for (Index turns = 1; turns < lanes<T>; turns *= 2) {
        Vector<T> turned[lanes<T>];
#pragma GCC unroll 8
        for (Index i = 0; i < half; ++i) {
            turned[2 * i] = interleave<T, false>(rows[i], rows[i + half]);
            turned[2 * i + 1] = interleave<T, true>(rows[i], rows[i + half]);
        }
#pragma GCC unroll 16
        for (Index i = 0; i < lanes<T>; ++i) rows[i] = turned[i];
    }
}

}  // namespace cpu

SD_NAMESPACE_END
