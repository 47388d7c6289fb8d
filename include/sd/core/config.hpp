// Version, inline ABI namespace and the few macros that every header shares.
#pragma once

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

// Every setting that changes the code of an inline function is part of the namespace's name, so that units built with
// different settings can be linked: the linker never merges a function of one with a function of another.
#if defined(__AVX512F__)
#define SD_ABI_SIMD avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define SD_ABI_SIMD avx2
#elif defined(__AVX__)
#define SD_ABI_SIMD avx
#else
#define SD_ABI_SIMD base
#endif

#if defined(_OPENMP)
#define SD_ABI_THREADS openmp
#else
#define SD_ABI_THREADS serial
#endif

#if SD_CHECK_BOUNDS
#define SD_ABI_CHECKS checked
#else
#define SD_ABI_CHECKS unchecked
#endif

#if defined(__FAST_MATH__)
#define SD_ABI_MATH fast
#else
#define SD_ABI_MATH exact
#endif

#define SD_ABI_JOIN_(major, minor, simd, threads, checks, math) \
    v##major##_##minor##_##simd##_##threads##_##checks##_##math
#define SD_ABI_JOIN(major, minor, simd, threads, checks, math) SD_ABI_JOIN_(major, minor, simd, threads, checks, math)
#define SD_ABI_NAMESPACE \
    SD_ABI_JOIN(SD_VERSION_MAJOR, SD_VERSION_MINOR, SD_ABI_SIMD, SD_ABI_THREADS, SD_ABI_CHECKS, SD_ABI_MATH)

#define SD_NAMESPACE_BEGIN \
    namespace sd {         \
    inline namespace SD_ABI_NAMESPACE {
#define SD_NAMESPACE_END \
    }                    \
    }
