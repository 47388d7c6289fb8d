// The product that forward and by-input share: it reads slabs of one image and writes pixels of another.
//
//     for each piece (a sample, some rows of the lattice), for each group:         in parallel over pieces
//         for each chunk of the depth (channels to read):                          one chunk wherever that is enough
//             pack the slab that the points read                                   second-level cache, once
//             for each panel of columns (vectors of channels to write):
//                 for each tile of neighbouring points:
//                     sums [+]= over blocks of channels, taps, channels            registers (tile.hpp)
//                     after the last chunk: the epilogue takes the sums            (epilogue.hpp)
//
// Chunks are so long that the panel's weights and the slab stay in the second-level cache. While a piece is computed,
// the next one's pixels are asked for.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/cut.hpp"
#include "sd/cpu/epilogue.hpp"
#include "sd/cpu/kept_panels.hpp"
#include "sd/cpu/slab_source.hpp"
#include "sd/cpu/tile.hpp"
#include "sd/cpu/weights.hpp"

#include <algorithm>
#include <limits>

SD_NAMESPACE_BEGIN

namespace cpu {

/// How the depth is cut, for a panel of `width` columns.
template <class T>
[[nodiscard]] Index chunk_channels(Index channels, Index taps, Index width) {
    constexpr Index panel_bytes = Index{320} << 10;
    const Index most = panel_bytes / (taps * width * static_cast<Index>(sizeof(T)));
    const Index chunks = std::max<Index>(1, quotient_up(channels, std::max(lanes<T>, most)));
    return std::max(lanes<T>, round_up(quotient_up(channels, chunks), lanes<T>));
}

/// The most pixels of a piece at which `channels` of all channels of a source are read: groups take turns at a piece,
/// whose pixels, read and written, then stay in the second-level cache. No limit without groups.
template <class T>
[[nodiscard]] Index shared_pixels(Index source_channels, Index channels, Index target_channels) {
    if (channels == source_channels) return std::numeric_limits<Index>::max();
    constexpr Index elements = Index{640} * 1024 / static_cast<Index>(sizeof(T));
    return std::max<Index>(1, elements / (source_channels + target_channels));
}

/// Writes the points of a lattice, piece by piece.
template <class T>
class Product {
    using A = accumulate_t<T>;

public:
    /// Reads channels [first_channel, first_channel + depth of the weights) of the source and writes channels
    /// [first_column, first_column + columns of the weights) of an image of the given shape.
    Product(const SlabSource<T>& source, const Lattice& lattice, Index first_channel, Index first_column,
            const PanelSource<A>& panels, const WeightMap& map, const Shape& target, Epilogue<T>& epilogue)
        : source_(source),
          lattice_(lattice),
          first_channel_(first_channel),
          first_column_(first_column),
          channels_(lattice.taps.empty() ? 0 : map.depth_count()),  // nothing to read: the points are zero
          columns_(map.column_count()),
          taps_(map.tap_count()),
          target_(target),
          epilogue_(epilogue),
          shape_(choose_tile<A>(lattice.width, columns_)),
          points_(tile_shapes[shape_].points),
          width_(tile_shapes[shape_].vectors * lanes<T>),
          multiply_(find_multiply_tile<A>(shape_, slab_column_step(lattice))),
          chunk_(chunk_channels<A>(channels_, std::max<Index>(taps_, 1), width_)),
          chunks_(std::max<Index>(1, quotient_up(channels_, chunk_))),
          cut_(Cut::of(
              lattice, source.extents().samples,
              std::min(slab_pixels<A>(chunk_), shared_pixels<A>(source.extents().channels, channels_, target[3])),
              points_)),
          weights_(panels.template panels<Tensor<A>>(
              map, width_, [&] { return pack_panels(panels.weight(), map, width_, panels.factors()); })) {}

    /// Of the batch.
    [[nodiscard]] Index pieces() const { return source_.extents().samples * cut_.pieces_of_sample(); }
    /// To be called before any piece.
    void reserve() { epilogue_.reserve(pieces()); }

    /// A thread's own.
    struct Memory {
        A* slab;
        A* sums;
        Index* tap_offsets;
    };
    /// The memory of all threads, for any product of the same extents.
    class Workspace {
    public:
        explicit Workspace(const Product& product)
            : slabs_(Tensor<A>::empty({num_threads(), product.slab_size()})),
              sums_(Tensor<A>::empty({num_threads(), product.sums_size()})),
              offsets_(Tensor<Index>::empty({num_threads(), product.taps_})) {}
        [[nodiscard]] Memory of(Index thread) {
            return {slabs_.data() + thread * slabs_.extent(1), sums_.data() + thread * sums_.extent(1),
                    offsets_.data() + thread * offsets_.extent(1)};
        }

    private:
        Tensor<A> slabs_, sums_;
        Tensor<Index> offsets_;
    };

    /// Asks for all that a piece reads while `products` products compute another; for nothing if there are chunks,
    /// whose slabs are not read at once.
    [[nodiscard]] SlabPrefetch<T> ask_for(Index next, Index products) const {
        const Piece largest{0, 0, 0, cut_.rows_each, cut_.columns_each};
        return {source_, cut_.piece(lattice_, next).slab(lattice_, 0, source_.extents().channels),
                chunks_ == 1 ? tiles_of(largest) * products : 0};
    }

    /// Writes the points of a piece.
    void run_piece(Index number, const Memory& memory, SlabPrefetch<T>& ahead) {
        const Piece piece = cut_.piece(lattice_, number);
        for (Index chunk = 0; chunk < chunks_; ++chunk) {
            const SlabShape shape = slab_of(piece, chunk);
            source_.pack(shape, memory.slab);
            tap_offsets(lattice_, shape.columns, lanes<T>, memory.tap_offsets);
            TileOperands<A> operands{.point = nullptr,
                                     .point_step = slab_column_step(lattice_),
                                     .plane = shape.plane<A>(),
                                     .channels = shape.channels,
                                     .tap_offsets = memory.tap_offsets,
                                     .taps = taps_,
                                     .weights = nullptr};
            A* tile_sums = memory.sums;
            for (Index c = 0; c < columns_; c += width_) {
                operands.weights =
                    weights_->data() + c / width_ * weights_->extent(1) + chunk * chunk_ * taps_ * width_;
                for (Index i = 0; i < piece.rows; ++i) {
                    for (Index j = 0; j < piece.width; j += points_) {
                        const Index pixel =
                            i * slab_row_step(lattice_) * shape.columns + j * slab_column_step(lattice_);
                        operands.point = memory.slab + pixel * lanes<T>;
                        multiply_(operands, tile_sums, chunk > 0);
                        if (chunk + 1 == chunks_) epilogue_.add(number, result(piece, i, j, c, tile_sums));
                        if (chunks_ > 1) tile_sums += points_ * width_;
                        ahead.advance();
                    }
                }
            }
        }
    }

private:
    [[nodiscard]] SlabShape slab_of(const Piece& piece, Index chunk) const {
        const Index first = chunk * chunk_;
        return piece.slab(lattice_, first_channel_ + first, std::min(chunk_, channels_ - first));
    }
    [[nodiscard]] Index slab_size() const {
        const Piece largest{0, 0, 0, cut_.rows_each, cut_.columns_each};
        return slab_of(largest, 0).template size<A>(points_ * slab_column_step(lattice_));
    }
    [[nodiscard]] Index tiles_of(const Piece& piece) const {
        return piece.rows * quotient_up(piece.width, points_) * quotient_up(columns_, width_);
    }
    /// Of one tile, or of all that wait for the next chunk.
    [[nodiscard]] Index sums_size() const {
        const Piece largest{0, 0, 0, cut_.rows_each, cut_.columns_each};
        return (chunks_ == 1 ? 1 : tiles_of(largest)) * points_ * width_;
    }

    [[nodiscard]] TileResult<A> result(const Piece& piece, Index i, Index j, Index c, const A* sums) const {
        const Index row = lattice_.row + (piece.first_row + i) * lattice_.step;
        const Index column = lattice_.column + (piece.first_column + j) * lattice_.step;
        return {.sums = sums,
                .width = width_,
                .points = std::min(points_, piece.width - j),
                .columns = std::min(width_, columns_ - c),
                .column = c,
                .element = ((piece.sample * target_[1] + row) * target_[2] + column) * target_[3] + first_column_ + c,
                .pixel_stride = lattice_.step * target_[3]};
    }

    SlabSource<T> source_;
    const Lattice& lattice_;
    Index first_channel_, first_column_, channels_, columns_, taps_;
    Shape target_;
    Epilogue<T>& epilogue_;
    std::size_t shape_;
    Index points_, width_;
    MultiplyTile<A> multiply_;
    Index chunk_, chunks_;
    Cut cut_;
    std::shared_ptr<const Tensor<A>> weights_;
};

/// Runs the products of all groups of a convolution, which differ in channels and weights alone: in parallel over
/// pieces, a group after the other at each.
template <class SomeProduct>
void run_products(PooledVector<SomeProduct>& products) {
    constexpr Index ranges = 64;  // of consecutive pieces, each taken by one thread at a time
    for (SomeProduct& product : products) product.reserve();
    const SomeProduct& any = products.front();
    typename SomeProduct::Workspace workspace(any);
    parallel_ranges(any.pieces(), quotient_up(any.pieces(), ranges), [&](Index first, Index last) {
        const auto memory = workspace.of(thread_index());
        for (Index p = first; p < last; ++p) {
            auto ahead = any.ask_for(std::min(p + 1, last - 1), p + 1 < last ? static_cast<Index>(products.size()) : 0);
            for (SomeProduct& product : products) product.run_piece(p, memory, ahead);
        }
        stream_fence();
    });
}

}  // namespace cpu

SD_NAMESPACE_END
