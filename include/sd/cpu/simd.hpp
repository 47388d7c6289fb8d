// Vectors of the width that the target offers, by the compilers' vector extension.
#pragma once

#include "sd/core/bfloat16.hpp"
#include "sd/core/shape.hpp"

#include <concepts>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__AVX__)
#include <immintrin.h>
#endif
#if defined(__AVX512BF16__) && !defined(__CUDACC__)
#define SD_NARROWS_AT_ONCE 1
#endif

SD_NAMESPACE_BEGIN

namespace cpu {

/// The scalar types that the fast kernels take. The kernels of reference/ stand beside them as less constrained
/// overloads, so every other type goes through those. Of bfloat16, loads widen it and stores round: what is computed,
/// and all that a kernel keeps beside its results, is float.
template <class T>
concept Vectorized = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bfloat16>;

#if defined(__AVX512F__)
inline constexpr Index vector_bytes = 64;
inline constexpr Index vector_registers = 32;
#elif defined(__AVX__)
inline constexpr Index vector_bytes = 32;
inline constexpr Index vector_registers = 16;
#elif defined(__aarch64__)
inline constexpr Index vector_bytes = 16;
inline constexpr Index vector_registers = 32;
#else
inline constexpr Index vector_bytes = 16;
inline constexpr Index vector_registers = 16;
#endif

/// `lanes` values of T that are loaded, multiplied and stored together, in the type that they are multiplied in.
template <class T>
struct Simd {
    using Number = accumulate_t<T>;
    static constexpr Index lanes = vector_bytes / static_cast<Index>(sizeof(Number));
    typedef Number Vector __attribute__((vector_size(vector_bytes)));
};

template <class T>
using Vector = typename Simd<T>::Vector;
template <class T>
inline constexpr Index lanes = Simd<T>::lanes;

/// The bits of as many bfloat16 and floats as a vector has lanes.
typedef std::uint16_t HalfWords __attribute__((vector_size(vector_bytes / 2)));
typedef std::uint32_t Words __attribute__((vector_size(vector_bytes)));

/// The numbers whose upper halves are given: exact.
[[nodiscard, gnu::always_inline]] inline Vector<float> widened(const HalfWords& halves) {
#if defined(__CUDACC__)  // nvcc's front end has no conversions of vectors
    Words words;
    for (Index i = 0; i < lanes<float>; ++i) words[i] = halves[i];
#else
    Words words = __builtin_convertvector(halves, Words);
#endif
    words <<= 16;
    return reinterpret_cast<Vector<float>>(words);
}

/// The bits of bfloat16(value) in the upper half of each lane; the lower halves are anything.
[[nodiscard, gnu::always_inline]] inline Words rounded_words(const Vector<float>& values) {
    typedef std::int32_t Integers __attribute__((vector_size(vector_bytes)));
    const auto words = reinterpret_cast<Words>(values);
    const auto is_nan = reinterpret_cast<Integers>(words & 0x7FFFFFFFU) > 0x7F800000;
    return is_nan ? words | 0x400000U : words + 0x7FFFU + ((words >> 16) & 1U);
}

/// The bits of bfloat16(value), each lane to the nearest, ties to even. NaN stays NaN. Where the processor has an
/// instruction for it, denormal numbers become zero.
[[nodiscard, gnu::always_inline]] inline HalfWords narrowed(const Vector<float>& values) {
#if defined(SD_NARROWS_AT_ONCE)
    return reinterpret_cast<HalfWords>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(values)));
#else
    const Words words = rounded_words(values) >> 16;
#if defined(__CUDACC__)
    HalfWords halves;
    for (Index i = 0; i < lanes<float>; ++i) halves[i] = static_cast<std::uint16_t>(words[i]);
    return halves;
#else
    return __builtin_convertvector(words, HalfWords);
#endif
#endif
}

/// Each lane's bfloat16(first) in the lower half, bfloat16(second) in the upper one.
[[nodiscard, gnu::always_inline]] inline Words paired(const Vector<float>& first, const Vector<float>& second) {
#if defined(SD_NARROWS_AT_ONCE)
    typedef std::uint16_t AllHalfWords __attribute__((vector_size(vector_bytes)));
    const auto both = reinterpret_cast<AllHalfWords>(
        _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(second), reinterpret_cast<__m512>(first)));
    return [&]<int... i>(std::integer_sequence<int, i...>) {
        return reinterpret_cast<Words>(__builtin_shufflevector(both, both, (i / 2 + i % 2 * 16)...));
    }
    (std::make_integer_sequence<int, 32>{});
#else
    return (rounded_words(first) >> 16) | (rounded_words(second) & 0xFFFF0000U);
#endif
}

/// The values as they are after they were stored as T and loaded again.
template <class T>
[[nodiscard, gnu::always_inline]] inline Vector<T> as_stored(const Vector<T>& values) {
    if constexpr (std::is_same_v<T, bfloat16>) {
#if defined(SD_NARROWS_AT_ONCE)
        return widened(narrowed(values));
#else
        const Words words = rounded_words(values) & 0xFFFF0000U;
        Vector<T> result;  // copied, since nvcc's front end refuses a cast here
        std::memcpy(&result, &words, sizeof result);
        return result;
#endif
    } else {
        return values;
    }
}

/// The `lanes` values at an address of any alignment.
template <class T>
[[nodiscard, gnu::always_inline]] inline Vector<T> load(const T* from) {
    if constexpr (std::is_same_v<T, bfloat16>) {
        HalfWords halves;
        std::memcpy(&halves, from, sizeof halves);
        return widened(halves);
    } else {
        Vector<T> result;
        std::memcpy(&result, from, sizeof result);
        return result;
    }
}

/// Writes all lanes to an address of any alignment.
template <class T>
[[gnu::always_inline]] inline void store(const Vector<T>& values, std::type_identity_t<T>* to) {
    if constexpr (std::is_same_v<T, bfloat16>) {
        const HalfWords halves = narrowed(values);
        std::memcpy(static_cast<void*>(to), &halves, sizeof halves);
    } else {
        std::memcpy(to, &values, sizeof values);
    }
}

/// Writes neighbouring vectors, two of bfloat16 with one store where they are a line of the cache.
template <class T, Index count>
[[gnu::always_inline]] inline void store_vectors(const Vector<T> (&values)[count], std::type_identity_t<T>* to) {
#if defined(SD_NARROWS_AT_ONCE)
    if constexpr (std::is_same_v<T, bfloat16> && count == 2) {
        const auto line = _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(values[1]), reinterpret_cast<__m512>(values[0]));
        std::memcpy(static_cast<void*>(to), &line, sizeof line);
        return;
    }
#endif
    for (Index v = 0; v < count; ++v) store<T>(values[v], to + v * lanes<T>);
}

/// The first `count` half words at an address, fewer than all; zeros in the other lanes, whose memory is not touched.
[[nodiscard, gnu::always_inline]] inline HalfWords load_halves(const void* from, Index count) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    return reinterpret_cast<HalfWords>(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1U << count) - 1), from));
#else
    HalfWords result = {};
    std::memcpy(&result, from, static_cast<std::size_t>(count) * sizeof(bfloat16));
    return result;
#endif
}

/// Writes the first `count` half words, fewer than all.
[[gnu::always_inline]] inline void store_halves(const HalfWords& values, void* to, Index count) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    _mm256_mask_storeu_epi16(to, static_cast<__mmask16>((1U << count) - 1), reinterpret_cast<__m256i>(values));
#else
    std::memcpy(to, &values, static_cast<std::size_t>(count) * sizeof(bfloat16));
#endif
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
    if constexpr (std::is_same_v<T, bfloat16>) {
        return widened(load_halves(from, count));
    } else {
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
    if constexpr (std::is_same_v<T, bfloat16>) {
        store_halves(narrowed(values), to, count);
    } else {
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
}

/// Writes all lanes past the caches, to an address that is a multiple of their bytes: for results that no cache will
/// keep until they are read, whose lines would be fetched only to be overwritten. Vectors that share a line must come
/// one after the other.
template <class T>
[[gnu::always_inline]] inline void stream(const Vector<T>& values, std::type_identity_t<T>* to) {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float>) {
        _mm512_stream_ps(to, reinterpret_cast<__m512>(values));
    } else if constexpr (std::is_same_v<T, double>) {
        _mm512_stream_pd(to, reinterpret_cast<__m512d>(values));
    } else {
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(narrowed(values)));
    }
#elif defined(__AVX__)
    if constexpr (std::is_same_v<T, float>) {
        _mm256_stream_ps(to, reinterpret_cast<__m256>(values));
    } else if constexpr (std::is_same_v<T, double>) {
        _mm256_stream_pd(to, reinterpret_cast<__m256d>(values));
    } else {
        _mm_stream_si128(reinterpret_cast<__m128i*>(to), reinterpret_cast<__m128i>(narrowed(values)));
    }
#else
    store<T>(values, to);
#endif
}

/// The same with neighbouring vectors, to an address that is a multiple of the bytes of all of them.
template <class T, Index count>
[[gnu::always_inline]] inline void stream_vectors(const Vector<T> (&values)[count], std::type_identity_t<T>* to) {
#if defined(SD_NARROWS_AT_ONCE)
    if constexpr (std::is_same_v<T, bfloat16> && count == 2) {
        const auto line = _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(values[1]), reinterpret_cast<__m512>(values[0]));
        _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(line));
        return;
    }
#endif
    for (Index v = 0; v < count; ++v) stream<T>(values[v], to + v * lanes<T>);
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
/// each use, which spares an instruction and costs a load. ARM's multiply-add takes registers alone.
template <class VectorType>
[[gnu::always_inline]] inline void hold([[maybe_unused]] VectorType& values) {
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

/// Calls use(constant<i>) for each i < count.
template <Index count, class Use>
[[gnu::always_inline]] inline void with_each(const Use& use) {
    [&]<Index... i>(std::integer_sequence<Index, i...>) { (use(constant<i>), ...); }
    (std::make_integer_sequence<Index, count>{});
}

/// Vectors that are written together: two of bfloat16, which are a line of the cache where a vector of floats is one.
template <class T>
inline constexpr Index line_vectors = std::is_same_v<T, bfloat16> ? 2 : 1;

/// Calls use(first, vectors, count) for every line_vectors vectors of `size` elements, and for each one that is left over;
/// `count` are the lanes in use of each.
template <class T, class Use>
[[gnu::always_inline]] inline void for_each_line(Index size, const Use& use) {
    constexpr Index together = line_vectors<T> * lanes<T>;
    Index first = 0;
    for (; first + together <= size; first += together) use(first, constant<line_vectors<T>>, constant<lanes<T>>);
    for_each_vector<T>(size - first, [&](Index rest, auto count) { use(first + rest, constant<1>, count); });
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
