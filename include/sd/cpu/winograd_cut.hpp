// Which convolutions go by Winograd's tiles, and how their points fall into tiles and pieces of work.
#pragma once

#include "sd/cpu/lattice.hpp"
#include "sd/cpu/slab.hpp"
#include "sd/cpu/weights.hpp"
#include "sd/cpu/winograd.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// How the points of a lattice fall into tiles of m x m, and rows of tiles into pieces.
template <Index m>
struct WinogradCut {
    Index tile_rows, tile_columns, rows_each, pieces_of_sample;

    /// Pieces of about `tiles` tiles.
    static WinogradCut of(const Lattice& lattice, Index tiles) {
        WinogradCut cut{quotient_up(lattice.height, m), quotient_up(lattice.width, m), 1, 1};
        const Index most = std::clamp<Index>(tiles / cut.tile_columns, 1, cut.tile_rows);
        cut.pieces_of_sample = quotient_up(cut.tile_rows, most);
        cut.rows_each = quotient_up(cut.tile_rows, cut.pieces_of_sample);
        cut.pieces_of_sample = quotient_up(cut.tile_rows, cut.rows_each);
        return cut;
    }
    [[nodiscard]] Index rows(Index first_row) const { return std::min(rows_each, tile_rows - first_row); }

    /// The pixels that `rows` rows of tiles read.
    [[nodiscard]] SlabShape slab(const Lattice& lattice, Index sample, Index first_row, Index rows, Index first_channel,
                                 Index channels) const {
        return {.sample = sample,
                .first_row = lattice.first_row() + m * first_row,
                .rows = m * rows + 2,
                .first_column = lattice.first_column(),
                .columns = m * tile_columns + 2,
                .first_channel = first_channel,
                .channels = channels};
    }
};

/// Channels on both sides from which on Winograd's tiles were seen to be quicker, writing pixels and writing weights.
inline constexpr Index least_winograd_channels = 8;
inline constexpr Index least_winograd_channels_by_weight = vector_bytes == 64 ? 8 : 24;

/// Whether the points of a lattice can be computed by Winograd's tiles, and are sooner so.
[[nodiscard]] inline bool suits_winograd(const Lattice& lattice, const WeightMap& map, Index least_channels) {
    return lattice.taps.size() == 9 && lattice.step == 1 && lattice.row_step == 1 && lattice.column_step == 1 &&
           lattice.last_row() - lattice.first_row() == 2 && lattice.last_column() - lattice.first_column() == 2 &&
           map.depth_count() >= least_channels && map.column_count() >= least_channels && lattice.height > 1 &&
           lattice.width > 1;
}

/// The taps of a 3x3 lattice, sorted by the pixels that they read.
[[nodiscard]] inline Lattice sorted_by_offset(Lattice lattice) {
    std::sort(lattice.taps.begin(), lattice.taps.end(), [](const Tap& a, const Tap& b) {
        return a.row_offset != b.row_offset ? a.row_offset < b.row_offset : a.column_offset < b.column_offset;
    });
    return lattice;
}

}  // namespace cpu

SD_NAMESPACE_END
