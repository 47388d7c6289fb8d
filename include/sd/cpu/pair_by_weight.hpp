// The gradient by the weights (conv2d_by_weight.hpp), of pairs of bfloat16 on a tile machine. The depth are pixels, so dy
// is turned over and pixels of x are paired. Both lie in the places of the slab of pairs (pair_slab.hpp), with zeros in dy
// where no point is, so that a tap is an offset of x. Pairs begin at even places; for taps that read odd ones x is paired
// once more, from the second place on:
//
//     dy    (block of 32 channels, piece, step of 32 places, channel, place)          rows
//     x     (panel of 32 channels, parity, half, piece, pair of places, channel, part)  columns
//
//     small weights: for each span of pieces, in parallel:    for each round of pieces: pack them, add their products
//     large weights: for each round of pieces:                pack them in parallel, add their products in parallel
//
// A round is as many pieces as stay in the second-level cache, or of large weights as many as a buffer takes. Of a block of
// dy some steps at a time meet all taps and some panels, so that they stay in the first-level cache.
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
#include <utility>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Channels of a line and of the one behind it, paired.
[[nodiscard, gnu::always_inline]] inline Words pair_of_lines(const bfloat16* line) {
    HalfWords first, second;
    std::memcpy(&first, line, sizeof first);
    std::memcpy(&second, line + pair_lanes, sizeof second);
    return reinterpret_cast<Words>(widened(first)) >> 16 | reinterpret_cast<Words>(widened(second));
}

/// Pairs 2 `pairs` lines (line, channel): (half, pair, channel of the half, part), halves `half_stride` elements apart.
inline void pair_lines(const bfloat16* lines, Index pairs, Index half_stride, bfloat16* columns) {
    constexpr Index half = pair_lanes / 2;
    for (Index pair = 0; pair < pairs; ++pair, lines += 2 * pair_lanes, columns += pair_lanes) {
        for (Index c = 0; c < pair_lanes; c += lanes<float>) {
            const Words words = pair_of_lines(lines + c);
            std::memcpy(static_cast<void*>(columns + c / half * half_stride + c % half * 2), &words, sizeof words);
        }
    }
}

/// Turns 32 lines (line, channel) over: (channel, line).
inline void turn_lines(const bfloat16* lines, bfloat16* rows) {
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
                std::memcpy(static_cast<void*>(rows + (c + i) * pair_lanes + first), &square[i], sizeof square[i]);
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
          taps_(static_cast<Index>(side.lattice.taps.size())),
          parities_(taps_ == 1 ? 1 : 2),
          blocks_(quotient_up(side.plan.out(), pair_lanes)),
          panels_(quotient_up(side.depth, pair_lanes)),
          sums_of_tap_(blocks_ * pair_step),
          cut_(Cut::of(side.lattice, side.y_shape[0], lines_of_piece(), pair_lanes)),
          pieces_(side.y_shape[0] * cut_.pieces_of_sample()),
          lines_(with_room(slab_of(whole_piece(0)).lines())),
          steps_(quotient_up(slab_of(whole_piece(0)).run(), pair_lanes)),
          spans_(OuterCut(panels_, taps_ * sums_of_tap_, pieces_).spans),
          large_(spans_ < least_spans) {
        if (large_) spans_ = 1;
        span_pieces_ = quotient_up(pieces_, spans_);
        spans_ = quotient_up(pieces_, span_pieces_);
        const Index piece_bytes = 64 * (parities_ * panels_ * lines_ + blocks_ * steps_ * pair_lanes);
        round_ = std::clamp<Index>((large_ ? 12 * machine_.cache_bytes : machine_.cache_bytes / 2) / piece_bytes, 1,
                                   span_pieces_);
        panels_each_ = std::clamp<Index>(machine_.cache_bytes / 4 / (64 * parities_ * round_ * lines_), 1,
                                         taps_ == 1 ? panels_ : panels_of_taps);
    }

    /// Writes the gradients of a group's weights to where they stand.
    void run(Index group, Tensor<float>& dweight) const {
        Tensor<float> sums = Tensor<float>::empty({spans_, panels_, taps_ * sums_of_tap_});
        const Index rounds = large_ ? 1 : num_threads();
        Tensor<bfloat16> rows = Tensor<bfloat16>::empty({rounds, blocks_ * round_ * steps_ * pair_step});
        Tensor<bfloat16> columns = Tensor<bfloat16>::empty({rounds, panels_ * parities_ * 2 * half_stride()});
        Tensor<bfloat16> lines =
            Tensor<bfloat16>::empty({num_threads(), std::max(blocks_, panels_) * (lines_ + 1) * pair_lanes});
        Tensor<Index> offsets = Tensor<Index>::empty({num_threads(), 2 * round_ * steps_ + taps_});
        const auto memory = [&](Index thread) {
            const Index round = large_ ? 0 : thread;
            return Memory{rows.data() + round * rows.extent(1), columns.data() + round * columns.extent(1),
                          lines.data() + thread * lines.extent(1), offsets.data() + thread * offsets.extent(1)};
        };
        const Index groups = quotient_up(panels_, panels_each_);
        if (large_) {
            for (Index first = 0; first < pieces_; first += round_) {
                const Index count = std::min(round_, pieces_ - first);
                parallel_for(count, [&](Index place) { pack(group, first + place, place, memory(thread_index())); });
                parallel_for(groups * blocks_, [&](Index task) {
                    multiply(count, task / blocks_ * panels_each_, task % blocks_, first > 0, memory(thread_index()),
                             sums.data());
                });
            }
        } else {
            parallel_for(spans_, [&](Index span) {
                const Memory own = memory(thread_index());
                const Index begin = span * span_pieces_;
                const Index end = std::min(pieces_, begin + span_pieces_);
                for (Index first = begin; first < end; first += round_) {
                    const Index last = std::min(first + round_, end);
                    for (Index piece = first; piece < last; ++piece) pack(group, piece, piece - first, own);
                    for (Index task = 0; task < groups * blocks_; ++task) {
                        multiply(last - first, task / blocks_ * panels_each_, task % blocks_, first > begin, own,
                                 sums.data() + span * sums.extent(1) * sums.extent(2));
                    }
                }
            });
        }
        add_spans(sums);
        WeightMap map = side_.weights(group);
        std::swap(map.depth, map.columns);
        unpack_panels(sums, map, pair_lanes, sums_of_tap_, dweight);
    }

private:
    static constexpr Index least_spans = 8;
    static constexpr Index panels_of_taps = 4;  // whose sums stay in the second-level cache
    static constexpr Index steps_of_one_tap = 16, steps_of_taps = 8;

    /// What is packed: rows and columns of a round, lines of a piece on their way there; a multiplication's offsets.
    struct Memory {
        bfloat16* rows;
        bfloat16* columns;
        bfloat16* lines;
        Index* offsets;
    };

    /// Lines that stay in the second-level cache until they are turned over or paired.
    [[nodiscard]] Index lines_of_piece() const {
        return std::clamp<Index>(machine_.cache_bytes / 8 / (64 * std::max(blocks_, panels_)), 64, 512);
    }
    /// Whole steps for so many lines; and with several taps for what the last step of a piece reads behind them by zeros
    /// of dy: what stands there has to be a number.
    [[nodiscard]] Index with_room(Index lines) const {
        return round_up(taps_ == 1 ? lines : lines + pair_lanes - 1, pair_lanes);
    }
    /// Elements between the halves of columns.
    [[nodiscard]] Index half_stride() const { return round_ * lines_ / 2 * pair_lanes; }

    /// All pieces are of one size, so that taps have one offset: the last ones go on where dy has no points, and zeros.
    [[nodiscard]] Piece whole_piece(Index number) const {
        Piece piece = cut_.piece(side_.lattice, number);
        piece.rows = cut_.rows_each;
        piece.width = cut_.columns_each;
        return piece;
    }
    [[nodiscard]] PairSlab slab_of(const Piece& piece) const { return {side_.lattice, {piece, 1}}; }

    // Packs a piece, number `place` of its round.
    void pack(Index group, Index number, Index place, const Memory& memory) const {
        const Piece piece = whole_piece(number);
        const PairSlab slab = slab_of(piece);
        const Index plane = (lines_ + 1) * pair_lanes;
        slab.pack(SlabSource<T>(x_), side_.plan.first_in(group), side_.depth, plane, memory.lines);
        for (Index panel = 0; panel < panels_; ++panel) {
            bfloat16* lines = memory.lines + panel * plane;
            clear_lines(lines, slab.lines(), lines_ + 1);
            for (Index parity = 0; parity < parities_; ++parity) {
                bfloat16* columns = memory.columns + (panel * parities_ + parity) * 2 * half_stride();
                pair_lines(lines + parity * pair_lanes, lines_ / 2, half_stride(),
                           columns + place * lines_ / 2 * pair_lanes);
            }
        }
        pack_points(group, piece, slab.pitch(), plane, memory.lines);
        for (Index block = 0; block < blocks_; ++block) {
            for (Index step = 0; step < steps_; ++step) {
                turn_lines(memory.lines + block * plane + step * pair_step,
                           memory.rows + ((block * round_ + place) * steps_ + step) * pair_step);
            }
        }
    }

    // Packs dy into lines at the places of its points, with zeros elsewhere.
    void pack_points(Index group, const Piece& piece, Index pitch, Index plane, bfloat16* lines) const {
        constexpr Index strip = 16;  // pixels
        const ImageView& image = dy_.view();
        const Index pixel = image.extents.channels;
        const Index rows = std::min(piece.rows, image.extents.height - piece.first_row);
        const Index width = std::min(piece.width, image.extents.width - piece.first_column);
        if (pitch > width || rows * width < steps_ * pair_lanes) {
            for (Index block = 0; block < blocks_; ++block) clear_lines(lines + block * plane, 0, steps_ * pair_lanes);
        }
        for (Index i = 0; i < rows; ++i) {
            const Index element = image.element(piece.sample, piece.first_row + i, piece.first_column);
            for (Index j = 0; j < width; j += strip) {
                pack_pixels(dy_, element + j * pixel, pixel, std::min(strip, width - j), side_.plan.first_out(group),
                            side_.plan.out(), strip * pixel, plane, lines + (i * pitch + j) * pair_lanes);
            }
        }
    }

    static void clear_lines(bfloat16* lines, Index first, Index last) {
        std::fill(lines + first * pair_lanes, lines + last * pair_lanes, bfloat16(0.0F));
    }

    // Adds what a round of so many pieces has to one block of dy and panels of x from `first_panel` on.
    void multiply(Index pieces, Index first_panel, Index block, bool accumulate, const Memory& memory,
                  float* sums) const {
        const Index steps = pieces * steps_;
        const Index steps_each = taps_ == 1 ? steps_of_one_tap : steps_of_taps;
        Index* row_offsets = memory.offsets;
        Index* column_offsets = row_offsets + round_ * steps_;
        Index* tap_offsets = column_offsets + round_ * steps_;
        for (Index step = 0; step < steps; ++step) {
            row_offsets[step] = step * pair_step;
            column_offsets[step] = (step / steps_ * lines_ + step % steps_ * pair_lanes) / 2 * pair_lanes;
        }
        slab_of(whole_piece(0)).tap_offsets(1, tap_offsets);
        machine_.begin();
        for (Index step = 0; step < steps; step += steps_each) {
            for (Index panel = first_panel; panel < std::min(panels_, first_panel + panels_each_); ++panel) {
                const bfloat16* columns = memory.columns + panel * parities_ * 2 * half_stride();
                for (Index tap = 0; tap < taps_; ++tap) {
                    const Index parity = tap_offsets[tap] % 2;
                    const Index first = parity * 2 * half_stride() + tap_offsets[tap] / 2 * pair_lanes;
                    machine_.multiply(
                        {.rows = {memory.rows + block * round_ * steps_ * pair_step, 0, row_offsets + step, pair_lanes},
                         .columns = {columns + first, 0, column_offsets + step, half_stride()},
                         .blocks = 1,
                         .offset_count = std::min(steps_each, steps - step)},
                        sums + (panel * taps_ + tap) * sums_of_tap_ + block * pair_step, accumulate || step > 0);
                }
            }
        }
        machine_.end();
    }

    const ForwardSide<T>& side_;
    const TileMachine& machine_;
    PendingSource<T> x_;
    GradientSource<T> dy_;
    Index taps_, parities_, blocks_, panels_, sums_of_tap_;
    Cut cut_;
    Index pieces_, lines_, steps_;  ///< pieces of the batch; lines of x and steps of dy in each
    Index spans_;
    bool large_;
    Index span_pieces_ = 0, round_ = 1, panels_each_ = 1;
};

}  // namespace cpu

SD_NAMESPACE_END
