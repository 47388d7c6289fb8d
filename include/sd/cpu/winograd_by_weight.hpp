// The gradient of 3x3 convolutions with stride 1 by their weights, by Winograd's tiles (winograd.hpp).
//
//     for each task (a span of rows of tiles over the batch, some panels of o):         in parallel
//         for each piece of the span: pack and transform the tiles of x and of dy
//             for each panel, position, R channels i:
//                 sums (R channels i x V vectors of o) over the tiles of the piece     registers (outer.hpp)
//     add the spans, transform the sums back to 3x3 weights
#pragma once

#include "sd/cpu/forward_side.hpp"
#include "sd/cpu/outer.hpp"
#include "sd/cpu/winograd_cut.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// As OuterProduct, for a convolution that suits.
template <class T>
class WinogradOuterProduct {
    using A = accumulate_t<T>;
    static constexpr Index m = winograd_outputs<T>;
    using Tiles = WinogradTiles<A, m>;

public:
    WinogradOuterProduct(const ForwardSide<T>& side, const PendingGradient<T>& dy)
        : side_(side),
          x_(side.x, side.x_view),
          dy_(dy),
          cut_(WinogradCut<m>::of(side.lattice, 1)),
          all_rows_(side.y_shape[0] * cut_.tile_rows),
          rows_each_(std::clamp<Index>(tiles_of_piece(side.depth) / cut_.tile_columns, 1, all_rows_)),
          vectors_(outer_vectors<T>(side.plan.out())),
          width_(vectors_ * lanes<T>),
          sums_of_position_(spread_stride<A>(round_up(side.depth, lanes<T>) * width_)),
          sums_of_panel_(Tiles::positions * sums_of_position_),
          tasks_(quotient_up(side.plan.out(), width_), sums_of_panel_, quotient_up(all_rows_, rows_each_)) {}

    /// Writes the gradients of a group's weights to where they stand.
    void run(Index group, Tensor<A>& dweight) {
        Tensor<A> sums = Tensor<A>::empty({tasks_.spans, tasks_.panels, sums_of_panel_});
        const Index channels = std::min(tasks_.panels_each * width_, side_.plan.out());
        const Index tiles = rows_each_ * cut_.tile_columns;
        const Index rows_of_slab = std::min(rows_each_, cut_.tile_rows);
        Tensor<A> slabs = Tensor<A>::empty(
            {num_threads(), std::max(x_slab(group, 0, 0, rows_of_slab).template size<A>(0),
                                     dy_slab(group, 0, 0, rows_of_slab, 0, channels).template size<A>(0))});
        Tensor<A> x_tiles = Tensor<A>::empty({num_threads(), Tiles::of(nullptr, tiles, side_.depth).size()});
        Tensor<A> dy_tiles = Tensor<A>::empty({num_threads(), Tiles::of(nullptr, tiles, channels).size()});
        parallel_for(tasks_.tasks(), [&](Index t) {
            const Index thread = thread_index();
            run_task(group, tasks_.task(t, side_.plan.out(), width_), sums,
                     {slabs.data() + thread * slabs.extent(1),
                      Tiles::of(x_tiles.data() + thread * x_tiles.extent(1), tiles, side_.depth),
                      Tiles::of(dy_tiles.data() + thread * dy_tiles.extent(1), tiles, channels)});
        });
        add_spans(sums);
        transform_back(sums);
        WeightMap map = side_.weights(group);
        map.taps = tap_positions(sorted_by_offset(side_.lattice));
        unpack_panels(sums, map, width_, sums_of_position_, dweight);
    }

private:
    /// A thread's own.
    struct Memory {
        A* slab;
        Tiles x, dy;
    };

    /// The more, the longer a tile's sums stay in registers.
    [[nodiscard]] static Index tiles_of_piece(Index channels) {
        constexpr Index bytes = Index{1} << 20;
        const Index of_tile = Tiles::positions * (round_up(channels, lanes<T>) + 64) * static_cast<Index>(sizeof(A));
        return std::clamp<Index>(bytes / of_tile, 32, 256);
    }

    [[nodiscard]] SlabShape x_slab(Index group, Index sample, Index first_row, Index rows) const {
        return cut_.slab(side_.lattice, sample, first_row, rows, side_.plan.first_in(group), side_.depth);
    }
    [[nodiscard]] SlabShape dy_slab(Index group, Index sample, Index first_row, Index rows, Index first_channel,
                                    Index channels) const {
        return {.sample = sample,
                .first_row = m * first_row,
                .rows = m * rows,
                .first_column = 0,
                .columns = m * cut_.tile_columns,
                .first_channel = side_.plan.first_out(group) + first_channel,
                .channels = channels};
    }

    void run_task(Index group, const OuterCut::Task& task, Tensor<A>& sums, const Memory& memory) const {
        const Index first_channel = task.first_channel;
        const Index channels = task.channels;
        Index x_positions[Tiles::positions];
        for (Index p = 0; p < Tiles::positions; ++p) x_positions[p] = p * memory.x.position;

        const Index begin = task.first_piece * rows_each_;
        const Index end = std::min(all_rows_, task.last_piece * rows_each_);
        for (Index row = begin; row < end; row += rows_each_) {
            const Index last_row = std::min(end, row + rows_each_);
            transform_rows(group, row, last_row, first_channel, channels, memory);
            // What is asked for ahead: the next piece's rows of its first sample.
            const bool has_next = last_row < end;
            const Index next = has_next ? last_row : row;
            const Index next_sample = next / cut_.tile_rows;
            const Index next_row = next % cut_.tile_rows;
            const Index next_rows = std::min(std::min(end, next + rows_each_) - next, cut_.tile_rows - next_row);
            const Index calls = !has_next ? 0
                                          : quotient_up(channels, width_) * Tiles::positions *
                                                quotient_up(side_.depth, outer_rows<A, most_outer_vectors>);
            SlabPrefetch<T> x_ahead(SlabSource<T>(x_), x_slab(group, next_sample, next_row, next_rows), calls);
            SlabPrefetch<T> dy_ahead(SlabSource<T>(dy_),
                                     dy_slab(group, next_sample, next_row, next_rows, first_channel, channels), calls);
            run_panels<T>({.x = memory.x.data,
                           .x_columns = 0,
                           .x_plane = memory.x.plane,
                           .x_channels = side_.depth,
                           .row_step = 0,
                           .point_step = 1,
                           .dy = memory.dy.data,
                           .dy_plane = memory.dy.plane,
                           .dy_tap = memory.dy.position,
                           .rows = 1,
                           .width = (last_row - row) * cut_.tile_columns,
                           .tap_offsets = x_positions,
                           .taps = Tiles::positions,
                           .sums = sums.data() + task.panel * sums_of_panel_,
                           .sums_tap = sums_of_position_,
                           .columns = width_,
                           .accumulate = row > begin},
                          channels, sums_of_panel_, x_ahead, dy_ahead);
        }
    }

    // Packs and transforms rows of tiles [first, last), counted over the batch, a sample after the other.
    void transform_rows(Index group, Index first, Index last, Index first_channel, Index channels,
                        const Memory& memory) const {
        for (Index row = first; row < last;) {
            const Index sample = row / cut_.tile_rows;
            const Index row_of_sample = row % cut_.tile_rows;
            const Index rows = std::min(last - row, cut_.tile_rows - row_of_sample);
            const Index tile = (row - first) * cut_.tile_columns;
            const SlabShape x = x_slab(group, sample, row_of_sample, rows);
            SlabSource<T>(x_).pack(x, memory.slab);
            transform_tiles<Tiles::extent>(memory.slab, x, rows, cut_.tile_columns, memory.x, tile, WinogradInput());
            const SlabShape dy = dy_slab(group, sample, row_of_sample, rows, first_channel, channels);
            SlabSource<T>(dy_).pack(dy, memory.slab);
            transform_tiles<m>(memory.slab, dy, rows, cut_.tile_columns, memory.dy, tile, WinogradOutputAdjoint());
            row += rows;
        }
    }

    // From all positions to 9 taps, in place.
    void transform_back(Tensor<A>& sums) const {
        const Index depth = round_up(side_.depth, lanes<T>);
        parallel_ranges(tasks_.panels * depth, 64, [&](Index first, Index last) {
            for (Index i = first; i < last; ++i) {
                A* sum = sums.data() + i / depth * sums_of_panel_ + i % depth * width_;
                for (Index c = 0; c < width_; c += lanes<T>) {
                    Vector<T> du[Tiles::extent][Tiles::extent];
                    Vector<T> dg[3][3];
                    for (Index p = 0; p < Tiles::positions; ++p) {
                        du[p / Tiles::extent][p % Tiles::extent] = load(sum + p * sums_of_position_ + c);
                    }
                    transform_both_ways(du, dg, WinogradWeightAdjoint());
                    for (Index tap = 0; tap < 9; ++tap) {
                        store<A>(dg[tap / 3][tap % 3], sum + tap * sums_of_position_ + c);
                    }
                }
            }
        });
    }

    const ForwardSide<T>& side_;
    PendingSource<T> x_;
    GradientSource<T> dy_;
    WinogradCut<m> cut_;
    Index all_rows_, rows_each_;  ///< of tiles, over the batch and in a piece
    Index vectors_, width_, sums_of_position_, sums_of_panel_;
    OuterCut tasks_;
};

}  // namespace cpu

SD_NAMESPACE_END
