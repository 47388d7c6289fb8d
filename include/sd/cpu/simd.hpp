// Vectors of the width that the target offers, by the compilers' vector extension.
#pragma once

#include "sd/core/shape.hpp"

#include <concepts>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX__)
#include <immintrin.h>
#endif

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

/// The `lanes` values at an address of any alignment.
template <class T>
[[nodiscard, gnu::always_inline]] inline Vector<T> load(const T* from) {
    Vector<T> result;
    std::memcpy(&result, from, sizeof result);
    return result;
}

/// Writes all lanes to an address of any alignment.
template <class T>
[[gnu::always_inline]] inline void store(const Vector<T>& values, std::type_identity_t<T>* to) {
    std::memcpy(to, &values, sizeof values);
}

#if defined(__AVX512F__)
/// The mask of the first `count` lanes, fewer than all.
template <class T>
[[nodiscard, gnu::always_inline]] inline auto first_lanes(Index count) {
    if constexpr (std::is_same_v<T, float>) {
        return static_cast<__mmask16>((1U << count) - 1);
    } else {
        return static_cast<__mmask8>((1U << count) - 1);
    }
}
#elif defined(__AVX__)
/// The same as all bits of the lanes.
template <class T>
[[nodiscard, gnu::always_inline]] inline __m256i first_lanes(Index count) {
    static constexpr std::int32_t bits[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    constexpr Index words = static_cast<Index>(sizeof(T)) / 4;
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits + 8 - count * words));
}
#endif

/// The first `count` values at an address, at most `lanes`; zeros in the other lanes, whose memory is not touched.
template <class T>
[[nodiscard, gnu::always_inline]] inline Vector<T> load_some(const T* from, Index count) {
    if (count >= lanes<T>) return load(from);
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float>) {
        return reinterpret_cast<Vector<T>>(_mm512_maskz_loadu_ps(first_lanes<T>(count), from));
    } else {
        return reinterpret_cast<Vector<T>>(_mm512_maskz_loadu_pd(first_lanes<T>(count), from));
    }
#elif defined(__AVX__)
    if constexpr (std::is_same_v<T, float>) {
        return reinterpret_cast<Vector<T>>(_mm256_maskload_ps(from, first_lanes<T>(count)));
    } else {
        return reinterpret_cast<Vector<T>>(_mm256_maskload_pd(from, first_lanes<T>(count)));
    }
#else
    Vector<T> result = {};
    std::memcpy(&result, from, static_cast<std::size_t>(count) * sizeof(T));
    return result;
#endif
}

/// The first `count` values at an address that lie `step` elements apart, at most `lanes`; zeros in the other lanes.
template <class T>
[[nodiscard, gnu::always_inline]] inline Vector<T> load_apart(const T* from, Index step, Index count) {
    Vector<T> result = {};
    if (count >= lanes<T>) {
#pragma GCC unroll 16
        for (Index i = 0; i < lanes<T>; ++i) result[i] = from[i * step];
    } else {
        for (Index i = 0; i < count; ++i) result[i] = from[i * step];
    }
    return result;
}

/// Writes the first `count` lanes, at most all.
template <class T>
[[gnu::always_inline]] inline void store_some(const Vector<T>& values, std::type_identity_t<T>* to, Index count) {
    if (count >= lanes<T>) return store<T>(values, to);
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float>) {
        _mm512_mask_storeu_ps(to, first_lanes<T>(count), reinterpret_cast<__m512>(values));
    } else {
        _mm512_mask_storeu_pd(to, first_lanes<T>(count), reinterpret_cast<__m512d>(values));
    }
#else
    std::memcpy(to, &values, static_cast<std::size_t>(count) * sizeof(T));
#endif
}

/// Writes all lanes past the caches, to an address that is a multiple of vector_bytes: for results that no cache will
/// keep until they are read, whose lines would be fetched only to be overwritten.
template <class T>
[[gnu::always_inline]] inline void stream(const Vector<T>& values, std::type_identity_t<T>* to) {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float>) {
        _mm512_stream_ps(to, reinterpret_cast<__m512>(values));
    } else {
        _mm512_stream_pd(to, reinterpret_cast<__m512d>(values));
    }
#elif defined(__AVX__)
    if constexpr (std::is_same_v<T, float>) {
        _mm256_stream_ps(to, reinterpret_cast<__m256>(values));
    } else {
        _mm256_stream_pd(to, reinterpret_cast<__m256d>(values));
    }
#else
    store<T>(values, to);
#endif
}

/// What this thread streamed is seen by the threads that it meets from here on. To be called after streaming.
inline void stream_fence() {
#if defined(__AVX__)
    _mm_sfence();
#endif
}

/// max(value, 0) in each lane; NaN passes.
template <class T>
[[nodiscard, gnu::always_inline]] inline Vector<T> rectified(const Vector<T>& value) {
    return value < Vector<T>{} ? Vector<T>{} : value;
}

/// Has a vector that is used several times loaded into a register once. Compilers else read it from memory again at
/// each use, which spares an instruction and costs a load.
template <class VectorType>
[[gnu::always_inline]] inline void hold(VectorType& values) {
#if defined(__AVX512F__)
    asm("" : "+v"(values));
#elif defined(__x86_64__)
    asm("" : "+x"(values));
#endif
}

/// A number that the compiler knows.
template <Index value>
inline constexpr std::integral_constant<Index, value> constant{};

/// Calls use(first, count) for every vector of `size` elements. The counts of whole vectors are known to the compiler,
/// which then leaves out what only the last one needs.
template <class T, class Use>
[[gnu::always_inline]] inline void for_each_vector(Index size, const Use& use) {
    Index first = 0;
    for (; first + lanes<T> <= size; first += lanes<T>) use(first, constant<lanes<T>>);
    if (first < size) use(first, size - first);
}

/// Conditions that the compiler knows.
template <bool... values>
struct Constants {};

/// Calls use(Constants<...>()) with what the conditions are: a loop then has no branch on what holds all through it.
template <bool... known, class Use>
void with_constants(const Use& use) {
    use(Constants<known...>());
}
template <bool... known, class Use, class... Conditions>
void with_constants(const Use& use, bool condition, Conditions... conditions) {
    if (condition) {
        with_constants<known..., true>(use, conditions...);
    } else {
        with_constants<known..., false>(use, conditions...);
    }
}

/// Asks for the cache line at an address, which may lie anywhere.
[[gnu::always_inline]] inline void prefetch(const void* address) { __builtin_prefetch(address, 0, 2); }

/// The least multiple that is not below the value.
constexpr Index round_up(Index value, Index multiple) { return (value + multiple - 1) / multiple * multiple; }
/// The quotient, rounded up.
constexpr Index quotient_up(Index value, Index divisor) { return (value + divisor - 1) / divisor; }

/// A stride of so many elements, or of a cache line more if it would be a multiple of 4096 bytes: many places so far
/// apart all lie in one set of the cache, and drive each other out where they are read or written in turn.
template <class T>
constexpr Index spread_stride(Index elements) {
    constexpr Index size = static_cast<Index>(sizeof(T));
    return elements + (elements * size % 4096 == 0 ? 64 / size : 0);
}

}  // namespace cpu

SD_NAMESPACE_END
