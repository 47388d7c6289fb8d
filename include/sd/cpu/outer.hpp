// The outer product of pixels that convolutions by weight are made of, and how it is cut into tasks.
//
// Spans depend on the problem's size alone and are added in order, so the bits are the same for any number of threads.
// Large weights are cut by o, small ones by spans: every span has a copy of what it sums.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/slab_source.hpp"
#include "sd/cpu/tile.hpp"
#include "sd/cpu/weights.hpp"

#include <algorithm>
#include <array>
#include <utility>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Vectors of o in a panel at most, and channels of x in a tile of so many vectors: as many sums as hide the latency of
/// their multiply-adds and leave registers for what is multiplied. A tile takes channels of one block of x.
inline constexpr Index most_outer_vectors = vector_bytes == 64 ? 2 : vector_registers == 32 ? 4 : 3;
template <class T, Index vectors>
inline constexpr Index outer_rows = vector_bytes == 64 ? lanes<T> / vectors
                                                       : std::min<Index>(lanes<T>, vectors == 1 ? 8 : 4);

/// Vectors of a panel of o with so many columns.
template <class T>
[[nodiscard]] constexpr Index outer_vectors(Index columns) {
    return std::min(most_outer_vectors, quotient_up(columns, lanes<T>));
}

/// The two slabs of a piece and the sums they add to.
template <class T>
struct OuterOperands {
    const T* x;
    Index x_columns, x_plane, x_channels, row_step, point_step;
    const T* dy;
    Index dy_plane, dy_tap;  ///< elements of dy between blocks, and from one tap to the next
    Index rows, width;
    const Index* tap_offsets;
    Index taps;
    T* sums;          ///< (tap, channel of x, o of the panel), with room for a whole tile after the last channel
    Index sums_tap;   ///< elements of sums from one tap to the next
    Index columns;    ///< of a panel; the last one may have fewer vectors in use and keeps zeros in the others
    bool accumulate;  ///< else the sums are the product alone
};

/// The outer product of one panel of dy, with `vectors` vectors in use, with all channels and taps of x, which are
/// stored as T. `step` as in multiply_tile.
template <class T, Index vectors, Index step>
void run_outer(const OuterOperands<accumulate_t<T>>& operands, SlabPrefetch<T>& x_ahead, SlabPrefetch<T>& dy_ahead) {
    using A = accumulate_t<T>;
    constexpr Index rows = outer_rows<A, vectors>;
    const auto pixel_stride = [&] {
        if constexpr (step != 0) {
            return constant<step * lanes<T>>;
        } else {
            return operands.point_step * lanes<T>;
        }
    }();
    for (Index tap = 0; tap < operands.taps; ++tap) {
        for (Index channel = 0; channel < operands.x_channels; channel += rows) {
            A* target = operands.sums + tap * operands.sums_tap + channel * operands.columns;
            Vector<T> sum[rows][vectors] = {};
            const A* x =
                operands.x + channel / lanes<T> * operands.x_plane + channel % lanes<T> + operands.tap_offsets[tap];
            for (Index i = 0; i < operands.rows; ++i) {
                multiply_add<rows, vectors>(
                    sum, operands.width, x + i * operands.row_step * operands.x_columns * lanes<T>, constant<1>,
                    pixel_stride, operands.dy + tap * operands.dy_tap + i * operands.width * lanes<T>,
                    constant<lanes<T>>, operands.dy_plane);
            }
#pragma GCC unroll 16
            for (Index r = 0; r < rows; ++r, target += operands.columns) {
#pragma GCC unroll 4
                for (Index v = 0; v < vectors; ++v) {
                    A* to = target + v * lanes<T>;
                    store<A>(operands.accumulate ? load(to) + sum[r][v] : sum[r][v], to);
                }
                if (!operands.accumulate) std::fill(target + vectors * lanes<T>, target + operands.columns, A(0));
            }
            x_ahead.advance();
            dy_ahead.advance();
        }
    }
}

template <class T>
using RunOuter = void (*)(const OuterOperands<accumulate_t<T>>&, SlabPrefetch<T>&, SlabPrefetch<T>&);

/// run_outer for the vectors in use, at most most_outer_vectors, and a step.
template <class T>
[[nodiscard]] RunOuter<T> find_run_outer(Index vectors, Index step) {
    static constexpr auto table = []<Index... v>(std::integer_sequence<Index, v...>) {
        return std::array<std::array<RunOuter<T>, 3>, sizeof...(v)>{
            {{&run_outer<T, v + 1, 0>, &run_outer<T, v + 1, 1>, &run_outer<T, v + 1, 2>}...}};
    }
    (std::make_integer_sequence<Index, most_outer_vectors>{});
    return table[static_cast<std::size_t>(vectors - 1)][static_cast<std::size_t>(step <= 2 ? step : 0)];
}

/// The outer products of all panels that `channels` channels of dy make; `operands` begin with the first one, and a
/// panel has `panel_size` sums.
template <class T>
void run_panels(OuterOperands<accumulate_t<T>> operands, Index channels, Index panel_size, SlabPrefetch<T>& x_ahead,
                SlabPrefetch<T>& dy_ahead) {
    for (Index first = 0; first < channels; first += operands.columns) {
        const Index vectors = quotient_up(std::min(operands.columns, channels - first), lanes<T>);
        find_run_outer<T>(vectors, operands.point_step)(operands, x_ahead, dy_ahead);
        operands.dy += operands.columns / lanes<T> * operands.dy_plane;
        operands.sums += panel_size;
    }
}

/// Adds all spans of sums (spans, panels, sums of a panel) to the first one, in order.
template <class T>
void add_spans(Tensor<T>& sums) {
    const Index size = sums.extent(1) * sums.extent(2);
    parallel_ranges(size, 4096, [&](Index first, Index last) {
        T* total = sums.data();
        for (Index span = 1; span < sums.extent(0); ++span) {
            const T* part = sums.data() + span * size;
            for (Index i = first; i < last; ++i) total[i] += part[i];
        }
    });
}

/// How a by-weight product is cut into tasks: spans of pieces by groups of panels.
struct OuterCut {
    Index panels, panel_groups, panels_each, spans, pieces_each;

    /// What a task computes: pieces [first_piece, last_piece) of the batch by channels [first_channel, first_channel +
    /// channels) of dy. Its sums begin with panel `panel`, counted over all spans.
    struct Task {
        Index first_piece, last_piece, first_channel, channels, panel;
    };

    OuterCut(Index all_panels, Index sums_of_panel, Index all_pieces) : panels(all_panels), pieces_(all_pieces) {
        constexpr Index most_sums = Index{1} << 21;  // elements of all spans together
        constexpr Index most_spans = 16;             // small weights: as many threads can take part
        constexpr Index groups = 8;                  // large ones: every group of panels packs all of x again
        spans = std::clamp<Index>(most_sums / (panels * sums_of_panel), 1, std::min(most_spans, pieces_));
        pieces_each = quotient_up(pieces_, spans);
        spans = quotient_up(pieces_, pieces_each);
        panels_each = std::max<Index>(1, panels / quotient_up(groups, spans));
        panel_groups = quotient_up(panels, panels_each);
    }

    [[nodiscard]] Index tasks() const { return spans * panel_groups; }
    /// A task of a dy of so many channels, in panels of `width`.
    [[nodiscard]] Task task(Index number, Index channels, Index width) const {
        const Index span = number / panel_groups;
        const Index panel = number % panel_groups * panels_each;
        return {.first_piece = span * pieces_each,
                .last_piece = std::min(pieces_, (span + 1) * pieces_each),
                .first_channel = panel * width,
                .channels = std::min(channels, (panel + panels_each) * width) - panel * width,
                .panel = span * panels + panel};
    }

private:
    Index pieces_;
};

}  // namespace cpu

SD_NAMESPACE_END
