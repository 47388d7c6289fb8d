// The gradient by the weights (conv2d_by_weight.hpp), of pairs of bfloat16 on a tile machine. The depth are pixels, so x
// is turned over and pixels of dy are paired. Both lie in the places of the slab of pairs (pair_slab.hpp), with zeros in
// dy where no point is, so that a tap is an offset along the rows of x:
//
//     x     (block of 32 channels, channel, piece, place)                        rows; of a single tap
//           (block of 32 channels, piece, step of 32 places, channel, place)
//     dy    (panel of 32 channels, piece, step, half, pair, channel, part)        columns
//
//     small weights: for each span of pieces, in parallel:    for each round of pieces: pack them, add their products
//     large weights: for each round of pieces:                pack them in parallel, add their products in parallel
//
// A round is as many pieces as stay in the second-level cache, or of large weights as many as a buffer takes. Of a block of
// x some steps at a time meet all taps and all panels, so that they stay in the first-level cache.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/forward_side.hpp"
#include "sd/cpu/outer.hpp"
#include "sd/cpu/pair_panels.hpp"
#include "sd/cpu/pair_slab.hpp"
#include "sd/cpu/tile_machines.hpp"
#include "sd/cpu/transpose.hpp"

#include <algorithm>
#include <cstring>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Channels of a line and of the one behind it, paired.
[[nodiscard, gnu::always_inline]] inline Words pair_of_lines(const bfloat16* line) {
    HalfWords first, second;
    std::memcpy(&first, line, sizeof first);
    std::memcpy(&second, line + pair_lanes, sizeof second);
    return reinterpret_cast<Words>(widened(first)) >> 16 | reinterpret_cast<Words>(widened(second));
}

/// Pairs neighbouring pixels, `step` elements apart, of channels [first_channel, first_channel + channels) into steps of
/// columns, from pair `pair` of a run on; panels lie `panel` elements apart. An odd last pixel's partner is zero. Meanwhile
/// the pixels are asked for that lie `ahead` elements further.
template <class Source>
void pair_pixels(const Source& source, Index element, Index step, Index pixels, Index first_channel, Index channels,
                 Index ahead, Index panel, Index pair, bfloat16* target) {
    constexpr Index half = pair_lanes / 2;
    for_each_vector<bfloat16>(channels, [&](Index k, auto count) {
        const Index channel = first_channel + k;
        source.with_channels(channel, count, [&](const auto& value_at) {
            bfloat16* to = target + k / pair_lanes * panel + k % pair_lanes / half * (pair_step / 2) + k % half * 2;
            Index from = element + channel;
            for (Index i = 0; i < pixels; i += 2, from += 2 * step) {
                source.prefetch_line(from + ahead);
                source.prefetch_line(from + ahead + step);
                const Vector<bfloat16> second = i + 1 < pixels ? value_at(from + step) : Vector<bfloat16>{};
                const Words words = paired(value_at(from), second);
                const Index place = pair + i / 2;
                std::memcpy(static_cast<void*>(to + place / half * pair_step + place % half * pair_lanes), &words,
                            sizeof words);
            }
        });
    });
}

/// Turns 32 lines (line, channel) over: channel c of line p to rows[c row_stride + p].
inline void turn_lines(const bfloat16* lines, bfloat16* rows, Index row_stride) {
    constexpr Index words = lanes<float>;  // pairs of lines that are turned together
    for (Index first = 0; first < pair_lanes; first += 2 * words) {
        for (Index c = 0; c < pair_lanes; c += words) {
            Vector<float> square[words];
#pragma GCC unroll 16
            for (Index i = 0; i < words; ++i) {
                square[i] = reinterpret_cast<Vector<float>>(pair_of_lines(lines + (first + 2 * i) * pair_lanes + c));
            }
            transpose<float>(square);
#pragma GCC unroll 16
            for (Index i = 0; i < words; ++i) {
                std::memcpy(static_cast<void*>(rows + (c + i) * row_stride + first), &square[i], sizeof square[i]);
            }
        }
    }
}

/// What by-weight sums, one merged group at a time, as OuterProduct, on the machine that is in use when it is made.
template <class T>
class PairOuterProduct {
public:
    PairOuterProduct(const ForwardSide<T>& side, const PendingGradient<T>& dy)
        : side_(side),
          machine_(*tile_machine()),
          x_(side.x, side.x_view),
          dy_(dy),
          cut_(Cut::of(side.lattice, side.y_shape[0], lines_of_piece(std::max(side.depth, side.plan.out())),
                       pair_lanes)),
          pieces_(side.y_shape[0] * cut_.pieces_of_sample()),
          taps_(static_cast<Index>(side.lattice.taps.size())),
          blocks_(quotient_up(side.depth, pair_lanes)),
          panels_(quotient_up(side.plan.out(), pair_lanes)),
          sums_of_tap_(blocks_ * pair_step),
          spans_(OuterCut(panels_, taps_ * sums_of_tap_, pieces_)),
          panels_each_(taps_ == 1 ? panels_of_one_tap : panels_of_taps) {
        const PairSlab any = slab_of(whole_piece(0));
        piece_lines_ = with_room(any.lines());
        piece_steps_ = quotient_up(any.run(), pair_lanes);
        large_ = spans_.spans < least_spans;
        if (large_) spans_.spans = 1;
        if (large_) spans_.pieces_each = pieces_;
        const Index piece_bytes = (blocks_ * piece_lines_ + panels_ * piece_steps_ * pair_lanes) * 64;
        round_ = std::clamp<Index>((large_ ? large_round : small_round) / piece_bytes, 1, spans_.pieces_each);
        step_stride_ = taps_ == 1 ? pair_step : pair_lanes;
        row_stride_ = taps_ == 1 ? pair_lanes : odd_lines(round_ * piece_lines_);
        block_stride_ = taps_ == 1 ? round_ * piece_lines_ * pair_lanes : row_stride_ * pair_lanes;
    }

    /// Writes the gradients of a group's weights to where they stand.
    void run(Index group, Tensor<float>& dweight) const {
        Tensor<float> sums = Tensor<float>::empty({spans_.spans, panels_, taps_ * sums_of_tap_});
        const Index rounds = large_ ? 1 : num_threads();
        Tensor<bfloat16> x = Tensor<bfloat16>::empty({rounds, blocks_ * block_stride_});
        Tensor<bfloat16> dy = Tensor<bfloat16>::empty({rounds, panels_ * round_ * piece_steps_ * pair_step});
        Tensor<bfloat16> lines =
            Tensor<bfloat16>::empty({num_threads(), std::max(blocks_, panels_) * piece_lines_ * pair_lanes});
        Tensor<Index> offsets = Tensor<Index>::empty({num_threads(), round_ * piece_steps_ + taps_});
        const auto memory = [&](Index thread) {
            const Index round = large_ ? 0 : thread;
            return Memory{x.data() + round * x.extent(1), dy.data() + round * dy.extent(1),
                          lines.data() + thread * lines.extent(1), offsets.data() + thread * offsets.extent(1)};
        };
        if (large_) {
            for (Index first = 0; first < pieces_; first += round_) {
                const Index count = std::min(round_, pieces_ - first);
                parallel_for(count, [&](Index place) { pack(group, first + place, place, memory(thread_index())); });
                parallel_for(quotient_up(panels_, panels_each_) * blocks_, [&](Index task) {
                    multiply(count, task / blocks_ * panels_each_, task % blocks_, first > 0, memory(thread_index()),
                             sums.data());
                });
            }
        } else {
            parallel_for(spans_.spans, [&](Index span) {
                const Memory own = memory(thread_index());
                const Index begin = span * spans_.pieces_each;
                const Index end = std::min(pieces_, begin + spans_.pieces_each);
                for (Index first = begin; first < end; first += round_) {
                    const Index last = std::min(first + round_, end);
                    for (Index piece = first; piece < last; ++piece) pack(group, piece, piece - first, own);
                    for (Index panel = 0; panel < panels_; panel += panels_each_) {
                        for (Index block = 0; block < blocks_; ++block) {
                            multiply(last - first, panel, block, first > begin, own,
                                     sums.data() + span * sums.extent(1) * sums.extent(2));
                        }
                    }
                }
            });
        }
        add_spans(sums);
        unpack_panels(sums, side_.weights(group), pair_lanes, sums_of_tap_, dweight);
    }

private:
    /// Lines that stay in the second-level cache until they are turned over or paired.
    [[nodiscard]] static Index lines_of_piece(Index channels) {
        constexpr Index bytes = Index{256} << 10;
        return std::clamp<Index>(bytes / (64 * quotient_up(channels, pair_lanes)), 64, 512);
    }
    static constexpr Index small_round = Index{1} << 20;
    static constexpr Index large_round = Index{24} << 20;
    static constexpr Index least_spans = 8;
    /// Steps that meet all panels of a few, whose columns or sums stay in the second-level cache.
    static constexpr Index steps_of_one_tap = 16, panels_of_one_tap = 16;
    static constexpr Index steps_of_taps = 8, panels_of_taps = 4;

    /// What is packed: rows and columns of a round, lines of a block on their way there; a multiplication's offsets.
    struct Memory {
        bfloat16* x;
        bfloat16* dy;
        bfloat16* lines;
        Index* offsets;
    };

    /// The least odd number of lines of the cache: rows so far apart do not lie in one set of it.
    [[nodiscard]] static Index odd_lines(Index elements) {
        return (quotient_up(elements, pair_lanes) | 1) * pair_lanes;
    }
    /// Whole steps for so many lines; and with several taps for what the last step of a piece reads behind them by zeros
    /// of dy: what stands there has to be a number.
    [[nodiscard]] Index with_room(Index lines) const {
        return round_up(taps_ == 1 ? lines : lines + pair_lanes - 1, pair_lanes);
    }
    /// All pieces are of one size, so that taps have one offset: the last ones go on where dy has no points, and zeros.
    [[nodiscard]] Piece whole_piece(Index number) const {
        Piece piece = cut_.piece(side_.lattice, number);
        piece.rows = cut_.rows_each;
        piece.width = cut_.columns_each;
        return piece;
    }

    /// Rows begin at even places, so that no pair straddles two.
    [[nodiscard]] PairSlab slab_of(const Piece& piece) const { return {side_.lattice, {piece, 1}, 2}; }

    // Packs a piece, number `place` of its round.
    void pack(Index group, Index number, Index place, const Memory& memory) const {
        const Piece piece = whole_piece(number);
        const PairSlab slab = slab_of(piece);
        const Index plane = piece_lines_ * pair_lanes;
        slab.pack(x_, side_.plan.first_in(group), side_.depth, plane, memory.lines);
        for (Index block = 0; block < blocks_; ++block) {
            bfloat16* lines = memory.lines + block * plane;
            clear_lines(lines, slab.lines(), piece_lines_);
            bfloat16* rows = memory.x + block * block_stride_ + place * piece_lines_ / pair_lanes * step_stride_;
            for (Index line = 0; line < piece_lines_; line += pair_lanes) {
                turn_lines(lines + line * pair_lanes, rows + line / pair_lanes * step_stride_, row_stride_);
            }
        }
        pack_columns(group, piece, slab.pitch(), memory.dy + place * piece_steps_ * pair_step);
    }

    // Pairs the points' pixels of dy. Where a row has fewer than `pitch`, and behind the last row, are zeros.
    void pack_columns(Index group, const Piece& piece, Index pitch, bfloat16* columns) const {
        constexpr Index strip = 16;  // pixels
        const Index panel = round_ * piece_steps_ * pair_step;
        const Index first = side_.plan.first_out(group);
        const Index channels = side_.plan.out();
        const Index pixel = dy_.extents().channels;
        const bool gaps = pitch > piece.width || channels % pair_lanes != 0 || pitch * piece.rows % pair_lanes != 0 ||
                          piece.first_row + piece.rows > dy_.extents().height ||
                          piece.first_column + piece.width > dy_.extents().width;
        for (Index p = 0; gaps && p < panels_; ++p) {
            std::fill_n(columns + p * panel, piece_steps_ * pair_step, bfloat16(0.0F));
        }
        const Index rows = std::min(piece.rows, dy_.extents().height - piece.first_row);
        const Index width = std::min(piece.width, dy_.extents().width - piece.first_column);
        for (Index i = 0; i < rows; ++i) {
            const Index element = dy_.element(piece.sample, piece.first_row + i, piece.first_column);
            for (Index j = 0; j < width; j += strip) {
                pair_pixels(dy_, element + j * pixel, pixel, std::min(strip, width - j), first, channels, strip * pixel,
                            panel, (i * pitch + j) / 2, columns);
            }
        }
    }

    static void clear_lines(bfloat16* lines, Index first, Index last) {
        std::fill(lines + first * pair_lanes, lines + last * pair_lanes, bfloat16(0.0F));
    }

    // Adds what a round of so many pieces has to one block of x and panels from `first_panel` on.
    void multiply(Index pieces, Index first_panel, Index block, bool accumulate, const Memory& memory,
                  float* sums) const {
        const Index steps = pieces * piece_steps_;
        const Index steps_each = taps_ == 1 ? steps_of_one_tap : steps_of_taps;
        const Index last_panel = std::min(panels_, first_panel + panels_each_);
        Index* tap_offsets = memory.offsets + round_ * piece_steps_;
        for (Index step = 0; step < steps; ++step) {
            const Index place = step / piece_steps_ * piece_lines_ + step % piece_steps_ * pair_lanes;
            memory.offsets[step] = place / pair_lanes * step_stride_;
        }
        slab_of(whole_piece(0)).tap_offsets(1, tap_offsets);
        PairOperands operands{.rows = nullptr,
                              .row_stride = row_stride_,
                              .plane = 0,
                              .blocks = 1,
                              .offsets = nullptr,
                              .offset_count = 0,
                              .columns = nullptr};
        machine_.begin();
        for (Index step = 0; step < steps; step += steps_each) {
            operands.offsets = memory.offsets + step;
            operands.offset_count = std::min(steps_each, steps - step);
            for (Index panel = first_panel; panel < last_panel; ++panel) {
                operands.columns = memory.dy + (panel * round_ * piece_steps_ + step) * pair_step;
                for (Index tap = 0; tap < taps_; ++tap) {
                    operands.rows = memory.x + block * block_stride_ + tap_offsets[tap];
                    machine_.multiply(operands, sums + (panel * taps_ + tap) * sums_of_tap_ + block * pair_step,
                                      accumulate || step > 0);
                }
            }
        }
        machine_.end();
    }

    const ForwardSide<T>& side_;
    const TileMachine& machine_;
    PendingSource<T> x_;
    GradientSource<T> dy_;
    Cut cut_;
    Index pieces_, taps_, blocks_, panels_, sums_of_tap_;
    OuterCut spans_;
    Index panels_each_;  ///< that one multiplication goes through
    Index piece_lines_ = 0, piece_steps_ = 0, round_ = 1;
    Index step_stride_ = 0, row_stride_ = 0, block_stride_ = 0;  ///< elements of x
    bool large_ = false;
};

}  // namespace cpu

SD_NAMESPACE_END
