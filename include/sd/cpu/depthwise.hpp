// Depthwise convolution, forward and by input: each channel has a kernel of its own, so there is no product of
// matrices, and what binds is reading x and writing y.
//
//     for each piece (a sample, some rows of points), for each chunk of channels:      in parallel over pieces
//         for each row of points:
//             rows of the image that are new to the ring                               second-level cache, once
//             for each lattice, line of channels, tile of neighbouring points:
//                 sums over runs of taps                                               registers
//                 the epilogue takes the sums                                          (epilogue.hpp)
//
// By input with stride s all s^2 lattices are written at each row, so dy too is read once.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/depthwise_rows.hpp"
#include "sd/cpu/epilogue.hpp"

#include <algorithm>
#include <span>

SD_NAMESPACE_BEGIN

namespace cpu {

/// What a tile of points in one block of channels reads.
template <class T>
struct DepthwiseOperands {
    const T* point;        ///< the first point
    Index point_step;      ///< pixels between neighbouring points
    const Index* offsets;  ///< elements from a point to what the first tap of each run reads
    Index runs;
    const T* weights;  ///< (run, tap, lane)
};

/// sums[p width + lane] = the sum over runs and their taps of weight x, for depthwise_points points. `step` is
/// point_step, or 0 with runs of one tap if the compiler is not to know it.
template <class T, Index taps, Index step>
void depthwise_tile(const DepthwiseOperands<T>& operands, T* sums, Index width) {
    constexpr Index points = depthwise_points;
    Vector<T> sum[points];
#pragma GCC unroll 16
    for (Index p = 0; p < points; ++p) sum[p] = Vector<T>{};
    const T* weights = operands.weights;
    for (Index r = 0; r < operands.runs; ++r, weights += taps * lanes<T>) {
        const T* x = operands.point + operands.offsets[r];
        Vector<T> weight[taps];
#pragma GCC unroll 16
        for (Index t = 0; t < taps; ++t) {
            weight[t] = load(weights + t * lanes<T>);
            hold(weight[t]);
        }
        if constexpr (step == 0) {
            static_assert(taps == 1);
#pragma GCC unroll 16
            for (Index p = 0; p < points; ++p) sum[p] += weight[0] * load(x + p * operands.point_step * lanes<T>);
        } else {
#pragma GCC unroll 32
            for (Index q = 0; q < (points - 1) * step + taps; ++q) {
                Vector<T> value = load(x + q * lanes<T>);
                hold(value);
#pragma GCC unroll 16
                for (Index t = q % step; t < taps; t += step) {
                    if (t <= q && (q - t) / step < points) sum[(q - t) / step] += weight[t] * value;
                }
            }
        }
    }
#pragma GCC unroll 16
    for (Index p = 0; p < points; ++p) store<T>(sum[p], sums + p * width);
}

template <class T>
using DepthwiseTile = void (*)(const DepthwiseOperands<T>&, T*, Index);

/// depthwise_tile for the length of runs and the step.
template <class T>
[[nodiscard]] DepthwiseTile<T> find_depthwise_tile(Index taps, Index step) {
    static constexpr DepthwiseTile<T> by_one[] = {
        nullptr,
        &depthwise_tile<T, 1, 1>,
        &depthwise_tile<T, 2, 1>,
        &depthwise_tile<T, 3, 1>,
        &depthwise_tile<T, 4, 1>,
        &depthwise_tile<T, 5, 1>,
        nullptr,
        &depthwise_tile<T, 7, 1>,
    };
    if (step == 1) return by_one[taps];
    return taps == 3   ? &depthwise_tile<T, 3, 2>
           : taps == 5 ? &depthwise_tile<T, 5, 2>
           : taps == 7 ? &depthwise_tile<T, 7, 2>
                       : &depthwise_tile<T, 1, 0>;
}

/// Writes the points of lattices that read one image and together make another.
template <class T>
class DepthwiseProduct {
    using A = accumulate_t<T>;

public:
    /// `target`: the shape of the image that is written; `factors`: one for each channel, or nullptr.
    DepthwiseProduct(const SlabSource<T>& source, std::span<const Lattice> lattices, const Tensor<A>& weight,
                     const A* factors, const Shape& target)
        : source_(source),
          shape_(lattices, depthwise_points),
          target_(target),
          blocks_(quotient_up(target[3], lanes<T>)),
          blocks_each_(shape_.resident_blocks(blocks_)),
          height_(lattices.front().height),
          cut_(target[0], height_) {
        for (const Lattice& lattice : lattices) {
            const TapRuns runs(lattice);
            parts_.push_back({lattice, runs, depthwise_weights(weight, runs, factors),
                              find_depthwise_tile<A>(runs.length, lattice.column_step)});
            most_runs_ = std::max(most_runs_, runs.count());
            tiles_of_row_ += quotient_up(lattice.width, depthwise_points) * quotient_up(blocks_, depthwise_vectors);
        }
    }

    /// Writes all points; the epilogue is one of all channels. Its type is known here: a tile has so few operations that a
    /// call which is not inlined would cost a good part of them.
    template <class SomeEpilogue>
    void run(SomeEpilogue& epilogue) const {
        epilogue.reserve(cut_.pieces);
        Tensor<A> rings = Tensor<A>::empty({num_threads(), shape_.size(blocks_each_)});
        Tensor<Index> offsets = Tensor<Index>::empty({num_threads(), std::max<Index>(1, most_runs_)});
        parallel_for(cut_.pieces, [&](Index number) {
            const Index thread = thread_index();
            run_piece(number, rings.data() + thread * rings.extent(1), offsets.data() + thread * offsets.extent(1),
                      epilogue);
            stream_fence();
        });
    }

private:
    /// A lattice and what its points are computed by.
    struct Part {
        Lattice lattice;
        TapRuns runs;
        Tensor<A> weights;  ///< (block, tap, lane)
        DepthwiseTile<A> tile;
    };

    template <class SomeEpilogue>
    void run_piece(Index number, A* memory, Index* offsets, SomeEpilogue& epilogue) const {
        const RowCut::Piece piece = cut_.piece(number, height_);
        for (Index first = 0; first < blocks_; first += blocks_each_) {
            const Index last = std::min(blocks_, first + blocks_each_);
            const Index channels = std::min(target_[3], last * lanes<T>) - first * lanes<T>;
            RowRing<T> ring(source_, shape_, piece.sample, first * lanes<T>, channels, memory);
            for (Index row = piece.first_row; row < piece.last_row; ++row) {
                ring.move_to(row);
                auto ahead = ring.ask_for_next(row + 1 < piece.last_row ? tiles_of_row_ : 0);
                for (const Part& part : parts_) {
                    if (row >= part.lattice.height) continue;
                    run_row(part, number, piece.sample, row, first, last, ring, offsets, ahead, epilogue);
                }
            }
        }
    }

    /// Writes a row of a lattice in blocks [first, last) of channels.
    template <class SomeEpilogue>
    void run_row(const Part& part, Index task, Index sample, Index row, Index first, Index last, const RowRing<T>& ring,
                 Index* offsets, SlabPrefetch<T>& ahead, SomeEpilogue& epilogue) const {
        constexpr Index width = depthwise_vectors * lanes<T>;
        alignas(64) A sums[depthwise_points * width];
        const Lattice& lattice = part.lattice;
        const auto runs = ring.locate(part.runs, offsets);
        const A* weights = part.weights.data() + runs.first * part.runs.length * lanes<T>;
        const Index pixel = (sample * target_[1] + lattice.row + row * lattice.step) * target_[2] + lattice.column;
        for (Index b = first; b < last; b += depthwise_vectors) {
            const Index vectors = std::min(depthwise_vectors, last - b);
            const Index channel = b * lanes<T>;
            for (Index j = 0; j < lattice.width; j += depthwise_points) {
                for (Index v = 0; v < vectors; ++v) {
                    part.tile({.point = ring.block(b - first + v) + j * lattice.column_step * lanes<T>,
                               .point_step = lattice.column_step,
                               .offsets = offsets,
                               .runs = runs.count,
                               .weights = weights + (b + v) * part.runs.tap_count() * lanes<T>},
                              sums + v * lanes<T>, width);
                }
                epilogue.add(task, {.sums = sums,
                                    .width = width,
                                    .points = std::min(depthwise_points, lattice.width - j),
                                    .columns = std::min(width, target_[3] - channel),
                                    .column = channel,
                                    .element = (pixel + j * lattice.step) * target_[3] + channel,
                                    .pixel_stride = lattice.step * target_[3]});
                ahead.advance();
            }
        }
    }

    SlabSource<T> source_;
    RingShape<A> shape_;
    Shape target_;
    Index blocks_, blocks_each_;
    Index height_;
    RowCut cut_;
    PooledVector<Part> parts_;
    Index most_runs_ = 0, tiles_of_row_ = 0;
};

}  // namespace cpu

SD_NAMESPACE_END
