// The register tile that every matrix product of the CPU kernels is made of.
//
//                        |-- vectors x lanes --|
//                        +---------------------+
//              depth k   |  b(k, v)            |   loaded once a step
//                        +---------------------+
//      rows    +------+  +---------------------+
//      r       | a(r, |  | sum(r, v) +=        |   each a is broadcast to all lanes
//              |   k) |  |   a(r, k) * b(k, v) |
//              +------+  +---------------------+
//
// The sums stay in registers while the depth runs.
#pragma once

#include "sd/cpu/simd.hpp"

#include <type_traits>

SD_NAMESPACE_BEGIN

namespace cpu {

/// A number that the compiler knows.
template <Index value>
inline constexpr std::integral_constant<Index, value> constant{};

/// sum(r, v) += sum over k < depth of a[r row_stride + k depth_stride] * b[k b_depth_stride + v b_vector_stride].
/// Strides are `constant`s where they are known, so that addresses become one pointer plus constants.
template <Index rows, Index vectors, class T, class RowStride, class DepthStride, class BDepthStride,
          class BVectorStride>
[[gnu::always_inline]] inline void multiply_add(Vector<T> (&sum)[rows][vectors], Index depth, const T* a,
                                                RowStride row_stride, DepthStride depth_stride, const T* b,
                                                BDepthStride b_depth_stride, BVectorStride b_vector_stride) {
    for (Index k = 0; k < depth; ++k) {
        Vector<T> column[vectors];
#pragma GCC unroll 4
        for (Index v = 0; v < vectors; ++v) column[v] = load(b + v * b_vector_stride);
#pragma GCC unroll 32
        for (Index r = 0; r < rows; ++r) {
            const T value = a[r * row_stride];
#pragma GCC unroll 4
            for (Index v = 0; v < vectors; ++v) sum[r][v] += value * column[v];
        }
        a += depth_stride;
        b += b_depth_stride;
    }
}

}  // namespace cpu

SD_NAMESPACE_END
