// The gradient of a convolution by its weights: an outer product of two slabs, summed over pixels.
//
//     dweight(o, i, tap) = sum over pixels p of x(p + tap, i) dy(p, o)
//
//     for each task (a span of the batch's rows, some panels of o):                    in parallel
//         for each piece of the span: pack the slabs of x and dy
//             for each panel (V vectors of o), tap, R channels i:
//                 sums (R channels i x V vectors of o) over the pixels of the piece    registers
//                 added to the task's part of dweight                                  cache
//
// Those that Winograd's tiles suit go by them (winograd_by_weight.hpp), and depthwise ones channel by channel
// (depthwise_by_weight.hpp).
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/cut.hpp"
#include "sd/cpu/depthwise_by_weight.hpp"
#include "sd/cpu/forward_side.hpp"
#include "sd/cpu/outer.hpp"
#include "sd/cpu/pair_by_weight.hpp"
#include "sd/cpu/slab_source.hpp"
#include "sd/cpu/winograd_by_weight.hpp"
#include "sd/reference/conv2d.hpp"

SD_NAMESPACE_BEGIN

using reference::conv2d_by_weight;

namespace cpu {

/// What by-weight sums, one merged group at a time.
template <class T>
class OuterProduct {
    using A = accumulate_t<T>;

public:
    OuterProduct(const ForwardSide<T>& side, const PendingGradient<T>& dy)
        : side_(side),
          x_(side.x, side.x_view),
          dy_(dy),
          plain_{0, 0, 1, side.lattice.height, side.lattice.width, 1, 1, {{0, 0, 0}}},
          cut_(Cut::of(side.lattice, side.y_shape[0], pixels_of_piece(side.depth + side.plan.out()), 1)),
          pieces_(side.y_shape[0] * cut_.pieces_of_sample()),
          taps_(static_cast<Index>(side.lattice.taps.size())),
          vectors_(outer_vectors<T>(side.plan.out())),
          width_(vectors_ * lanes<T>),
          sums_of_tap_(spread_stride<A>(round_up(side.depth, lanes<T>) * width_)),
          sums_of_panel_(taps_ * sums_of_tap_),
          tasks_(quotient_up(side.plan.out(), width_), sums_of_panel_, pieces_) {}

    /// Writes the gradients of a group's weights to where they stand.
    void run(Index group, Tensor<A>& dweight) {
        Tensor<A> sums = Tensor<A>::empty({tasks_.spans, tasks_.panels, sums_of_panel_});
        const Piece largest{0, 0, 0, cut_.rows_each, cut_.columns_each};
        const SlabShape dy_slab =
            dy_slab_of(largest, group, 0, std::min(tasks_.panels_each * width_, side_.plan.out()));
        Tensor<A> x_slabs = Tensor<A>::empty({num_threads(), x_slab_of(largest, group).template size<A>(0)});
        Tensor<A> dy_slabs = Tensor<A>::empty({num_threads(), dy_slab.template size<A>(0)});
        Tensor<Index> offsets = Tensor<Index>::empty({num_threads(), taps_});
        parallel_for(tasks_.tasks(), [&](Index t) {
            const Index thread = thread_index();
            run_task(group, tasks_.task(t, side_.plan.out(), width_), sums, x_slabs.data() + thread * x_slabs.extent(1),
                     dy_slabs.data() + thread * dy_slabs.extent(1), offsets.data() + thread * taps_);
        });
        add_spans(sums);
        unpack_panels(sums, side_.weights(group), width_, sums_of_tap_, dweight);
    }

private:
    // The more, the fewer edges are packed twice and the longer a tile's sums stay in registers; but both slabs should
    // stay in the second-level cache.
    [[nodiscard]] static Index pixels_of_piece(Index channels) {
        return std::clamp<Index>(slab_pixels<A>(quotient_up(channels, 2)), 160, 1024);
    }

    [[nodiscard]] SlabShape x_slab_of(const Piece& piece, Index group) const {
        return piece.slab(side_.lattice, side_.plan.first_in(group), side_.depth);
    }
    [[nodiscard]] SlabShape dy_slab_of(const Piece& piece, Index group, Index first_channel, Index channels) const {
        return piece.slab(plain_, side_.plan.first_out(group) + first_channel, channels);
    }

    void run_task(Index group, const OuterCut::Task& task, Tensor<A>& sums, A* packed_x, A* packed_dy,
                  Index* offsets) const {
        const SlabSource<T> x(x_), dy(dy_);
        for (Index p = task.first_piece; p < task.last_piece; ++p) {
            const Piece piece = cut_.piece(side_.lattice, p);
            const SlabShape x_slab = x_slab_of(piece, group);
            const SlabShape dy_slab = dy_slab_of(piece, group, task.first_channel, task.channels);
            x.pack(x_slab, packed_x);
            dy.pack(dy_slab, packed_dy);
            const bool has_next = p + 1 < task.last_piece;
            const Piece next = has_next ? cut_.piece(side_.lattice, p + 1) : piece;
            const Index calls = !has_next ? 0
                                          : quotient_up(task.channels, width_) * taps_ *
                                                quotient_up(side_.depth, outer_rows<A, most_outer_vectors>);
            SlabPrefetch<T> x_ahead(x, x_slab_of(next, group), calls);
            SlabPrefetch<T> dy_ahead(dy, dy_slab_of(next, group, task.first_channel, task.channels), calls);
            tap_offsets(side_.lattice, x_slab.columns, lanes<T>, offsets);
            run_panels<T>({.x = packed_x,
                           .x_columns = x_slab.columns,
                           .x_plane = x_slab.template plane<A>(),
                           .x_channels = side_.depth,
                           .row_step = slab_row_step(side_.lattice),
                           .point_step = slab_column_step(side_.lattice),
                           .dy = packed_dy,
                           .dy_plane = dy_slab.template plane<A>(),
                           .dy_tap = 0,
                           .rows = piece.rows,
                           .width = piece.width,
                           .tap_offsets = offsets,
                           .taps = taps_,
                           .sums = sums.data() + task.panel * sums_of_panel_,
                           .sums_tap = sums_of_tap_,
                           .columns = width_,
                           .accumulate = p > task.first_piece},
                          task.channels, sums_of_panel_, x_ahead, dy_ahead);
        }
    }

    const ForwardSide<T>& side_;
    PendingSource<T> x_;
    GradientSource<T> dy_;
    Lattice plain_;  ///< reads dy at the points themselves
    Cut cut_;
    Index pieces_, taps_, vectors_, width_, sums_of_tap_, sums_of_panel_;
    OuterCut tasks_;
};

}  // namespace cpu

/// The gradient by the weights, of shape weight_shape:
///
///     dweight(o, i, kh, kw) = sum over n, oh, ow of dy(n, oh, ow, o) x(n, h, w, i), h and w as forward
///
/// Throws std::invalid_argument if settings or shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<accumulate_t<T>> conv2d_by_weight(const Pending<T>& x, const PendingGradient<T>& dy,
                                                       const Conv2dOptions& options, const Shape& weight_shape) {
    using A = accumulate_t<T>;
    const Conv2dGeometry geometry(x.shape(), weight_shape, options);
    expect_shape("conv2d_by_weight", "dy", dy.shape(), geometry.output_shape());
    if (dy.shape().size() == 0) return Tensor<A>(weight_shape);
    if (is_depthwise(geometry.weight_shape(), geometry.options)) {
        Tensor<A> dweight(weight_shape);
        const cpu::Lattice lattice = cpu::read_lattice(geometry);
        if (!lattice.taps.empty()) cpu::DepthwiseOuterProduct<T>(x, dy, lattice).run(dweight);
        return dweight;
    }
    const cpu::ForwardSide<T> side(x, geometry);
    if (side.lattice.taps.empty()) return Tensor<A>(weight_shape);
    Tensor<A> dweight = side.reads_every_weight() ? Tensor<A>::empty(weight_shape) : Tensor<A>(weight_shape);
    const PendingGradient<T> dy_of_lattice = cpu::reshaped(dy, side.y_shape);
    const auto run = [&](auto product) {
        for (Index group = 0; group < side.plan.count; ++group) product.run(group, dweight);
    };
    const bool winograd = cpu::suits_winograd(side.lattice, side.weights(0), cpu::least_winograd_channels_by_weight);
    if constexpr (std::is_same_v<T, bfloat16>) {
        if (cpu::multiplies_pairs(winograd)) {
            run(cpu::PairOuterProduct<T>(side, dy_of_lattice));
            return dweight;
        }
    }
    if (winograd) {
        run(cpu::WinogradOuterProduct<T>(side, dy_of_lattice));
    } else {
        run(cpu::OuterProduct<T>(side, dy_of_lattice));
    }
    return dweight;
}

SD_NAMESPACE_END
