// The gradient of a convolution by its weights: an outer product of two slabs, summed over pixels.
//
//     dweight(o, i, tap) = sum over pixels p of x(p + tap, i) dy(p, o)
//
//     for each task (a span of the batch's rows, some pairs of blocks of o):           in parallel
//         for each piece of the span: pack the slabs of x and dy
//             for each pair of blocks of o, block of i, half of its lanes, tap:
//                 sums (R channels i x 2 vectors of o) over the pixels of the piece    registers
//                 added to the task's part of dweight                                  cache
//
// Spans depend on the problem's size alone and are added in order, so the bits are the same for any number of threads.
// Large weights are cut by o, small ones by spans: every span has a copy of what it sums.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/forward_side.hpp"
#include "sd/cpu/product.hpp"
#include "sd/cpu/slab.hpp"
#include "sd/cpu/tile.hpp"
#include "sd/reference/conv2d.hpp"

#include <vector>

SD_NAMESPACE_BEGIN

using reference::conv2d_by_weight;

namespace cpu {

/// The two slabs of a piece and the sums they add to.
template <class T>
struct OuterTask {
    const T* x;
    Index x_columns, x_plane, x_blocks, row_step, point_step;
    const T* dy;
    Index dy_plane, rows, width;
    const Index* tap_offsets;
    Index taps;
    T* sums;  ///< (tap, channel of x rounded up to lanes, 2 lanes of o)
};

/// Adds the outer product of one pair of blocks of dy with all channels and taps of x. `step` as in run_panel.
template <class T, Index step>
void run_outer(const OuterTask<T>& task) {
    constexpr Index vectors = 2;
    constexpr Index rows = lanes<T> / 2;
    const auto pixel_stride = [&] {
        if constexpr (step != 0) {
            return constant<step * lanes<T>>;
        } else {
            return task.point_step * lanes<T>;
        }
    }();
    for (Index tap = 0; tap < task.taps; ++tap) {
        for (Index channel = 0; channel < task.x_blocks * lanes<T>; channel += rows) {
            Vector<T> sum[rows][vectors] = {};
            const T* x = task.x + channel / lanes<T> * task.x_plane + channel % lanes<T> + task.tap_offsets[tap];
            for (Index i = 0; i < task.rows; ++i) {
                multiply_add<rows, vectors>(sum, task.width, x + i * task.row_step * task.x_columns * lanes<T>,
                                            constant<1>, pixel_stride, task.dy + i * task.width * lanes<T>,
                                            constant<lanes<T>>, task.dy_plane);
            }
            T* target = task.sums + (tap * task.x_blocks * lanes<T> + channel) * vectors * lanes<T>;
#pragma GCC unroll 16
            for (Index r = 0; r < rows; ++r) {
#pragma GCC unroll 2
                for (Index v = 0; v < vectors; ++v, target += lanes<T>) store(load(target) + sum[r][v], target);
            }
        }
    }
}

/// Adds all spans of sums (spans, pairs, sums of a pair) to the first one, in order.
template <class T>
void add_spans(Tensor<T>& sums) {
    const Index size = sums.extent(1) * sums.extent(2);
    parallel_ranges(size, 4096, [&](Index first, Index last) {
        T* total = sums.data();
        for (Index span = 1; span < sums.extent(0); ++span) {
            const T* part = sums.data() + span * size;
            for (Index i = first; i < last; ++i) total[i] += part[i];
        }
    });
}

/// How a by-weight product is cut: spans of pieces by groups of pairs of blocks of o.
struct OuterCut {
    Index pairs, pair_groups, pairs_each, spans, pieces_each;

    OuterCut(Index columns, Index lanes, Index sums_of_pair, Index pieces) {
        constexpr Index most_sums = Index{1} << 21;  // elements of all spans together
        constexpr Index tasks = 8;
        pairs = quotient_up(columns, 2 * lanes);
        spans = std::clamp<Index>(most_sums / (pairs * sums_of_pair), 1, std::min(tasks, pieces));
        pieces_each = quotient_up(pieces, spans);
        spans = quotient_up(pieces, pieces_each);
        pairs_each = std::max<Index>(1, pairs / quotient_up(tasks, spans));
        pair_groups = quotient_up(pairs, pairs_each);
    }
};

}  // namespace cpu

/// The gradient by the weights, of shape weight_shape:
///
///     dweight(o, i, kh, kw) = sum over n, oh, ow of dy(n, oh, ow, o) x(n, h, w, i), h and w as forward
///
/// Throws std::invalid_argument if settings or shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<accumulate_t<T>> conv2d_by_weight(const Pending<T>& x, const Tensor<T>& dy,
                                                       const Conv2dOptions& options, const Shape& weight_shape) {
    using cpu::lanes;
    const Conv2dGeometry geometry(x.shape(), weight_shape, options);
    expect_shape("conv2d_by_weight", "dy", dy.shape(), geometry.output_shape());
    Tensor<T> dweight(weight_shape);
    if (dy.size() == 0 || dweight.size() == 0) return dweight;
    const cpu::ForwardSide<T> side(x, geometry);
    const cpu::GroupPlan& plan = side.plan;
    const cpu::Lattice& lattice = side.lattice;
    const auto taps = static_cast<Index>(lattice.taps.size());
    constexpr Index piece_pixels = 160;  // a block of x and a pair of blocks of dy stay in the first-level cache
    const cpu::Cut pieces = cpu::Cut::of(lattice, piece_pixels, 1);
    const Index all_pieces = side.y_shape[0] * pieces.pieces_of_sample();
    const Index depth = cpu::round_up(side.depth, lanes<T>);
    const Index sums_of_pair = taps * depth * 2 * lanes<T>;
    const cpu::OuterCut cut(plan.out(), lanes<T>, sums_of_pair, all_pieces);
    const Index point_step = cpu::slab_column_step(lattice);
    const auto run = point_step == 1   ? &cpu::run_outer<T, 1>
                     : point_step == 2 ? &cpu::run_outer<T, 2>
                                       : &cpu::run_outer<T, 0>;
    const cpu::PendingSource<T> x_values(side.x);
    const Pending<T> dy_as_x(dy.reshape(side.y_shape));
    const cpu::PendingSource<T> dy_values(dy_as_x);
    const cpu::Lattice plain{0, 0, 1, lattice.height, lattice.width, 1, 1, {{0, 0, 0}}};

    for (Index group = 0; group < plan.count; ++group) {
        Tensor<T> sums = Tensor<T>::empty({cut.spans, cut.pairs, sums_of_pair});
        parallel_for(cut.spans * cut.pair_groups, [&](Index t) {
            const Index span = t / cut.pair_groups;
            const Index first_pair = t % cut.pair_groups * cut.pairs_each;
            const Index last_pair = std::min(cut.pairs, first_pair + cut.pairs_each);
            T* task_sums = sums.data() + (span * cut.pairs + first_pair) * sums_of_pair;
            std::fill_n(task_sums, (last_pair - first_pair) * sums_of_pair, T(0));
            const Index first_channel = first_pair * 2 * lanes<T>;
            const Index channels = std::min(plan.out(), last_pair * 2 * lanes<T>) - first_channel;
            const Index last_piece = std::min(all_pieces, (span + 1) * cut.pieces_each);
            for (Index p = span * cut.pieces_each; p < last_piece; ++p) {
                const cpu::Piece piece = pieces.piece(lattice, p);
                const cpu::SlabShape x_slab = piece.slab(lattice, group * plan.in(), side.depth);
                const cpu::SlabShape dy_slab = piece.slab(plain, group * plan.out() + first_channel, channels);
                Tensor<T> packed_x = Tensor<T>::empty({x_slab.size<T>(0)});
                Tensor<T> packed_dy = Tensor<T>::empty({dy_slab.size<T>(0) + dy_slab.plane<T>()});
                cpu::pack_slab<T>(x_values, x_slab, packed_x.data());
                cpu::pack_slab<T>(dy_values, dy_slab, packed_dy.data());
                if (dy_slab.blocks<T>() % 2 != 0) {  // the second block of the last pair
                    std::fill_n(packed_dy.data() + dy_slab.size<T>(0), dy_slab.plane<T>(), T(0));
                }
                const std::vector<Index> offsets = cpu::tap_offsets(lattice, x_slab.columns, lanes<T>);
                for (Index pair = first_pair; pair < last_pair; ++pair) {
                    run({.x = packed_x.data(),
                         .x_columns = x_slab.columns,
                         .x_plane = x_slab.plane<T>(),
                         .x_blocks = x_slab.blocks<T>(),
                         .row_step = cpu::slab_row_step(lattice),
                         .point_step = point_step,
                         .dy = packed_dy.data() + (pair - first_pair) * 2 * dy_slab.plane<T>(),
                         .dy_plane = dy_slab.plane<T>(),
                         .rows = piece.rows,
                         .width = piece.width,
                         .tap_offsets = offsets.data(),
                         .taps = taps,
                         .sums = task_sums + (pair - first_pair) * sums_of_pair});
                }
            }
        });
        cpu::add_spans(sums);
        parallel_for(plan.out(), [&](Index o) {
            const T* sum = sums.data() + o / (2 * lanes<T>)*sums_of_pair + o % (2 * lanes<T>);
            for (Index k = 0; k < side.depth; ++k) {
                for (Index tap = 0; tap < taps; ++tap) {
                    const Index offset = side.weight_offset(group, o, k, tap);
                    if (offset >= 0) dweight.data()[offset] = sum[(tap * depth + k) * 2 * lanes<T>];
                }
            }
        });
    }
    return dweight;
}

SD_NAMESPACE_END
