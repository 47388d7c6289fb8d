// The register tile that every matrix product of the CPU kernels is made of.
//
// A tile is `tile_rows` x `tile_columns` sums held in registers while the depth runs:
//
//                      B: depth x tile_columns, packed: a row is contiguous
//                      |----- tile_columns -----|
//                      +------------------------+
//              depth   |  vector  |   vector    |   loaded once a step
//                      +------------------------+
//      A       +---+   +------------------------+
//      rows    | a |   |  C += a * vector       |   each a is broadcast
//              +---+   +------------------------+
//
// A is read in place through two strides that the compiler knows, so all its addresses are one pointer plus constants.
#pragma once

#include "sd/cpu/simd.hpp"

SD_NAMESPACE_BEGIN

namespace cpu {

template <class T>
struct Tile {
    using Vector = typename Simd<T>::Vector;
    static constexpr Index lanes = Simd<T>::lanes;
    static constexpr Index vectors = 2;
    static constexpr Index columns = vectors * lanes;
    // All registers but those for a row of B and one broadcast; two more stay free where there are few.
    static constexpr Index rows = vector_registers == 32 ? 14 : 6;
    /// How much of the depth is taken at once: a block of A and a panel of B then stay in the nearest caches.
    static constexpr Index depth = 256;
};

/// c (rows x columns, row stride c_stride) = [accumulate ? c : 0] + a * b.
///
///     a(r, k) = a[r * row_stride + k * depth_stride],  r < Tile::rows, all of them readable
///     b(k, j) = b[k * Tile::columns + j]
///
/// Only the first `rows` rows and `columns` columns of c are written; 1 <= rows <= Tile::rows, likewise columns.
template <Index row_stride, Index depth_stride, class T>
void multiply_tile(Index depth, const T* a, const T* b, T* c, Index c_stride, Index rows, Index columns,
                   bool accumulate) {
    using Vector = typename Tile<T>::Vector;
    constexpr Index tile_rows = Tile<T>::rows;
    constexpr Index tile_columns = Tile<T>::columns;
    constexpr Index lanes = Tile<T>::lanes;

    Vector sum[tile_rows][2] = {};
    for (Index k = 0; k < depth; ++k) {
        Vector b0;
        Vector b1;
        std::memcpy(&b0, b + k * tile_columns, sizeof b0);
        std::memcpy(&b1, b + k * tile_columns + lanes, sizeof b1);
#pragma GCC unroll 16
        for (Index r = 0; r < tile_rows; ++r) {
            const T value = a[r * row_stride + k * depth_stride];
            sum[r][0] += value * b0;
            sum[r][1] += value * b1;
        }
    }

    // The unrolled copy lets the compiler keep all sums in registers: no index into them is computed at run time.
    alignas(64) T tile[tile_rows * tile_columns];
#pragma GCC unroll 16
    for (Index r = 0; r < tile_rows; ++r) std::memcpy(tile + r * tile_columns, sum[r], sizeof sum[r]);
    for (Index r = 0; r < rows; ++r) {
        T* target = c + r * c_stride;
        const T* source = tile + r * tile_columns;
        if (accumulate) {
            for (Index j = 0; j < columns; ++j) target[j] += source[j];
        } else {
            for (Index j = 0; j < columns; ++j) target[j] = source[j];
        }
    }
}

/// Rounds up to a multiple.
constexpr Index round_up(Index value, Index multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace cpu

SD_NAMESPACE_END
