// How blocks of threads go over a matrix of rows and channels.
//
//     vectors of `width` channels:   | lane 0 | lane 1 | ... |            a thread keeps its channels,
//     rows of a block:                 threads row by row, then           so their factors stay in registers
//                                      `rows_at_once` rows further
#pragma once

#include "sd/device/kernel.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cuda {

/// Where a thread of a sweep begins: rows row, row + rows_at_once, ... below last_row, channels from `channel` on.
struct SweepPlace {
    Index row, last_row;
    Index channel;
    Index row_block;  ///< which block of rows
    int row_thread;   ///< the thread's place among those of its channels, 0 to rows_at_once - 1
    bool active;      ///< false for threads that are left over
};

/// Blocks over (rows, channels), cut by the problem's size alone.
struct Sweep {
    Index rows, channels;
    int width;
    int lanes;            ///< threads on one row
    int rows_at_once;     ///< rows that a block's threads take together
    Index groups;         ///< blocks beside each other on one row
    Index rows_of_block;  ///< rows that a block takes in all
    Index row_blocks;     ///< blocks below each other

    /// Blocks of about `turns` rows a thread, and at most `most_row_blocks` of them below each other.
    Sweep(Index row_count, Index channel_count, int vector_width, Index turns = 8,
          Index most_row_blocks = Index{1} << 24)
        : rows(row_count), channels(channel_count), width(vector_width) {
        const Index vectors = std::max<Index>(1, channels / width);
        lanes = static_cast<int>(std::min<Index>(vectors, block_threads));
        rows_at_once = block_threads / lanes;
        groups = quotient_up(vectors, lanes);
        cut(std::max(turns, turns_of(most_row_blocks)));
    }

    /// Gives every thread so many rows of a block.
    void cut(Index turns) {
        rows_of_block = rows_at_once * turns;
        row_blocks = quotient_up(rows, rows_of_block);
    }
    /// The rows that a thread has at least where there are so many blocks below each other.
    [[nodiscard]] Index turns_of(Index most_row_blocks) const {
        return quotient_up(quotient_up(rows, rows_at_once), most_row_blocks);
    }

    /// All blocks.
    [[nodiscard]] Index blocks() const { return channels == 0 ? 0 : row_blocks * groups; }

    /// A thread's place; its block is numbered within this sweep.
    [[nodiscard]] SD_HOST_DEVICE SweepPlace place(Thread thread) const {
        SweepPlace place;
        place.row_block = thread.block / groups;
        place.row_thread = thread.index / lanes;
        const Index first = place.row_block * rows_of_block;
        place.row = first + place.row_thread;
        place.last_row = first + rows_of_block < rows ? first + rows_of_block : rows;
        place.channel = (thread.block % groups * lanes + thread.index % lanes) * width;
        place.active = place.row_thread < rows_at_once && place.channel < channels;
        return place;
    }

    /// Calls body(row, element) for the rows of a place: the thread's channels of the row begin at that element.
    template <class Body>
    SD_HOST_DEVICE void for_each_row(const SweepPlace& at, const Body& body) const {
        for (Index row = at.row; row < at.last_row; row += rows_at_once) body(row, row * channels + at.channel);
    }

    /// How many rows the threads of place row_thread take in a block of rows.
    [[nodiscard]] SD_HOST_DEVICE Index rows_of_thread(Index row_block, int row_thread) const {
        const Index first = row_block * rows_of_block + row_thread;
        const Index last = (row_block + 1) * rows_of_block < rows ? (row_block + 1) * rows_of_block : rows;
        return first < last ? quotient_up(last - first, rows_at_once) : 0;
    }
};

/// The rows of a tensor, for kernels that take rows from memory or as another makes them: of_channel(c) is a function
/// that gives a thread its channels, from c on, of a row.
template <class T, int width>
struct StoredRows {
    const T* x;
    Index channels;

    [[nodiscard]] SD_HOST_DEVICE auto of_channel(Index channel) const {
        return [x = x + channel, channels = channels](Index row) { return load<width>(x + row * channels); };
    }
};

/// Starts Kernel<T, width>{sweep, arguments...} over rows of channels; `turns` rows a thread.
template <Accelerator Device, class T, template <class, int> class Kernel, class... Arguments>
void launch_sweep(Index rows, Index channels, Index turns, const Arguments&... arguments) {
    with_width<T>(channels, [&](auto width) {
        const Sweep sweep(rows, channels, width, turns);
        launch<Device>(Kernel<T, width()>{sweep, arguments...}, sweep.blocks());
    });
}

}  // namespace cuda

SD_NAMESPACE_END
