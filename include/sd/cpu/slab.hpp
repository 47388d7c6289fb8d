// A slab: the part of an image that one piece of work reads, with everything pending applied, zeros in the padding, and
// channels in blocks of one vector:
//
//     image   (row, column, channel)                 channels contiguous
//     slab    (block, row, column, lane)             channel = block * lanes + lane
//
// Neighbouring pixels of a block lie `lanes` elements apart, whatever the number of channels, so a register tile walks
// over pixels by constants; and a pixel of a block is one vector, so a slab serves as either factor of a product.
#pragma once

#include "sd/cpu/source.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Where a slab lies in its image and in memory. Rows and columns may begin before the image and end after it.
struct SlabShape {
    Index sample = 0;
    Index first_row = 0, row_step = 1, rows = 0;
    Index first_column = 0, column_step = 1, columns = 0;
    Index first_channel = 0, channels = 0;

    /// Elements between the blocks.
    template <class T>
    [[nodiscard]] Index plane() const {
        return spread_stride<T>(rows * columns * lanes<T>);
    }
    template <class T>
    [[nodiscard]] Index blocks() const {
        return quotient_up(channels, lanes<T>);
    }
    /// Elements of the slab, with room for a tile that reads `slack` pixels past the end.
    template <class T>
    [[nodiscard]] Index size(Index slack) const {
        return blocks<T>() * plane<T>() + slack * lanes<T>;
    }
};

/// Asks for the part of an image that a slab reads, a few cache lines at a time, while something else is computed.
template <class T, class Source>
class SlabPrefetch {
public:
    /// In `calls` calls of advance(). Only whole pixels are asked for.
    SlabPrefetch(const Source& source, const SlabShape& slab, Index calls) : source_(source) {
        const auto& [samples, height, width, channels] = source.extents();
        if (slab.first_channel != 0 || slab.channels != channels || calls == 0) return;
        const Index last_row = std::min(height - 1, slab.first_row + (slab.rows - 1) * slab.row_step);
        const Index last_column = std::min(width - 1, slab.first_column + (slab.columns - 1) * slab.column_step);
        const Index first_row = std::max<Index>(0, slab.first_row);
        const Index first_column = std::max<Index>(0, slab.first_column);
        next_ = source.element(slab.sample, first_row, first_column);
        end_ = source.element(slab.sample, last_row, last_column) + channels;
        each_ = quotient_up(quotient_up(end_ - next_, line), calls);
    }

    [[gnu::always_inline]] void advance() {
        for (Index i = 0; i < each_ && next_ < end_; ++i, next_ += line) source_.prefetch_line(next_);
    }

private:
    static constexpr Index line = 64 / static_cast<Index>(sizeof(T));

    const Source& source_;
    Index next_ = 0, end_ = 0, each_ = 0;
};

/// Fills a slab from a source, a block of channels after the other. Lanes beyond the last channel are zero.
template <class T, class Source>
void pack_slab(const Source& source, const SlabShape& slab, T* target) {
    const Index height = source.extents().height;
    const Index width = source.extents().width;
    // The columns [before, after) of the slab lie in the image.
    const Index before = std::clamp<Index>(quotient_up(-slab.first_column, slab.column_step), 0, slab.columns);
    const Index after =
        std::clamp<Index>(quotient_up(width - slab.first_column, slab.column_step), before, slab.columns);
    const Index step = source.element(0, 0, slab.column_step);
    for_each_vector<T>(slab.channels, [&](Index k, auto count) {
        const Index channel = slab.first_channel + k;
        source.with_channels(channel, count, [&](const auto& value_at) {
            T* to = target + k / lanes<T> * slab.plane<T>();
            const auto zeros = [&](Index pixels) {
                for (Index i = 0; i < pixels; ++i, to += lanes<T>) store<T>(Vector<T>{}, to);
            };
            for (Index r = 0; r < slab.rows; ++r) {
                const Index row = slab.first_row + r * slab.row_step;
                if (row < 0 || row >= height) {
                    zeros(slab.columns);
                    continue;
                }
                zeros(before);
                Index element =
                    source.element(slab.sample, row, slab.first_column + before * slab.column_step) + channel;
                for (Index c = before; c < after; ++c, to += lanes<T>, element += step) {
                    store<T>(value_at(element), to);
                }
                zeros(slab.columns - after);
            }
        });
    });
}

}  // namespace cpu

SD_NAMESPACE_END
