// Version, inline ABI namespace and the few macros that every header shares.
#pragma once

// What this needs, asked before anything else can fail. A missing include ends the compilation with this one line, where
// #error would let hundreds of other errors follow.
#if defined(_MSC_VER)
#error "sd needs g++ 12 or clang++ 13, which on Windows is MinGW-w64's"
#elif defined(__apple_build_version__) && __clang_major__ < 14
#include "sd needs Apple clang 14 (Xcode 14) or later"
#elif defined(__clang__) && __clang_major__ < 13
#include "sd needs clang++ 13 or later"
#elif defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#include "sd needs g++ 12 or later"
#elif __SIZEOF_POINTER__ < 8
#include "sd needs a 64-bit system"
#elif __cplusplus < 202002L
#include "sd needs C++20: compile with -std=c++20"
#endif
#include <version>
#if defined(_GLIBCXX_RELEASE) && _GLIBCXX_RELEASE < 11
#include "sd needs libstdc++ 11 or later, which g++ 11 and later bring"
#elif defined(_LIBCPP_VERSION) && _LIBCPP_VERSION < 14000
#include "sd needs libc++ 14 or later"
#endif

#define SD_VERSION_MAJOR 0
#define SD_VERSION_MINOR 1
#define SD_VERSION_PATCH 0

// Functions that run on the host and, when compiled by nvcc, on the device too.
#if defined(__CUDACC__)
#define SD_HOST_DEVICE __host__ __device__
#else
#define SD_HOST_DEVICE
#endif

// Element access is checked in debug builds; define SD_CHECK_BOUNDS to 0 or 1 to decide otherwise.
#if !defined(SD_CHECK_BOUNDS)
#if defined(NDEBUG)
#define SD_CHECK_BOUNDS 0
#else
#define SD_CHECK_BOUNDS 1
#endif
#endif

// Under the address sanitizer the pool of tensors says which of its memory is in use.
#if defined(__SANITIZE_ADDRESS__)
#define SD_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SD_ADDRESS_SANITIZER 1
#endif
#endif
#if !defined(SD_ADDRESS_SANITIZER)
#define SD_ADDRESS_SANITIZER 0
#endif

// Every setting that changes the code of an inline function is part of the namespace's name, so that units built with
// different settings can be linked: the linker never merges a function of one with a function of another. What a plain
// build has is not named: a release build with OpenMP, for any CPU of the architecture, of a version whose patch is 0.
// The namespace of version 0.1.0 is then sd::v0_1.
#define SD_ABI_TAG_(word) _##word
#define SD_ABI_TAG(word) SD_ABI_TAG_(word)

#if SD_VERSION_PATCH == 0
#define SD_ABI_PATCH
#else
#define SD_ABI_PATCH SD_ABI_TAG(SD_VERSION_PATCH)
#endif

// Every set of vector instructions that x86 compilers use for loops like ours.
#if defined(__AVX512VBMI__) && defined(__AVX512BF16__)
#define SD_ABI_SIMD _avx512vbmi_bf16
#elif defined(__AVX512VBMI__)
#define SD_ABI_SIMD _avx512vbmi
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && \
    defined(__AVX512BF16__)
#define SD_ABI_SIMD _avx512_bf16
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define SD_ABI_SIMD _avx512
#elif defined(__AVX512F__)
#define SD_ABI_SIMD _avx512f
#elif defined(__AVX2__)
#define SD_ABI_SIMD _avx2
#elif defined(__AVX__)
#define SD_ABI_SIMD _avx
#elif defined(__SSE4_1__)
#define SD_ABI_SIMD _sse4
#else
#define SD_ABI_SIMD
#endif

// A sum of products that is rounded once has other bits than one that is rounded twice. Every aarch64 rounds once.
#if defined(__FMA__) || (defined(__ARM_FEATURE_FMA) && !defined(__aarch64__))
#define SD_ABI_FMA _fma
#else
#define SD_ABI_FMA
#endif

#if defined(_OPENMP)
#define SD_ABI_THREADS
#else
#define SD_ABI_THREADS _serial
#endif

#if SD_CHECK_BOUNDS
#define SD_ABI_CHECKS _checked
#else
#define SD_ABI_CHECKS
#endif

// -ffp-contract is not here because it defines no macro.
#if defined(__FAST_MATH__)
#define SD_ABI_MATH _fast
#elif defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#define SD_ABI_MATH _finite
#elif defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__)
#define SD_ABI_MATH _reordered
#else
#define SD_ABI_MATH
#endif

// Other sanitizers are not here: a function that they watch computes the same.
#if SD_ADDRESS_SANITIZER
#define SD_ABI_MEMORY _asan
#else
#define SD_ABI_MEMORY
#endif

#define SD_ABI_JOIN_(major, minor, patch, simd, fma, threads, checks, math, memory) \
    v##major##_##minor##patch##simd##fma##threads##checks##math##memory
#define SD_ABI_JOIN(major, minor, patch, simd, fma, threads, checks, math, memory) \
    SD_ABI_JOIN_(major, minor, patch, simd, fma, threads, checks, math, memory)
#define SD_ABI_NAMESPACE                                                                                   \
    SD_ABI_JOIN(SD_VERSION_MAJOR, SD_VERSION_MINOR, SD_ABI_PATCH, SD_ABI_SIMD, SD_ABI_FMA, SD_ABI_THREADS, \
                SD_ABI_CHECKS, SD_ABI_MATH, SD_ABI_MEMORY)

#define SD_NAMESPACE_BEGIN \
    namespace sd {         \
    inline namespace SD_ABI_NAMESPACE {
#define SD_NAMESPACE_END \
    }                    \
    }
