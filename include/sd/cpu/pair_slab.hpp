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
#include "sd/cpu/slab.hpp"
#include "sd/cpu/tile_machine.hpp"

#include <algorithm>
#include <cstring>

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

/// Packs some pixels that lie `step` elements apart, of channels [first_channel, first_channel + channels), into lines
/// of as many blocks, `plane` elements apart; lanes beyond the last channel are zero. Meanwhile the pixels are asked for
/// that lie `ahead` elements further.
template <class Source>
void pack_pixels(const Source& source, Index element, Index step, Index pixels, Index first_channel, Index channels,
                 Index ahead, Index plane, bfloat16* target) {
    constexpr Index lane_count = lanes<bfloat16>;
    constexpr Index together = 2 * lane_count;  // channels
    const auto place = [&](Index k) { return target + k / pair_lanes * plane + k % pair_lanes; };
    Index k = 0;
    for (; k + together <= channels; k += together) {
        const Index channel = first_channel + k;
        source.with_channels(channel, constant<lane_count>, [&](const auto& first_at) {
            source.with_channels(channel + lane_count, constant<lane_count>, [&](const auto& second_at) {
                bfloat16* to = place(k);
                Index from = element + channel;
                for (Index i = 0; i < pixels; ++i, from += step, to += pair_lanes) {
                    source.prefetch_line(from + ahead);
                    const Vector<bfloat16> values[2] = {first_at(from), second_at(from + lane_count)};
                    store_vectors<bfloat16>(values, to);
                }
            });
        });
    }
    for_each_vector<bfloat16>(channels - k, [&](Index rest, auto count) {
        const Index channel = first_channel + k + rest;
        source.with_channels(channel, count, [&](const auto& value_at) {
            bfloat16* to = place(k + rest);
            for (Index i = 0; i < pixels; ++i) {
                store<bfloat16>(value_at(element + channel + i * step), to + i * pair_lanes);
            }
        });
    });
    for (k = round_up(channels, lane_count); k < round_up(channels, pair_lanes); k += lane_count) {
        for (Index i = 0; i < pixels; ++i) store<bfloat16>(Vector<bfloat16>{}, place(k) + i * pair_lanes);
    }
}

/// Fills the lines that SlabShape says, in blocks `plane` elements apart. All channels of a few pixels are packed, then those of the next few: memory is read nearly in its order.
template <class Source>
void pack_lines(const Source& source, const SlabShape& slab, Index plane, bfloat16* target) {
    constexpr Index strip = 16;  // pixels
    const Index height = source.extents().height;
    const Index width = source.extents().width;
    // The columns [before, after) of the slab lie in the image.
    const Index before = std::clamp<Index>(quotient_up(-slab.first_column, slab.column_step), 0, slab.columns);
    const Index after =
        std::clamp<Index>(quotient_up(width - slab.first_column, slab.column_step), before, slab.columns);
    const Index step = source.element(0, 0, slab.column_step);
    const Index blocks = quotient_up(slab.channels, pair_lanes);
    for (Index r = 0; r < slab.rows; ++r, target += slab.columns * pair_lanes) {
        const Index row = slab.first_row + r * slab.row_step;
        const bool inside = row >= 0 && row < height;
        const Index first = inside ? before : slab.columns;
        const Index last = inside ? after : slab.columns;
        for (Index b = 0; b < blocks; ++b) {
            std::memset(static_cast<void*>(target + b * plane), 0, static_cast<std::size_t>(first) * 64);
            std::memset(static_cast<void*>(target + b * plane + last * pair_lanes), 0,
                        static_cast<std::size_t>(slab.columns - last) * 64);
        }
        for (Index c = first; c < last; c += strip) {
            const Index element = source.element(slab.sample, row, slab.first_column + c * slab.column_step);
            pack_pixels(source, element, step, std::min(strip, last - c), slab.first_channel, slab.channels,
                        strip * step, plane, target + c * pair_lanes);
        }
    }
}

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
    template <class Source>
    void pack(const Source& source, Index first_channel, Index channels, Index plane, bfloat16* target) const {
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
                    pack_lines(source, phase, plane, target);
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
