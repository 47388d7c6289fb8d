// The product of 3x3 convolutions with stride 1, forward and by input, by Winograd's tiles (winograd.hpp).
//
//     for each piece (a sample, some rows of tiles), for each group:               in parallel over pieces
//         pack the slab that the tiles read, transform it                          second-level cache, once
//         for each panel of columns:
//             for some tiles together:
//                 for each position: sums = tiles x weights                        registers (tile.hpp)
//                 transform the sums back to rows of pixels; the epilogue takes them
#pragma once

#include "sd/cpu/epilogue.hpp"
#include "sd/cpu/lattice.hpp"
#include "sd/cpu/product.hpp"
#include "sd/cpu/slab_source.hpp"
#include "sd/cpu/tile.hpp"
#include "sd/cpu/weights.hpp"
#include "sd/cpu/winograd_cut.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Panels of transformed weights: (panel, position, depth channel, column).
template <class T, Index m>
class WinogradPanels {
    using Tiles = WinogradTiles<T, m>;

public:
    WinogradPanels(const Tensor<T>& weight, WeightMap map, const Lattice& lattice, Index width, const T* factors)
        : position_(spread_stride<T>(map.depth_count() * width)),
          panel_(Tiles::positions * position_),
          data_(Tensor<T>::empty({quotient_up(map.column_count(), width), panel_})) {
        map.taps = tap_positions(sorted_by_offset(lattice));
        const PanelPacker<T> packer(weight, map, width, factors);
        Tensor<T> taps = Tensor<T>::empty({num_threads(), taps_of_kernel * lanes<T> * width});
        packer.for_each_block([&](Index panel, Index first) {
            T* block = taps.data() + thread_index() * taps_of_kernel * lanes<T> * width;
            packer.pack_block(panel, first, block);
            transform(block, packer.block_depth(first) * width, data_.data() + panel * panel_ + first * width);
        });
    }

    [[nodiscard]] const T* of(Index panel, Index position) const {
        return data_.data() + panel * panel_ + position * position_;
    }

private:
    static constexpr Index taps_of_kernel = 9;

    // From 9 taps of `size` weights each to all positions.
    void transform(const T* taps, Index size, T* target) const {
        for (Index i = 0; i < size; i += lanes<T>) {
            Vector<T> g[3][3];
            Vector<T> u[Tiles::extent][Tiles::extent];
            for (Index tap = 0; tap < taps_of_kernel; ++tap) g[tap / 3][tap % 3] = load(taps + tap * size + i);
            transform_both_ways(g, u, WinogradWeight());
            for (Index p = 0; p < Tiles::positions; ++p) {
                store<T>(u[p / Tiles::extent][p % Tiles::extent], target + p * position_ + i);
            }
        }
    }

    Index position_, panel_;  ///< elements between positions and between panels
    Tensor<T> data_;
};

/// Writes the points of a lattice that suits; as Product.
template <class T>
class WinogradProduct {
    using A = accumulate_t<T>;
    static constexpr Index m = winograd_outputs<T>;
    using Tiles = WinogradTiles<A, m>;

public:
    WinogradProduct(const SlabSource<T>& source, const Lattice& lattice, Index first_channel, Index first_column,
                    const PanelSource<A>& panels, const WeightMap& map, const Shape& target, Epilogue<T>& epilogue)
        : source_(source),
          lattice_(lattice),
          first_channel_(first_channel),
          first_column_(first_column),
          channels_(map.depth_count()),
          columns_(map.column_count()),
          target_(target),
          epilogue_(epilogue),
          cut_(WinogradCut<m>::of(
              lattice, std::min(tiles_of_piece(channels_),
                                shared_pixels<A>(source.extents().channels, channels_, target[3]) / (m * m)))),
          tiles_(cut_.rows_each * cut_.tile_columns),
          shape_(choose_tile<A>(tiles_, columns_)),
          points_(tile_shapes[shape_].points),
          width_(tile_shapes[shape_].vectors * lanes<T>),
          multiply_(find_multiply_tile<A>(shape_, 1)),
          together_(Tiles::positions * channels_ * width_ * static_cast<Index>(sizeof(A)) <= resident_bytes
                        ? points_
                        : round_up(tiles_, points_)),
          weights_(panels.template panels<WinogradPanels<A, m>>(map, width_, [&] {
              return WinogradPanels<A, m>(panels.weight(), map, lattice, width_, panels.factors());
          })) {}

    /// Of the batch.
    [[nodiscard]] Index pieces() const { return source_.extents().samples * cut_.pieces_of_sample; }
    /// To be called before any piece.
    void reserve() { epilogue_.reserve(pieces()); }

    /// A thread's own.
    struct Memory {
        A* slab;
        Tiles tiles;
        A* sums;  ///< (position, tile, column)
        A* rows;  ///< (row of m, pixel, column)
    };
    /// The memory of all threads, for any product of the same extents.
    class Workspace {
    public:
        explicit Workspace(const WinogradProduct& product)
            : padded_tiles_(round_up(product.tiles_, product.points_)),
              channels_(product.channels_),
              slabs_(Tensor<A>::empty(
                  {num_threads(), product.slab_of(0, product.first_channel_, channels_).template size<A>(0)})),
              tiles_(Tensor<A>::empty({num_threads(), Tiles::of(nullptr, padded_tiles_, channels_).size()})),
              sums_(Tensor<A>::empty({num_threads(), Tiles::positions * product.together_ * product.width_})),
              rows_(Tensor<A>::empty({num_threads(), m * m * product.together_ * product.width_})) {}
        [[nodiscard]] Memory of(Index thread) {
            return {slabs_.data() + thread * slabs_.extent(1),
                    Tiles::of(tiles_.data() + thread * tiles_.extent(1), padded_tiles_, channels_),
                    sums_.data() + thread * sums_.extent(1), rows_.data() + thread * rows_.extent(1)};
        }

    private:
        Index padded_tiles_, channels_;
        Tensor<A> slabs_, tiles_, sums_, rows_;
    };

    /// Asks for all that a piece reads while `products` products compute another.
    [[nodiscard]] SlabPrefetch<T> ask_for(Index next, Index products) const {
        const Index calls = Tiles::positions * quotient_up(tiles_, points_) * quotient_up(columns_, width_);
        return {source_, slab_of(next, 0, source_.extents().channels), calls * products};
    }

    /// Writes the points of a piece.
    void run_piece(Index number, const Memory& memory, SlabPrefetch<T>& ahead) {
        const SlabShape slab = slab_of(number, first_channel_, channels_);
        const Index first_row = number % cut_.pieces_of_sample * cut_.rows_each;
        const Index tile_rows = cut_.rows(first_row);
        const Index tiles = tile_rows * cut_.tile_columns;
        source_.pack(slab, memory.slab);
        transform_tiles<Tiles::extent>(memory.slab, slab, tile_rows, cut_.tile_columns, memory.tiles, 0,
                                       WinogradInput());

        constexpr Index no_offset = 0;
        TileOperands<A> operands{.point = nullptr,
                                 .point_step = 1,
                                 .plane = memory.tiles.plane,
                                 .channels = channels_,
                                 .tap_offsets = &no_offset,
                                 .taps = 1,
                                 .weights = nullptr};
        for (Index c = 0; c < columns_; c += width_) {
            for (Index first = 0; first < tiles; first += together_) {
                const Index last = std::min(tiles, first + together_);
                for (Index p = 0; p < Tiles::positions; ++p) {
                    operands.weights = weights_->of(c / width_, p);
                    for (Index tile = first; tile < last; tile += points_) {
                        operands.point = memory.tiles.data + p * memory.tiles.position + tile * lanes<T>;
                        multiply_(operands, memory.sums + (p * together_ + tile - first) * width_, false);
                        ahead.advance();
                    }
                }
                finish(number, slab.sample, first_row, first, last, c, memory);
            }
        }
    }

private:
    static constexpr Index resident_bytes = Index{384} << 10;  // of a panel that stays in the second-level cache

    /// Transformed, they stay in the second-level cache beside a panel.
    [[nodiscard]] static Index tiles_of_piece(Index channels) {
        constexpr Index bytes = Index{400} << 10;
        return bytes / (Tiles::positions * round_up(channels, lanes<T>) * static_cast<Index>(sizeof(A)));
    }

    [[nodiscard]] SlabShape slab_of(Index piece, Index first_channel, Index channels) const {
        const Index first_row = piece % cut_.pieces_of_sample * cut_.rows_each;
        return cut_.slab(lattice_, piece / cut_.pieces_of_sample, first_row, cut_.rows(first_row), first_channel,
                         channels);
    }

    // Transforms tiles [first, last) of a piece back, a run of tiles in one row after the other.
    void finish(Index task, Index sample, Index first_row, Index first, Index last, Index c,
                const Memory& memory) const {
        for (Index tile = first; tile < last;) {
            const Index tile_row = tile / cut_.tile_columns;
            const Index end = std::min(last, (tile_row + 1) * cut_.tile_columns);
            const Index pixels = m * (end - tile);
            for (Index t = tile; t < end; ++t) {
                const A* sums = memory.sums + (t - first) * width_;
                A* pixel = memory.rows + m * (t - tile) * width_;
                for (Index v = 0; v < width_; v += lanes<T>) {
                    Vector<T> transformed[Tiles::extent][Tiles::extent];
                    Vector<T> y[m][m];
#pragma GCC unroll 36
                    for (Index p = 0; p < Tiles::positions; ++p) {
                        transformed[p / Tiles::extent][p % Tiles::extent] = load(sums + p * together_ * width_ + v);
                    }
                    transform_both_ways(transformed, y, WinogradOutput());
#pragma GCC unroll 4
                    for (Index r = 0; r < m; ++r) {
#pragma GCC unroll 4
                        for (Index j = 0; j < m; ++j) store<A>(y[r][j], pixel + (r * pixels + j) * width_ + v);
                    }
                }
            }
            const Index row = m * (first_row + tile_row);
            const Index column = m * (tile % cut_.tile_columns);
            for (Index r = 0; r < std::min(m, lattice_.height - row); ++r) {
                epilogue_.add(task, {.sums = memory.rows + r * pixels * width_,
                                     .width = width_,
                                     .points = std::min(pixels, lattice_.width - column),
                                     .columns = std::min(width_, columns_ - c),
                                     .column = c,
                                     .element = ((sample * target_[1] + row + r) * target_[2] + column) * target_[3] +
                                                first_column_ + c,
                                     .pixel_stride = target_[3]});
            }
            tile = end;
        }
    }

    SlabSource<T> source_;
    const Lattice& lattice_;
    Index first_channel_, first_column_, channels_, columns_;
    Shape target_;
    Epilogue<T>& epilogue_;
    WinogradCut<m> cut_;
    Index tiles_;  ///< of a piece, at most
    std::size_t shape_;
    Index points_, width_;
    MultiplyTile<A> multiply_;
    Index together_;  ///< tiles whose sums are held at a time
    std::shared_ptr<const WinogradPanels<A, m>> weights_;
};

}  // namespace cpu

SD_NAMESPACE_END
