// How the points of a lattice are cut into pieces of work, and the slab that each reads.
#pragma once

#include "sd/cpu/lattice.hpp"
#include "sd/cpu/slab.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Slab rows and columns between neighbouring points: those of the lattice, but a single tap's pixels are packed side
/// by side.
[[nodiscard]] inline Index slab_row_step(const Lattice& lattice) {
    return lattice.taps.size() == 1 ? 1 : lattice.row_step;
}
[[nodiscard]] inline Index slab_column_step(const Lattice& lattice) {
    return lattice.taps.size() == 1 ? 1 : lattice.column_step;
}

/// Some points of a lattice in one sample, and the slab that they read.
struct Piece {
    Index sample, first_row, first_column, rows, width;

    [[nodiscard]] SlabShape slab(const Lattice& lattice, Index first_channel, Index channels) const {
        const bool one_tap = lattice.taps.size() == 1;
        return {.sample = sample,
                .first_row = first_row * lattice.row_step + lattice.first_row(),
                .row_step = one_tap ? lattice.row_step : 1,
                .rows = (rows - 1) * slab_row_step(lattice) + 1 + lattice.last_row() - lattice.first_row(),
                .first_column = first_column * lattice.column_step + lattice.first_column(),
                .column_step = one_tap ? lattice.column_step : 1,
                .columns = (width - 1) * slab_column_step(lattice) + 1 + lattice.last_column() - lattice.first_column(),
                .first_channel = first_channel,
                .channels = channels};
    }
};

/// Writes the elements from a point's place in a slab of `columns` columns to what each tap reads.
inline void tap_offsets(const Lattice& lattice, Index columns, Index lanes, Index* offsets) {
    for (const Tap& tap : lattice.taps) {
        const Index row = tap.row_offset - lattice.first_row();
        const Index column = tap.column_offset - lattice.first_column();
        *offsets++ = (row * columns + column) * lanes;
    }
}

/// Pixels of a slab of so many channels that stays in the second-level cache beside a panel's weights.
template <class T>
[[nodiscard]] Index slab_pixels(Index channels) {
    constexpr Index elements = Index{192} * 1024 / static_cast<Index>(sizeof(T));
    return std::max<Index>(elements / round_up(std::max<Index>(channels, 1), lanes<T>), 1);
}

/// How the points of a lattice are cut into pieces, by the problem's size alone.
struct Cut {
    static constexpr Index least_pieces = 16;  ///< if there are as many rows

    Index rows_each, row_pieces, columns_each, column_pieces;

    /// Slabs of about `pixels` pixels at most; pieces of a row are multiples of `points`.
    static Cut of(const Lattice& lattice, Index samples, Index pixels, Index points) {
        const Index row_step = slab_row_step(lattice);
        const Index column_step = slab_column_step(lattice);
        const Index halo_rows = lattice.last_row() - lattice.first_row();
        const Index halo_columns = lattice.last_column() - lattice.first_column();
        // Whole rows if a few of them fit, else pieces of one row.
        const Index whole = (lattice.width - 1) * column_step + 1 + halo_columns;
        Cut cut{1, 1, lattice.width, 1};
        if (whole * (halo_rows + row_step) <= pixels) {
            const Index most = (pixels / whole - halo_rows - 1) / row_step + 1;
            const Index tasks = std::max(quotient_up(lattice.height, most), quotient_up(least_pieces, samples));
            cut.rows_each = quotient_up(lattice.height, std::min(tasks, lattice.height));
            cut.row_pieces = quotient_up(lattice.height, cut.rows_each);
        } else {
            // All pieces together a multiple of 8, or near it: few threads then finish together.
            const Index most = std::max(points, (pixels / (halo_rows + 1) - halo_columns) / column_step);
            const Index multiple = quotient_up(8, samples * lattice.height);
            const Index tasks =
                std::max<Index>(1, (lattice.width + most * multiple / 2) / (most * multiple)) * multiple;
            cut.columns_each = std::min(lattice.width, round_up(quotient_up(lattice.width, tasks), points));
            cut.column_pieces = quotient_up(lattice.width, cut.columns_each);
            cut.row_pieces = lattice.height;
        }
        return cut;
    }

    [[nodiscard]] Index pieces_of_sample() const { return row_pieces * column_pieces; }
    [[nodiscard]] Piece piece(const Lattice& lattice, Index number) const {
        const Index i = number / column_pieces % row_pieces * rows_each;
        const Index j = number % column_pieces * columns_each;
        return {number / pieces_of_sample(), i, j, std::min(rows_each, lattice.height - i),
                std::min(columns_each, lattice.width - j)};
    }
};

}  // namespace cpu

SD_NAMESPACE_END
