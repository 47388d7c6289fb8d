// The gradient of a depthwise convolution by its weights.
//
//     dweight(c, tap) = sum over pixels p of x(p + tap, c) dy(p, c)
//
//     for each span of pieces (some rows of points of a sample each):                  in parallel over spans
//         for each chunk of channels, row of points:
//             rows of x that are new to the ring, the row of dy                        second-level cache, once
//             for each block of channels, some runs of taps:
//                 sums (taps) over the points of the row                               registers
//                 added to the span's part of dweight                                  cache
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/depthwise_rows.hpp"

#include <algorithm>
#include <span>

SD_NAMESPACE_BEGIN

namespace cpu {

/// What the sums of some runs of taps over a row of points are made of, in one block of channels.
template <class T>
struct DepthwiseOuterOperands {
    const T* point;        ///< of x, the first one
    Index point_step;      ///< pixels between neighbouring points
    const Index* offsets;  ///< elements from a point to what the first tap of each run reads
    const T* dy;           ///< of the first point, zeros from the last one to a multiple of `points`
    Index width;           ///< points
};

/// sums[(run taps + tap) lanes + lane] += the sum over points of x dy, for `runs` runs. Points are taken `points` at a
/// time. `step` as in depthwise_tile.
template <class T, Index taps, Index step, Index runs, Index points>
void depthwise_outer(const DepthwiseOuterOperands<T>& operands, T* sums) {
    Vector<T> sum[runs][taps];
#pragma GCC unroll 8
    for (Index r = 0; r < runs; ++r) {
#pragma GCC unroll 8
        for (Index t = 0; t < taps; ++t) sum[r][t] = load(sums + (r * taps + t) * lanes<T>);
    }
    for (Index j = 0; j < operands.width; j += points) {
        Vector<T> dy[points];
#pragma GCC unroll 8
        for (Index p = 0; p < points; ++p) {
            dy[p] = load(operands.dy + (j + p) * lanes<T>);
            hold(dy[p]);
        }
        const T* point = operands.point + j * operands.point_step * lanes<T>;
#pragma GCC unroll 8
        for (Index r = 0; r < runs; ++r) {
            const T* x = point + operands.offsets[r];
            if constexpr (step == 0) {
                static_assert(taps == 1);
#pragma GCC unroll 8
                for (Index p = 0; p < points; ++p) sum[r][0] += dy[p] * load(x + p * operands.point_step * lanes<T>);
            } else {
#pragma GCC unroll 32
                for (Index q = 0; q < (points - 1) * step + taps; ++q) {
                    Vector<T> value = load(x + q * lanes<T>);
                    hold(value);
#pragma GCC unroll 8
                    for (Index t = q % step; t < taps; t += step) {
                        if (t <= q && (q - t) / step < points) sum[r][t] += dy[(q - t) / step] * value;
                    }
                }
            }
        }
    }
#pragma GCC unroll 8
    for (Index r = 0; r < runs; ++r) {
#pragma GCC unroll 8
        for (Index t = 0; t < taps; ++t) store<T>(sum[r][t], sums + (r * taps + t) * lanes<T>);
    }
}

/// depthwise_outer for as many runs as the registers hold and for one.
template <class T>
struct DepthwiseOuter {
    using Function = void (*)(const DepthwiseOuterOperands<T>&, T*);

    Function several, one;
    Index runs;    ///< of `several`
    Index points;  ///< that both take at a time

    /// For the length of runs and the step.
    [[nodiscard]] static DepthwiseOuter of(Index taps, Index step) {
        if (step == 1) {
            switch (taps) {
                case 2:
                    return with<2, 1, 4>();
                case 3:
                    return with<3, 1, 3>();
                case 4:
                    return with<4, 1, 2>();
                case 5:
                    return with<5, 1, 2>();
                case 7:
                    return with<7, 1, 1>();
                default:
                    return with<1, 1, 8>();
            }
        }
        switch (taps) {
            case 3:
                return with<3, 2, 3>();
            case 5:
                return with<5, 2, 2>();
            case 7:
                return with<7, 2, 1>();
            default:
                return with<1, 0, 8>();
        }
    }

private:
    template <Index taps, Index step, Index together>
    [[nodiscard]] static DepthwiseOuter with() {
        // All sums, one value of x and as many points as there is room for.
        constexpr Index points = vector_registers - 1 - together * taps >= 7 ? 7 : 4;
        return {&depthwise_outer<T, taps, step, together, points>, &depthwise_outer<T, taps, step, 1, points>, together,
                points};
    }
};

/// dweight, summed span by span.
template <class T>
class DepthwiseOuterProduct {
    using A = accumulate_t<T>;

public:
    DepthwiseOuterProduct(const Pending<T>& x, const PendingGradient<T>& dy, const Lattice& lattice)
        : x_(x),
          dy_(dy),
          lattice_(lattice),
          runs_(lattice),
          outer_(DepthwiseOuter<A>::of(runs_.length, lattice.column_step)),
          x_shape_(std::span(&lattice, 1), outer_.points),
          channels_(x.channels()),
          blocks_(quotient_up(channels_, lanes<T>)),
          blocks_each_(x_shape_.resident_blocks(blocks_)),
          dy_columns_(round_up(lattice.width, outer_.points)),
          cut_(dy.shape()[0], lattice.height),
          pieces_each_(quotient_up(cut_.pieces, most_spans)),
          spans_(quotient_up(cut_.pieces, pieces_each_)) {}

    /// Writes the gradients of the weights that meet some pixel.
    void run(Tensor<A>& dweight) {
        Tensor<A> sums = Tensor<A>(Shape{spans_, blocks_, runs_.tap_count(), lanes<T>});
        Tensor<A> rings = Tensor<A>::empty({num_threads(), x_shape_.size(blocks_each_)});
        Tensor<A> rows = Tensor<A>::empty({num_threads(), dy_slab({}, 0, 0).template plane<A>() * blocks_each_});
        Tensor<Index> offsets = Tensor<Index>::empty({num_threads(), runs_.count()});
        parallel_for(spans_, [&](Index span) {
            const Index thread = thread_index();
            const Index last = std::min(cut_.pieces, (span + 1) * pieces_each_);
            for (Index piece = span * pieces_each_; piece < last; ++piece) {
                run_piece(cut_.piece(piece, lattice_.height), rings.data() + thread * rings.extent(1),
                          rows.data() + thread * rows.extent(1), offsets.data() + thread * offsets.extent(1),
                          sums.data() + span * sums.size() / spans_);
            }
        });
        merge(sums, dweight);
    }

private:
    static constexpr Index most_spans = 32;

    [[nodiscard]] SlabShape dy_slab(const RowCut::Piece& piece, Index row, Index first_block) const {
        const Index first = first_block * lanes<T>;
        return {.sample = piece.sample,
                .first_row = row,
                .rows = 1,
                .columns = dy_columns_,
                .first_channel = first,
                .channels = std::min(blocks_each_ * lanes<T>, channels_ - first)};
    }

    void run_piece(const RowCut::Piece& piece, A* ring_memory, A* dy_row, Index* offsets, A* sums) const {
        const Index taps = runs_.tap_count();
        const SlabSource<T> dy(dy_);
        for (Index first = 0; first < blocks_; first += blocks_each_) {
            const Index blocks = std::min(blocks_each_, blocks_ - first);
            RowRing<T> ring(SlabSource<T>(x_), x_shape_, piece.sample, first * lanes<T>,
                            dy_slab(piece, 0, first).channels, ring_memory);
            for (Index row = piece.first_row; row < piece.last_row; ++row) {
                ring.move_to(row);
                const SlabShape slab = dy_slab(piece, row, first);
                dy.pack(slab, dy_row);
                const auto runs = ring.locate(runs_, offsets);
                A* row_sums = sums + (first * taps + runs.first * runs_.length) * lanes<T>;
                const Index calls = row + 1 < piece.last_row ? blocks : 0;
                auto x_ahead = ring.ask_for_next(calls);
                SlabPrefetch<T> dy_ahead(dy, dy_slab(piece, row + 1, first), calls);
                for (Index b = 0; b < blocks; ++b) {
                    sum_row({.point = ring.block(b),
                             .point_step = lattice_.column_step,
                             .offsets = offsets,
                             .dy = dy_row + b * slab.template plane<A>(),
                             .width = lattice_.width},
                            runs.count, row_sums + b * taps * lanes<T>);
                    x_ahead.advance();
                    dy_ahead.advance();
                }
            }
        }
    }

    /// Adds a row of points to the taps of some runs, in a block.
    void sum_row(DepthwiseOuterOperands<A> operands, Index runs, A* sums) const {
        for (Index r = 0; r < runs;) {
            const bool several = r + outer_.runs <= runs;
            (several ? outer_.several : outer_.one)(operands, sums);
            const Index done = several ? outer_.runs : 1;
            operands.offsets += done;
            sums += done * runs_.length * lanes<T>;
            r += done;
        }
    }

    /// Adds up the spans in order, and writes the sums to where the weights stand.
    void merge(const Tensor<A>& sums, Tensor<A>& dweight) const {
        const Index positions = dweight.extent(2) * dweight.extent(3);
        const Index taps = runs_.tap_count();
        const Index span = sums.size() / spans_;
        parallel_ranges(blocks_, 8, [&](Index first, Index last) {
            for (Index b = first; b < last; ++b) {
                const Index channels = std::min(lanes<T>, channels_ - b * lanes<T>);
                for (Index t = 0; t < taps; ++t) {
                    const A* from = sums.data() + (b * taps + t) * lanes<T>;
                    double total[lanes<T>] = {};
                    for (Index s = 0; s < spans_; ++s, from += span) {
                        for (Index i = 0; i < lanes<T>; ++i) total[i] += static_cast<double>(from[i]);
                    }
                    A* to = dweight.data() + b * lanes<T> * positions +
                            runs_.taps[static_cast<std::size_t>(t)].kernel_position;
                    for (Index i = 0; i < channels; ++i) to[i * positions] = static_cast<A>(total[i]);
                }
            }
        });
    }

    PendingSource<T> x_;
    GradientSource<T> dy_;
    const Lattice& lattice_;
    TapRuns runs_;
    DepthwiseOuter<A> outer_;
    RingShape<A> x_shape_;
    Index channels_, blocks_, blocks_each_, dy_columns_;
    RowCut cut_;
    Index pieces_each_, spans_;
};

}  // namespace cpu

SD_NAMESPACE_END
