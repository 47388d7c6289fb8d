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

#include <algorithm>
#include <array>
#include <utility>

SD_NAMESPACE_BEGIN

namespace cpu {

/// sum(r, v) += sum over k < depth of a[r row_stride + k depth_stride] * b[k b_depth_stride + v b_vector_stride].
/// Strides are `constant`s where they are known, so that addresses become one pointer plus constants.
template <Index rows, Index vectors, class T, class RowStride, class DepthStride, class BDepthStride,
          class BVectorStride>
[[gnu::always_inline]] inline void multiply_add(Vector<T> (&sum)[rows][vectors], Index depth, const T* a,
                                                RowStride row_stride, DepthStride depth_stride, const T* b,
                                                BDepthStride b_depth_stride, BVectorStride b_vector_stride) {
    constexpr bool columns_first = rows >= vectors;  // what is used more often is held
    for (Index k = 0; k < depth; ++k) {
        if constexpr (columns_first) {
            Vector<T> column[vectors];
#pragma GCC unroll 4
            for (Index v = 0; v < vectors; ++v) {
                column[v] = load(b + v * b_vector_stride);
                hold(column[v]);
            }
#pragma GCC unroll 32
            for (Index r = 0; r < rows; ++r) {
                const T value = a[r * row_stride];
#pragma GCC unroll 4
                for (Index v = 0; v < vectors; ++v) sum[r][v] += value * column[v];
            }
        } else {
            Vector<T> value[rows];
#pragma GCC unroll 4
            for (Index r = 0; r < rows; ++r) {
                value[r] = a[r * row_stride] - Vector<T>{};
                hold(value[r]);
            }
#pragma GCC unroll 4
            for (Index v = 0; v < vectors; ++v) {
                Vector<T> column = load(b + v * b_vector_stride);
                hold(column);
#pragma GCC unroll 4
                for (Index r = 0; r < rows; ++r) sum[r][v] += value[r] * column;
            }
        }
        a += depth_stride;
        b += b_depth_stride;
    }
}

/// The extents of a tile: points of the image to write by vectors of its channels.
struct TileShape {
    Index points, vectors;
};

/// The tiles of convolutions. All sums, a row of weights and one broadcast fit the registers.
///
/// Those of ARM (32 registers of 128 bits) follow from counts and from what compilers make of them; no processor has
/// measured them. Cores have two to four units whose sums are ready after four cycles, so 16 sums keep all of them at
/// work. A step of p points by v vectors loads p + v times for p v multiply-adds, and needs p v + v + 1 registers, beside
/// which GCC wants about six for broadcasts that it loads early: of larger tiles, as 14 x 2, it keeps sums in memory.
///
///     points x vectors     10 x 2   5 x 4   7 x 3   8 x 2   4 x 4   14 x 1
///     sums                     20      20      21      16      16       14
///     registers                23      25      25      19      21       16
///     loads a sum            0.60    0.45    0.48    0.63    0.50     1.07
///
/// 4, 7 and 8 divide most widths of images, two and four vectors most counts of channels.
inline constexpr std::array<TileShape, 6> tile_shapes =
    vector_bytes == 64       ? std::array<TileShape, 6>{{{14, 2}, {7, 4}, {8, 2}, {16, 1}, {28, 1}, {4, 4}}}
    : vector_registers == 32 ? std::array<TileShape, 6>{{{10, 2}, {5, 4}, {7, 3}, {8, 2}, {4, 4}, {14, 1}}}
                             : std::array<TileShape, 6>{{{6, 2}, {3, 4}, {5, 2}, {4, 3}, {4, 2}, {8, 1}}};

/// What a step of the depth takes, in the time of one multiply-add. A core with AVX-512 has one 512-bit unit, and loads of
/// broadcasts (nearest cache) and of weights (second-level cache) add a part; with AVX or SSE it has two units, which
/// loads, as many at a time, can keep waiting; on ARM it has up to four units for three loads.
[[nodiscard]] constexpr double step_cost(const TileShape& tile) {
    const auto points = static_cast<double>(tile.points);
    const auto vectors = static_cast<double>(tile.vectors);
    if (vector_bytes == 64) return points * vectors + 0.1 * points + 0.5 * vectors + 1.5;
    const double loads = vector_registers == 32 ? 4.0 / 3 : 1.1;  // the time of one
    return std::max(points * vectors, loads * (points + vectors)) + 0.1 * vectors + 0.3;
}

/// The tile that computes rows of `width` points and `columns` columns in the least time, by estimate.
template <class T>
[[nodiscard]] std::size_t choose_tile(Index width, Index columns) {
    std::size_t best = 0;
    double least = 0;
    for (std::size_t i = 0; i < tile_shapes.size(); ++i) {
        const auto [points, vectors] = tile_shapes[i];
        const double cost = step_cost(tile_shapes[i]) *
                            static_cast<double>(quotient_up(width, points) * quotient_up(columns, vectors * lanes<T>));
        if (i == 0 || cost < least) {
            best = i;
            least = cost;
        }
    }
    return best;
}

/// What one tile of a convolution reads: points of a slab (slab.hpp) and a panel of weights (weights.hpp).
template <class T>
struct TileOperands {
    const T* point;            ///< the first point in the first block of channels
    Index point_step;          ///< slab pixels between neighbouring points
    Index plane;               ///< elements between the blocks of channels
    Index channels;            ///< depth at each tap
    const Index* tap_offsets;  ///< elements from a point to what each tap reads
    Index taps;
    const T* weights;  ///< (block, tap, channel of the block, column)
};

/// Asks the nearest cache for neighbouring points of a block, which no stream of reads foretells.
template <Index points, class T>
[[gnu::always_inline]] inline void prefetch_points(const T* point) {
    constexpr Index points_of_line = std::max<Index>(1, 64 / vector_bytes);
#pragma GCC unroll 32
    for (Index r = 0; r < points; r += points_of_line) __builtin_prefetch(point + r * lanes<T>, 0, 3);
}

/// sums (points x width of the tile, contiguous) = [accumulate ? sums : 0] + points x weights, over blocks of channels,
/// taps and channels of the block. `step` is point_step if the compiler is to know it, else 0.
template <class T, std::size_t shape, Index step>
void multiply_tile(const TileOperands<T>& operands, T* sums, bool accumulate) {
    constexpr Index points = tile_shapes[shape].points;
    constexpr Index vectors = tile_shapes[shape].vectors;
    constexpr Index width = vectors * lanes<T>;
    const auto point_stride = [&] {
        if constexpr (step != 0) {
            return constant<step * lanes<T>>;
        } else {
            return operands.point_step * lanes<T>;
        }
    }();
    Vector<T> sum[points][vectors];
    if (accumulate) {
#pragma GCC unroll 32
        for (Index r = 0; r < points; ++r) {
#pragma GCC unroll 4
            for (Index v = 0; v < vectors; ++v) sum[r][v] = load(sums + r * width + v * lanes<T>);
        }
    } else {
#pragma GCC unroll 32
        for (Index r = 0; r < points; ++r) {
#pragma GCC unroll 4
            for (Index v = 0; v < vectors; ++v) sum[r][v] = Vector<T>{};
        }
    }
    const T* weights = operands.weights;
    const T* point = operands.point;
    for (Index first = 0; first < operands.channels; first += lanes<T>, point += operands.plane) {
        const Index depth = std::min(lanes<T>, operands.channels - first);
        if constexpr (vectors > 1) prefetch_points<points>(point + operands.plane);  // else loads are what binds
        for (Index tap = 0; tap < operands.taps; ++tap, weights += depth * width) {
            multiply_add<points, vectors>(sum, depth, point + operands.tap_offsets[tap], point_stride, constant<1>,
                                          weights, constant<width>, constant<lanes<T>>);
        }
    }
#pragma GCC unroll 32
    for (Index r = 0; r < points; ++r) {
#pragma GCC unroll 4
        for (Index v = 0; v < vectors; ++v) store<T>(sum[r][v], sums + r * width + v * lanes<T>);
    }
}

template <class T>
using MultiplyTile = void (*)(const TileOperands<T>&, T*, bool);

/// multiply_tile for a tile and a step.
template <class T>
[[nodiscard]] MultiplyTile<T> find_multiply_tile(std::size_t shape, Index step) {
    static constexpr auto table = []<std::size_t... s>(std::index_sequence<s...>) {
        return std::array<std::array<MultiplyTile<T>, 3>, sizeof...(s)>{
            {{&multiply_tile<T, s, 0>, &multiply_tile<T, s, 1>, &multiply_tile<T, s, 2>}...}};
    }
    (std::make_index_sequence<tile_shapes.size()>{});
    return table[shape][static_cast<std::size_t>(step <= 2 ? step : 0)];
}

}  // namespace cpu

SD_NAMESPACE_END
