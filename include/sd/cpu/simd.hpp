// Vectors of the width that the target offers, by the compilers' vector extension.
#pragma once

#include "sd/core/shape.hpp"

#include <concepts>
#include <cstring>

SD_NAMESPACE_BEGIN

namespace cpu {

/// The scalar types that the fast kernels take. The kernels of reference/ stand beside them as less constrained
/// overloads, so every other type goes through those.
template <class T>
concept Vectorized = std::same_as<T, float> || std::same_as<T, double>;

#if defined(__AVX512F__)
inline constexpr Index vector_bytes = 64;
inline constexpr Index vector_registers = 32;
#elif defined(__AVX__)
inline constexpr Index vector_bytes = 32;
inline constexpr Index vector_registers = 16;
#else
inline constexpr Index vector_bytes = 16;
inline constexpr Index vector_registers = 16;
#endif

/// `lanes` values of T that are loaded, multiplied and stored together.
template <class T>
struct Simd {
    static constexpr Index lanes = vector_bytes / static_cast<Index>(sizeof(T));
    typedef T Vector __attribute__((vector_size(vector_bytes)));
};

template <class T>
using Vector = typename Simd<T>::Vector;
template <class T>
inline constexpr Index lanes = Simd<T>::lanes;

/// Unaligned load and store.
template <class T>
[[nodiscard, gnu::always_inline]] inline Vector<T> load(const T* from) {
    Vector<T> result;
    std::memcpy(&result, from, sizeof result);
    return result;
}
template <class T>
[[gnu::always_inline]] inline void store(const Vector<T>& values, T* to) {
    std::memcpy(to, &values, sizeof values);
}

/// Rounds up to a multiple; quotient rounded up.
constexpr Index round_up(Index value, Index multiple) { return (value + multiple - 1) / multiple * multiple; }
constexpr Index quotient_up(Index value, Index divisor) { return (value + divisor - 1) / divisor; }

}  // namespace cpu

SD_NAMESPACE_END
