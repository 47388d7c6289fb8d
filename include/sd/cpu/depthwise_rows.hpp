// What depthwise convolutions share, forward, by input and by weight: how their taps are read, and the rows of an image
// that are at hand with everything pending applied.
//
//     runs    neighbouring taps of one row of the kernel, read together: pixel q of a tile meets taps q, q - 1, ...
//     ring    the last rows of the image that the points of one row read, channels in blocks of one vector:
//
//             image   (row, column, channel)              read in order, once for a piece
//             ring    (row % rows, block, column, lane)   second-level cache; a block of all rows in the nearest one
#pragma once

#include "sd/cpu/cut.hpp"
#include "sd/cpu/lattice.hpp"
#include "sd/cpu/slab_source.hpp"

#include <algorithm>
#include <span>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Neighbouring points of a row that are computed together: the images of most networks are 7 times a power of 2 wide.
inline constexpr Index depthwise_points = 7;

/// Vectors of channels that are written together: a line of the cache.
inline constexpr Index depthwise_vectors = 64 / vector_bytes;

/// The taps of a lattice in runs of equal length.
struct TapRuns {
    /// Runs are rows of the kernel if there is a loop for their length, else single taps.
    explicit TapRuns(const Lattice& lattice) : taps(lattice.taps) {
        std::sort(taps.begin(), taps.end(), [](const Tap& a, const Tap& b) {
            return a.row_offset != b.row_offset ? a.row_offset < b.row_offset : a.column_offset < b.column_offset;
        });
        const auto row = std::count_if(taps.begin(), taps.end(),
                                       [&](const Tap& tap) { return tap.row_offset == taps.front().row_offset; });
        if (has_loop(row, lattice.column_step) && taps[static_cast<std::size_t>(row - 1)].column_offset ==
                                                      taps.front().column_offset + static_cast<Index>(row) - 1) {
            length = row;
        }
    }

    /// Whether runs of so many taps are computed together where points lie `step` pixels apart.
    [[nodiscard]] static bool has_loop(Index length, Index step) {
        return step == 1   ? (length >= 1 && length <= 5) || length == 7
               : step == 2 ? length == 3 || length == 5 || length == 7
                           : false;
    }

    [[nodiscard]] Index tap_count() const { return static_cast<Index>(taps.size()); }
    [[nodiscard]] Index count() const { return tap_count() / length; }
    /// The first tap of a run.
    [[nodiscard]] const Tap& first(Index run) const { return taps[static_cast<std::size_t>(run * length)]; }

    PooledVector<Tap> taps;  ///< run after run
    Index length = 1;        ///< taps of a run
};

/// The extents of a ring: what the points of one row of some lattices read.
template <class T>
struct RingShape {
    /// For lattices of one image that have the same steps, whose points are computed `points` at a time.
    RingShape(std::span<const Lattice> lattices, Index points) : row_step(lattices.front().row_step) {
        const Lattice* some = nullptr;
        Index last_row = 0, last_column = 0, width = 0;
        for (const Lattice& lattice : lattices) {
            width = std::max(width, lattice.width);
            if (lattice.taps.empty()) continue;
            first_row = some == nullptr ? lattice.first_row() : std::min(first_row, lattice.first_row());
            last_row = some == nullptr ? lattice.last_row() : std::max(last_row, lattice.last_row());
            first_column = some == nullptr ? lattice.first_column() : std::min(first_column, lattice.first_column());
            last_column = some == nullptr ? lattice.last_column() : std::max(last_column, lattice.last_column());
            some = &lattice;
        }
        rows = last_row - first_row + 1;
        columns = (round_up(width, points) - 1) * lattices.front().column_step + 1 + last_column -
                  first_column;  // the last tile of a row is computed as a whole
        plane = spread_stride<T>(columns * lanes<T>);
    }

    /// Elements of a row of so many blocks.
    [[nodiscard]] Index row_size(Index blocks) const { return spread_stride<T>(blocks * plane); }
    [[nodiscard]] Index size(Index blocks) const { return rows * row_size(blocks); }

    /// Blocks of channels whose rows stay in the second-level cache, in whole lines.
    [[nodiscard]] Index resident_blocks(Index blocks) const {
        constexpr Index bytes = Index{256} << 10;
        const Index most = bytes / (rows * plane * static_cast<Index>(sizeof(T))) / depthwise_vectors;
        const Index lines = quotient_up(blocks, depthwise_vectors);
        const Index parts = quotient_up(lines, std::max<Index>(1, most));
        return quotient_up(lines, parts) * depthwise_vectors;
    }

    Index row_step;       ///< rows of the image between neighbouring rows of points
    Index first_row = 0;  ///< that points of row 0 read
    Index rows = 1;       ///< that points of one row read, from the first to the last
    Index first_column = 0, columns = 1;
    Index plane = 0;  ///< elements between the blocks
};

/// Rows of an image with everything pending applied, and zeros beside them. Rows of padding are not there.
template <class T>
class RowRing {
    using A = accumulate_t<T>;

public:
    /// Of some channels, in memory of shape.size(blocks of the channels) elements.
    RowRing(const SlabSource<T>& source, const RingShape<A>& shape, Index sample, Index first_channel, Index channels,
            A* memory)
        : source_(source),
          shape_(shape),
          sample_(sample),
          first_channel_(first_channel),
          channels_(channels),
          row_size_(shape.row_size(quotient_up(channels, lanes<T>))),
          memory_(memory) {}

    /// Has at hand what the points of a row read. Rows of points come in ascending order.
    void move_to(Index point_row) {
        first_ = point_row * shape_.row_step + shape_.first_row;
        next_ = std::max({next_, first_, Index{0}});
        const Index last = std::min(first_ + shape_.rows, source_.extents().height);
        for (; next_ < last; ++next_) source_.pack(slab(next_, 1), memory_ + next_ % shape_.rows * row_size_);
    }

    /// Asks for the rows that the next row of points reads and this one did not, in `calls` calls.
    [[nodiscard]] SlabPrefetch<T> ask_for_next(Index calls) const {
        const Index first = std::max(next_, first_ + shape_.row_step);
        return {source_, slab(first, first_ + shape_.row_step + shape_.rows - first), calls};
    }

    /// Runs that read rows of the image: `count` of them from `first` on.
    struct Runs {
        Index first, count;
    };
    /// Writes the elements from a point in column 0 of the lattice to where the first tap of each such run reads. The
    /// others read padding alone.
    [[nodiscard]] Runs locate(const TapRuns& runs, Index* offsets) const {
        Runs located{0, 0};
        for (Index r = 0; r < runs.count(); ++r) {
            const Tap& tap = runs.first(r);
            const Index row = first_ + tap.row_offset - shape_.first_row;
            if (row < 0) ++located.first;
            if (row < 0 || row >= source_.extents().height) continue;
            offsets[located.count++] =
                row % shape_.rows * row_size_ + (tap.column_offset - shape_.first_column) * lanes<T>;
        }
        return located;
    }
    [[nodiscard]] const A* block(Index number) const { return memory_ + number * shape_.plane; }

private:
    [[nodiscard]] SlabShape slab(Index row, Index rows) const {
        return {.sample = sample_,
                .first_row = row,
                .rows = rows,
                .first_column = shape_.first_column,
                .columns = shape_.columns,
                .first_channel = first_channel_,
                .channels = channels_};
    }

    SlabSource<T> source_;
    const RingShape<A>& shape_;
    Index sample_, first_channel_, channels_, row_size_;
    A* memory_;
    Index first_ = 0;  ///< row that the points read
    Index next_ = 0;   ///< row to be packed
};

/// Rows of points in pieces of one sample: as few as keep many threads busy, because rows at their edges are read twice.
struct RowCut {
    RowCut(Index samples, Index height) {
        const Index most = std::clamp<Index>(quotient_up(Cut::least_pieces, samples), 1, height);
        rows_each = quotient_up(height, most);
        pieces_of_sample = quotient_up(height, rows_each);
        pieces = samples * pieces_of_sample;
    }

    struct Piece {
        Index sample, first_row, last_row;
    };
    [[nodiscard]] Piece piece(Index number, Index height) const {
        const Index first = number % pieces_of_sample * rows_each;
        return {number / pieces_of_sample, first, std::min(height, first + rows_each)};
    }

    Index rows_each, pieces_of_sample, pieces;
};

/// The weights (C, 1, KH, KW) of a lattice's taps as (block, tap, lane), zeros beyond the last channel; each channel
/// times its factor, if factors are given.
template <class T>
[[nodiscard]] Tensor<T> depthwise_weights(const Tensor<T>& weight, const TapRuns& runs, const T* factors) {
    const Index channels = weight.extent(0);
    const Index positions = weight.extent(2) * weight.extent(3);
    Tensor<T> packed = Tensor<T>::empty({quotient_up(channels, lanes<T>), runs.tap_count(), lanes<T>});
    if (runs.tap_count() == 0) return packed;
    constexpr Index grain = 4096;
    parallel_ranges(packed.extent(0), std::max<Index>(1, grain / (positions * lanes<T>)), [&](Index begin, Index end) {
        T* to = packed.data() + begin * runs.tap_count() * lanes<T>;
        for (Index c = begin * lanes<T>; c < end * lanes<T>; c += lanes<T>) {
            const Index count = std::min(lanes<T>, channels - c);
            const Vector<T> factor = factors == nullptr ? Vector<T>{} + T(1) : load_some(factors + c, count);
            for (const Tap& tap : runs.taps) {
                const T* from = weight.data() + c * positions + tap.kernel_position;
                store<T>(factor * load_apart(from, positions, count), to);
                to += lanes<T>;
            }
        }
    });
    return packed;
}

}  // namespace cpu

SD_NAMESPACE_END
