// Winograd's minimal filtering F(2x2, 3x3): 16 products in place of 36 for 2x2 outputs of a 3x3 convolution.
// S. Winograd, "Arithmetic complexity of computations", 1980; A. Lavin, S. Gray, "Fast algorithms for convolutional
// neural networks", CVPR 2016.
//
//     Y = A' [ (G g G') * (B' d B) ] A        d 4x4 pixels that are read, g 3x3 weights, Y 2x2 pixels, * by element
//
//     B' = | 1  0 -1  0 |     G = |  1    0    0  |     A' = | 1  1  1  0 |
//          | 0  1  1  0 |         | 1/2  1/2  1/2 |          | 0  1 -1 -1 |
//          | 0 -1  1  0 |         | 1/2 -1/2  1/2 |
//          | 0  1  0 -1 |         |  0    0    1  |
//
// Differences are taken before products, so where a direct sum gives infinity from an infinite pixel, this may give
// NaN. Summed over channels, each of the 16 positions is a matrix product of its own. The coefficients are 0, 1 and
// 1/2, so rounding errors are those of a direct sum within a small factor. By weight, the adjoint of the same:
//
//     dg = G' [ (A dY A') * (B' d B) ] G
#pragma once

#include "sd/cpu/slab.hpp"

SD_NAMESPACE_BEGIN

namespace cpu {

inline constexpr Index winograd_positions = 16;

/// The two-dimensional transform of `from` x `from` vectors to `to` x `to` by a one-dimensional one: first of all
/// columns, then of all rows.
template <Index from, Index to, class V, class Transform>
[[gnu::always_inline]] inline void transform_both_ways(const V (&values)[from][from], V (&results)[to][to],
                                                       const Transform& transform) {
    V halfway[to][from];
#pragma GCC unroll 4
    for (Index j = 0; j < from; ++j) {
        V column[from];
        V out[to];
#pragma GCC unroll 4
        for (Index i = 0; i < from; ++i) column[i] = values[i][j];
        transform(column, out);
#pragma GCC unroll 4
        for (Index i = 0; i < to; ++i) halfway[i][j] = out[i];
    }
#pragma GCC unroll 4
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
};

/// A': what is written.
struct WinogradOutput {
    template <class V>
    [[gnu::always_inline]] void operator()(const V (&m)[4], V (&y)[2]) const {
        y[0] = m[0] + m[1] + m[2];
        y[1] = m[1] - m[2] - m[3];
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
};

/// Sixteen matrices of transformed tiles, in blocks of channels as slabs are: (position, block, tile, lane).
template <class T>
struct WinogradTiles {
    T* data;
    Index plane;     ///< elements between blocks
    Index position;  ///< elements between positions

    /// Room for `tiles` tiles of `channels` channels.
    static WinogradTiles of(T* data, Index tiles, Index channels) {
        const Index plane = spread_stride<T>(tiles * lanes<T>);
        return {data, plane, spread_stride<T>(plane * quotient_up(channels, lanes<T>))};
    }
    [[nodiscard]] Index size() const { return winograd_positions * position; }
};

/// Transforms the tiles of a slab, `from` x `from` pixels at distance `step`, into tiles from `first` on.
template <Index from, Index step, class T, class Transform>
void transform_tiles(const T* slab, const SlabShape& shape, Index tile_rows, Index tile_columns,
                     const WinogradTiles<T>& target, Index first, const Transform& transform) {
    const Index plane = shape.plane<T>();
    for (Index b = 0; b < shape.blocks<T>(); ++b) {
        T* to = target.data + b * target.plane + first * lanes<T>;
        for (Index i = 0; i < tile_rows; ++i) {
            const T* row = slab + b * plane + i * step * shape.columns * lanes<T>;
            for (Index j = 0; j < tile_columns; ++j, to += lanes<T>) {
                Vector<T> values[from][from];
                Vector<T> results[4][4];
#pragma GCC unroll 4
                for (Index r = 0; r < from; ++r) {
#pragma GCC unroll 4
                    for (Index c = 0; c < from; ++c) {
                        values[r][c] = load(row + (r * shape.columns + j * step + c) * lanes<T>);
                    }
                }
                transform_both_ways(values, results, transform);
#pragma GCC unroll 4
                for (Index r = 0; r < 4; ++r) {
#pragma GCC unroll 4
                    for (Index c = 0; c < 4; ++c) store<T>(results[r][c], to + (r * 4 + c) * target.position);
                }
            }
        }
    }
}

}  // namespace cpu

SD_NAMESPACE_END
