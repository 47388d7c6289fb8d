// The product that forward and by-input share (product.hpp), of pairs of bfloat16 on a tile machine:
//
//     for each piece (a sample or several, or some rows of one), for each group:     in parallel over pieces
//         pack the slab that the points read                                         second-level cache, once
//         for each tile of 32 points of a sample's run, for each panel of 32 columns:
//             sums = over blocks of channels and taps                                tile registers
//             the epilogue takes the sums, a row of points after the other
//
// That is if the weights stay in the second-level cache. Larger ones are read but once for a piece:
//
//         for each panel, for each chunk of the depth, whose weights stay in the first-level cache:
//             for each tile:
//                 sums [+]= over blocks of the chunk and taps
//                 after the last chunk: the epilogue takes the sums
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/epilogue.hpp"
#include "sd/cpu/pair_panels.hpp"
#include "sd/cpu/pair_slab.hpp"
#include "sd/cpu/product.hpp"
#include "sd/cpu/tile_machines.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Writes the points of a lattice, T being bfloat16, as Product, on the machine that is in use when it is made.
template <class T>
class PairProduct {
public:
    PairProduct(const SlabSource<T>& source, const Lattice& lattice, Index first_channel, Index first_column,
                const PanelSource<float>& panels, const WeightMap& map, const Shape& target, Epilogue<T>& epilogue)
        : source_(source),
          lattice_(lattice),
          machine_(*tile_machine()),
          first_channel_(first_channel),
          first_column_(first_column),
          channels_(lattice.taps.empty() ? 0 : map.depth_count()),  // nothing to read: the points are zero
          columns_(map.column_count()),
          taps_(std::max<Index>(1, map.tap_count())),
          blocks_(quotient_up(channels_, pair_lanes)),
          weights_stay_(blocks_ * taps_ * quotient_up(columns_, pair_lanes) * step_bytes <= machine_.cache_bytes / 4),
          target_(target),
          epilogue_(epilogue),
          cut_(lattice, source.extents().samples,
               std::min(slab_bytes() / (64 * std::max<Index>(1, blocks_)),
                        shared_pixels<T>(source.extents().channels, channels_, target[3])),
               weights_stay_ ? 8 : 4),
          chunk_(weights_stay_ ? blocks_
                               : std::clamp<Index>(chunk_bytes / (taps_ * step_bytes), 1, std::max<Index>(1, blocks_))),
          weights_(panels.template panels<Tensor<T>>(
              map, pair_lanes, [&] { return pack_pair_panels(panels.weight(), map, panels.factors()); })) {}

    /// Of the batch.
    [[nodiscard]] Index pieces() const { return cut_.pieces(); }
    /// To be called before any piece.
    void reserve() { epilogue_.reserve(pieces()); }

    /// A thread's own.
    struct Memory {
        T* slab;
        float* sums;
        Index* tap_offsets;   ///< of the slab's lines
        Index* step_offsets;  ///< of the panel's steps
    };
    /// The memory of all threads, for any product of the same extents.
    class Workspace {
    public:
        explicit Workspace(const PairProduct& product)
            : slabs_(Tensor<T>::empty({num_threads(), product.slab_size()})),
              sums_(Tensor<float>::empty({num_threads(), product.sums_size()})),
              offsets_(Tensor<Index>::empty({num_threads(), 2 * product.taps_})) {}
        [[nodiscard]] Memory of(Index thread) {
            return {slabs_.data() + thread * slabs_.extent(1), sums_.data() + thread * sums_.extent(1),
                    offsets_.data() + thread * offsets_.extent(1),
                    offsets_.data() + thread * offsets_.extent(1) + offsets_.extent(1) / 2};
        }

    private:
        Tensor<T> slabs_;
        Tensor<float> sums_;
        Tensor<Index> offsets_;
    };

    /// Nothing: what is packed is asked for as it is packed.
    struct Ahead {};
    [[nodiscard]] Ahead ask_for(Index, Index) const { return {}; }

    /// Writes the points of a piece.
    void run_piece(Index number, const Memory& memory, Ahead) {
        const PairPiece piece = cut_.piece(number);
        const PairSlab slab(lattice_, piece);
        const Index plane = plane_of(slab);
        slab.pack(source_, first_channel_, channels_, plane, memory.slab);
        slab.tap_offsets(pair_lanes, memory.tap_offsets);
        for (Index tap = 0; tap < taps_; ++tap) memory.step_offsets[tap] = tap * pair_step;
        const auto ask_for = [&](const TileResult<float>& row) { epilogue_.ask_for(row); };
        const auto add = [&](const TileResult<float>& row) { epilogue_.add(number, row); };
        machine_.begin();
        if (weights_stay_) {
            for_each_tile(piece, slab, [&](const Tile& tile) {
                const Tile next{tile.sample, tile.first + pair_lanes};
                for (Index c = 0; c < columns_; c += pair_lanes) {
                    for_each_row(piece, slab, next, c, memory.sums, ask_for);
                    multiply(memory, slab, tile, c, 0, memory.sums);
                    for_each_row(piece, slab, tile, c, memory.sums, add);
                }
            });
        } else {
            for (Index c = 0; c < columns_; c += pair_lanes) {
                for (Index chunk = 0; chunk < chunks(); ++chunk) {
                    float* sums = memory.sums;
                    for_each_tile(piece, slab, [&](const Tile& tile) {
                        const bool finished = chunk + 1 == chunks();
                        if (finished) for_each_row(piece, slab, tile, c, sums, ask_for);
                        multiply(memory, slab, tile, c, chunk, sums);
                        if (finished) for_each_row(piece, slab, tile, c, sums, add);
                        sums += pair_step;
                    });
                }
            }
        }
        machine_.end();
    }

private:
    static constexpr Index step_bytes = pair_step * static_cast<Index>(sizeof(T));
    static constexpr Index chunk_bytes = Index{36} << 10;  // of a panel stay in the first-level cache, nearly

    /// Of a slab that stays in the second-level cache; larger weights are the seldomer read the larger it is.
    [[nodiscard]] Index slab_bytes() const {
        return weights_stay_ ? machine_.cache_bytes / 5 : machine_.cache_bytes / 2;
    }

    [[nodiscard]] Index chunks() const { return std::max<Index>(1, quotient_up(blocks_, chunk_)); }
    [[nodiscard]] static Index plane_of(const PairSlab& slab) { return spread_stride<T>(slab.lines() * pair_lanes); }
    /// With room for a tile that begins at the last line.
    [[nodiscard]] Index slab_size() const {
        return blocks_ * plane_of(PairSlab(lattice_, cut_.largest())) + pair_lanes * pair_lanes;
    }
    [[nodiscard]] Index tiles_of(const PairPiece& piece) const {
        return piece.samples * quotient_up(PairSlab(lattice_, piece).run(), pair_lanes);
    }
    /// Of one tile, or of all of a panel that wait for the next chunk.
    [[nodiscard]] Index sums_size() const { return (weights_stay_ ? 1 : tiles_of(cut_.largest())) * pair_step; }

    /// 32 points of a sample's run from place `first` on.
    struct Tile {
        Index sample, first;
    };
    template <class Use>
    static void for_each_tile(const PairPiece& piece, const PairSlab& slab, const Use& use) {
        for (Index sample = 0; sample < piece.samples; ++sample) {
            for (Index first = 0; first < slab.run(); first += pair_lanes) use(Tile{sample, first});
        }
    }

    // Multiplies a tile's points by the panel that begins with column c, over a chunk of the depth.
    void multiply(const Memory& memory, const PairSlab& slab, const Tile& tile, Index c, Index chunk,
                  float* sums) const {
        const Index block = chunk * chunk_;
        const Index plane = plane_of(slab);
        const Index line = tile.sample * slab.sample_lines() + tile.first;
        machine_.multiply(
            {.rows = {memory.slab + block * plane + line * pair_lanes, plane, memory.tap_offsets, pair_lanes},
             .columns = {weights_->data() + c / pair_lanes * weights_->extent(1) + block * taps_ * pair_step,
                         taps_ * pair_step, memory.step_offsets, pair_step / 2},
             .blocks = std::min(chunk_, blocks_ - block),
             .offset_count = taps_},
            sums, chunk > 0);
    }

    // Calls use(result) for each row of points of a tile.
    template <class Use>
    void for_each_row(const PairPiece& piece, const PairSlab& slab, const Tile& tile, Index c, const float* sums,
                      const Use& use) const {
        const Index last = std::min(tile.first + pair_lanes, slab.run());
        for (Index place = tile.first; place < last;) {
            const Index i = place / slab.pitch();
            const Index j = place % slab.pitch();
            const Index points = std::min(last - place, piece.points.width - j);
            if (points > 0) {
                const Index sample = piece.points.sample + tile.sample;
                const Index row = lattice_.row + (piece.points.first_row + i) * lattice_.step;
                const Index column = lattice_.column + (piece.points.first_column + j) * lattice_.step;
                use({.sums = sums + (place - tile.first) * pair_lanes,
                     .width = pair_lanes,
                     .points = points,
                     .columns = std::min(pair_lanes, columns_ - c),
                     .column = c,
                     .element = ((sample * target_[1] + row) * target_[2] + column) * target_[3] + first_column_ + c,
                     .pixel_stride = lattice_.step * target_[3]});
            }
            place += slab.pitch() - j;
        }
    }

    SlabSource<T> source_;
    const Lattice& lattice_;
    const TileMachine& machine_;
    Index first_channel_, first_column_, channels_, columns_, taps_, blocks_;
    bool weights_stay_;  ///< in the second-level cache beside a slab
    Shape target_;
    Epilogue<T>& epilogue_;
    PairCut cut_;
    Index chunk_;  ///< blocks of the depth
    std::shared_ptr<const Tensor<T>> weights_;
};

}  // namespace cpu

SD_NAMESPACE_END
