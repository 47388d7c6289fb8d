// The slab that products of pairs read, of bfloat16. Its rows lie as far apart as neighbouring points' pixels allow, so
// that all points of a sample are one run of lines, a few of them between the rows without a point:
//
//     slab   (block of 32 channels, sample, phase, row, column, channel of the block)      a pixel of a block: 64 bytes
//     point (i, j) of a sample reads for each tap the line  place of the tap + i pitch + j
//
// With a stride neighbouring points read every other pixel. Pixels are sorted by their phase, row and column modulo the
// stride, so that those are neighbours too:
//
//     column  0 1 2 3 4 5 6     stride 2:   phase 0   0 2 4 6     phase 1   1 3 5 .
#pragma once

#include "sd/cpu/cut.hpp"
#include "sd/cpu/slab_source.hpp"
#include "sd/cpu/tile_machine.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Points of one or more samples: of several only if they are all points of each.
struct PairPiece {
    Piece points;  ///< of the first sample
    Index samples;
};

/// How points are cut into such pieces, by the problem's size alone.
class PairCut {
public:
    /// Pieces that read about `pixels` pixels at most, and `least_pieces` of them if there are as many samples.
    PairCut(const Lattice& lattice, Index samples, Index pixels, Index least_pieces)
        : PairCut(lattice, samples, std::min(pixels, quotient_up(samples * image_pixels(lattice), least_pieces))) {}

    [[nodiscard]] Index pieces() const { return quotient_up(samples_, samples_each_) * cut_.pieces_of_sample(); }
    [[nodiscard]] PairPiece piece(Index number) const {
        Piece points = cut_.piece(lattice_, number);
        points.sample *= samples_each_;
        return {points, std::min(samples_each_, samples_ - points.sample)};
    }
    /// One that is as large as any.
    [[nodiscard]] PairPiece largest() const {
        return {{0, 0, 0, cut_.rows_each, cut_.columns_each}, std::min(samples_each_, samples_)};
    }

private:
    PairCut(const Lattice& lattice, Index samples, Index pixels)
        : lattice_(lattice),
          cut_(Cut::of(lattice, samples, pixels, pair_lanes)),
          samples_(samples),
          samples_each_(cut_.pieces_of_sample() > 1 ? 1
                                                    : std::clamp<Index>(pixels / image_pixels(lattice), 1, samples)) {}

    /// Pixels that the points of a sample read, about.
    [[nodiscard]] static Index image_pixels(const Lattice& lattice) {
        return lattice.height * lattice.width * lattice.row_step * lattice.column_step;
    }

    const Lattice& lattice_;
    Cut cut_;
    Index samples_, samples_each_;
};

/// The slab of a piece.
class PairSlab {
public:
    PairSlab(const Lattice& lattice, const PairPiece& piece)
        : lattice_(lattice),
          pixels_(piece.points.slab(lattice, 0, 0)),
          samples_(piece.samples),
          row_phases_(slab_row_step(lattice)),
          column_phases_(slab_column_step(lattice)),
          rows_(quotient_up(pixels_.rows, row_phases_)),
          pitch_(quotient_up(pixels_.columns, column_phases_)),
          run_((piece.points.rows - 1) * pitch_ + piece.points.width) {}

    /// Lines from a row of points to the next.
    [[nodiscard]] Index pitch() const { return pitch_; }
    /// Lines from a sample's first point to behind its last one.
    [[nodiscard]] Index run() const { return run_; }
    /// Lines of a sample, and of a block.
    [[nodiscard]] Index sample_lines() const { return row_phases_ * column_phases_ * rows_ * pitch_; }
    [[nodiscard]] Index lines() const { return samples_ * sample_lines(); }

    /// Writes the lines from a point's place to what each tap reads, times `line`.
    void tap_offsets(Index line, Index* offsets) const {
        for (const Tap& tap : lattice_.taps) {
            const Index row = tap.row_offset - lattice_.first_row();
            const Index column = tap.column_offset - lattice_.first_column();
            const Index phase = row % row_phases_ * column_phases_ + column % column_phases_;
            *offsets++ = ((phase * rows_ + row / row_phases_) * pitch_ + column / column_phases_) * line;
        }
    }

    /// Packs channels [first_channel, first_channel + channels) into blocks that lie `plane` elements apart.
    void pack(const SlabSource<bfloat16>& source, Index first_channel, Index channels, Index plane,
              bfloat16* target) const {
        for (Index sample = 0; sample < samples_; ++sample) {
            for (Index row = 0; row < row_phases_; ++row) {
                for (Index column = 0; column < column_phases_; ++column, target += rows_ * pitch_ * pair_lanes) {
                    const SlabShape phase{.sample = pixels_.sample + sample,
                                          .first_row = pixels_.first_row + row,
                                          .row_step = pixels_.row_step * row_phases_,
                                          .rows = rows_,
                                          .first_column = pixels_.first_column + column,
                                          .column_step = pixels_.column_step * column_phases_,
                                          .columns = pitch_,
                                          .first_channel = first_channel,
                                          .channels = channels};
                    source.pack_lines(phase, plane, target);
                }
            }
        }
    }

private:
    const Lattice& lattice_;
    SlabShape pixels_;
    Index samples_, row_phases_, column_phases_, rows_, pitch_, run_;
};

}  // namespace cpu

SD_NAMESPACE_END
