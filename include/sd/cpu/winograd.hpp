// Winograd's minimal filtering F(m x m, 3x3) for m = 2 and 4: (m + 2)^2 products in place of 9 m^2 for m x m outputs of a
// 3x3 convolution, 2.25 and 4 times fewer.
// S. Winograd, "Arithmetic complexity of computations", 1980; A. Lavin, S. Gray, "Fast algorithms for convolutional
// neural networks", CVPR 2016.
//
//     Y = A' [ (G g G') * (B' d B) ] A        d (m + 2)^2 pixels that are read, g 3x3 weights, Y m x m pixels, * by element
//
//     m = 2   B' = | 1  0 -1  0 |     G = |  1    0    0  |     A' = | 1  1  1  0 |
//                  | 0  1  1  0 |         | 1/2  1/2  1/2 |          | 0  1 -1 -1 |
//                  | 0 -1  1  0 |         | 1/2 -1/2  1/2 |
//                  | 0  1  0 -1 |         |  0    0    1  |
//
//     m = 4   B' = | 4  0 -5  0  1  0 |   G = |  1/4    0    0  |   A' = | 1  1  1  1  1  0 |
//                  | 0 -4 -4  1  1  0 |       | -1/6 -1/6 -1/6  |        | 0  1 -1  2 -2  0 |
//                  | 0  4 -4 -1  1  0 |       | -1/6  1/6 -1/6  |        | 0  1  1  4  4  0 |
//                  | 0 -2 -1  2  1  0 |       | 1/24 1/12  1/6  |        | 0  1 -1  8 -8  1 |
//                  | 0  2 -1 -2  1  0 |       | 1/24 -1/12 1/6  |
//                  | 0  4  0 -5  0  1 |       |   0    0    1   |
//
// Differences are taken before products, so where a direct sum gives infinity from an infinite pixel, this may give
// NaN. Summed over channels, each of the (m + 2)^2 positions is a matrix product of its own. With m = 2 rounding errors are
// those of a direct sum within a small factor; with m = 4 they are about ten times as large, far below what storing
// bfloat16 rounds, so that is what bfloat16 goes by. By weight, the adjoint of the same:
//
//     dg = G' [ (A dY A') * (B' d B) ] G
#pragma once

#include "sd/core/bfloat16.hpp"
#include "sd/cpu/slab.hpp"

#include <type_traits>

SD_NAMESPACE_BEGIN

namespace cpu {

/// m of F(m x m, 3x3) for images that are stored as T.
template <class T>
inline constexpr Index winograd_outputs = std::is_same_v<T, bfloat16> ? 4 : 2;

/// The two-dimensional transform of `from` x `from` vectors to `to` x `to` by a one-dimensional one: first of all
/// columns, then of all rows.
template <Index from, Index to, class V, class Transform>
[[gnu::always_inline]] inline void transform_both_ways(const V (&values)[from][from], V (&results)[to][to],
                                                       const Transform& transform) {
    V halfway[to][from];
#pragma GCC unroll 6
    for (Index j = 0; j < from; ++j) {
        V column[from];
        V out[to];
#pragma GCC unroll 6
        for (Index i = 0; i < from; ++i) column[i] = values[i][j];
        transform(column, out);
#pragma GCC unroll 6
        for (Index i = 0; i < to; ++i) halfway[i][j] = out[i];
    }
#pragma GCC unroll 6
    for (Index i = 0; i < to; ++i) transform(halfway[i], results[i]);
}

/// B': what is read.
struct WinogradInput {
    template <class V>
    [[gnu::always_inline]] void operator()(const V (&d)[4], V (&v)[4]) const {
        v[0] = d[0] - d[2];
        v[1] = d[1] + d[2];
        v[2] = d[2] - d[1];
        v[3] = d[1] - d[3];
    }
    template <class V>
    [[gnu::always_inline]] void operator()(const V (&d)[6], V (&v)[6]) const {
        const V even_by_1 = d[4] - 4 * d[2];
        const V odd_by_1 = d[3] - 4 * d[1];
        const V even_by_2 = d[4] - d[2];
        const V odd_by_2 = 2 * (d[3] - d[1]);
        v[0] = 4 * d[0] - 5 * d[2] + d[4];
        v[1] = even_by_1 + odd_by_1;
        v[2] = even_by_1 - odd_by_1;
        v[3] = even_by_2 + odd_by_2;
        v[4] = even_by_2 - odd_by_2;
        v[5] = 4 * d[1] - 5 * d[3] + d[5];
    }
};

/// G: weights.
struct WinogradWeight {
    template <class V>
    [[gnu::always_inline]] void operator()(const V (&g)[3], V (&u)[4]) const {
        const V sum = (g[0] + g[2]) / 2;
        const V half = g[1] / 2;
        u[0] = g[0];
        u[1] = sum + half;
        u[2] = sum - half;
        u[3] = g[2];
    }
    template <class V>
    [[gnu::always_inline]] void operator()(const V (&g)[3], V (&u)[6]) const {
        using T = std::remove_cvref_t<decltype(g[0][0])>;
        const V even_by_1 = (g[0] + g[2]) * (T(1) / 6);
        const V odd_by_1 = g[1] * (T(1) / 6);
        const V even_by_2 = g[0] * (T(1) / 24) + g[2] * (T(1) / 6);
        const V odd_by_2 = g[1] * (T(1) / 12);
        u[0] = g[0] / 4;
        u[1] = -even_by_1 - odd_by_1;
        u[2] = odd_by_1 - even_by_1;
        u[3] = even_by_2 + odd_by_2;
        u[4] = even_by_2 - odd_by_2;
        u[5] = g[2];
    }
};

/// A': what is written.
struct WinogradOutput {
    template <class V>
    [[gnu::always_inline]] void operator()(const V (&m)[4], V (&y)[2]) const {
        y[0] = m[0] + m[1] + m[2];
        y[1] = m[1] - m[2] - m[3];
    }
    template <class V>
    [[gnu::always_inline]] void operator()(const V (&m)[6], V (&y)[4]) const {
        const V even_by_1 = m[1] + m[2];
        const V odd_by_1 = m[1] - m[2];
        const V even_by_2 = m[3] + m[4];
        const V odd_by_2 = m[3] - m[4];
        y[0] = m[0] + even_by_1 + even_by_2;
        y[1] = odd_by_1 + 2 * odd_by_2;
        y[2] = even_by_1 + 4 * even_by_2;
        y[3] = odd_by_1 + 8 * odd_by_2 + m[5];
    }
};

/// A: the gradient by what was written.
struct WinogradOutputAdjoint {
    template <class V>
    [[gnu::always_inline]] void operator()(const V (&dy)[2], V (&dm)[4]) const {
        dm[0] = dy[0];
        dm[1] = dy[0] + dy[1];
        dm[2] = dy[0] - dy[1];
        dm[3] = -dy[1];
    }
    template <class V>
    [[gnu::always_inline]] void operator()(const V (&dy)[4], V (&dm)[6]) const {
        const V even_by_1 = dy[0] + dy[2];
        const V odd_by_1 = dy[1] + dy[3];
        const V even_by_2 = dy[0] + 4 * dy[2];
        const V odd_by_2 = 2 * dy[1] + 8 * dy[3];
        dm[0] = dy[0];
        dm[1] = even_by_1 + odd_by_1;
        dm[2] = even_by_1 - odd_by_1;
        dm[3] = even_by_2 + odd_by_2;
        dm[4] = even_by_2 - odd_by_2;
        dm[5] = dy[3];
    }
};

/// G': the gradient by weights.
struct WinogradWeightAdjoint {
    template <class V>
    [[gnu::always_inline]] void operator()(const V (&du)[4], V (&dg)[3]) const {
        const V sum = (du[1] + du[2]) / 2;
        dg[0] = du[0] + sum;
        dg[1] = (du[1] - du[2]) / 2;
        dg[2] = sum + du[3];
    }
    template <class V>
    [[gnu::always_inline]] void operator()(const V (&du)[6], V (&dg)[3]) const {
        using T = std::remove_cvref_t<decltype(du[0][0])>;
        const V by_1 = (du[1] + du[2]) * (T(1) / 6);
        const V by_2 = du[3] + du[4];
        dg[0] = du[0] / 4 - by_1 + by_2 * (T(1) / 24);
        dg[1] = (du[2] - du[1]) * (T(1) / 6) + (du[3] - du[4]) * (T(1) / 12);
        dg[2] = by_2 * (T(1) / 6) - by_1 + du[5];
    }
};

/// Matrices of transformed tiles of m x m outputs, one for each position, in blocks of channels as slabs are:
/// (position, block, tile, lane).
template <class T, Index m>
struct WinogradTiles {
    static constexpr Index extent = m + 2;  ///< of the pixels that a tile reads
    static constexpr Index positions = extent * extent;

    T* data;
    Index plane;     ///< elements between blocks
    Index position;  ///< elements between positions

    /// Room for `tiles` tiles of `channels` channels.
    static WinogradTiles of(T* data, Index tiles, Index channels) {
        const Index plane = spread_stride<T>(tiles * lanes<T>);
        return {data, plane, spread_stride<T>(plane * quotient_up(channels, lanes<T>))};
    }
    [[nodiscard]] Index size() const { return positions * position; }
};

/// Transforms the tiles of a slab, `from` x `from` pixels at distance m, into tiles from `first` on.
template <Index from, class T, Index m, class Transform>
void transform_tiles(const T* slab, const SlabShape& shape, Index tile_rows, Index tile_columns,
                     const WinogradTiles<T, m>& target, Index first, const Transform& transform) {
    constexpr Index to_extent = WinogradTiles<T, m>::extent;
    const Index plane = shape.plane<T>();
    for (Index b = 0; b < shape.blocks<T>(); ++b) {
        T* to = target.data + b * target.plane + first * lanes<T>;
        for (Index i = 0; i < tile_rows; ++i) {
            const T* row = slab + b * plane + i * m * shape.columns * lanes<T>;
            for (Index j = 0; j < tile_columns; ++j, to += lanes<T>) {
                Vector<T> values[from][from];
                Vector<T> results[to_extent][to_extent];
#pragma GCC unroll 6
                for (Index r = 0; r < from; ++r) {
#pragma GCC unroll 6
                    for (Index c = 0; c < from; ++c) {
                        values[r][c] = load(row + (r * shape.columns + j * m + c) * lanes<T>);
                    }
                }
                transform_both_ways(values, results, transform);
#pragma GCC unroll 6
                for (Index r = 0; r < to_extent; ++r) {
#pragma GCC unroll 6
                    for (Index c = 0; c < to_extent; ++c) {
                        store<T>(results[r][c], to + (r * to_extent + c) * target.position);
                    }
                }
            }
        }
    }
}

}  // namespace cpu

SD_NAMESPACE_END
