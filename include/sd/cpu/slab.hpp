// A slab: the part of an image that one task reads, with everything pending applied, zeros in the padding, and channels
// in blocks of one vector:
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

    /// Elements between the blocks. A plane of 4096 bytes or a multiple would put all blocks into one set of the cache.
    template <class T>
    [[nodiscard]] Index plane() const {
        const Index pixels = rows * columns;
        return (pixels + (pixels * vector_bytes % 4096 == 0 ? 1 : 0)) * lanes<T>;
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
        const auto [samples, height, width, channels] = source.extents();
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

/// Fills a slab from a source. Lanes beyond the last channel are zero.
template <class T, class Source>
void pack_slab(const Source& source, const SlabShape& slab, T* target) {
    const auto [samples, height, width, channels] = source.extents();
    const Index plane = slab.plane<T>();
    source.with_vectors([&](const auto& vector_at) {
        for (Index r = 0; r < slab.rows; ++r) {
            const Index row = slab.first_row + r * slab.row_step;
            for (Index c = 0; c < slab.columns; ++c) {
                const Index column = slab.first_column + c * slab.column_step;
                T* to = target + (r * slab.columns + c) * lanes<T>;
                if (row < 0 || row >= height || column < 0 || column >= width) {
                    for (Index k = 0; k < slab.channels; k += lanes<T>, to += plane) store<T>(Vector<T>{}, to);
                    continue;
                }
                const Index first = slab.first_channel;
                const Index element = source.element(slab.sample, row, column) + first;
                Index k = 0;
                for (; k + lanes<T> <= slab.channels; k += lanes<T>, to += plane) {
                    store<T>(vector_at(element + k, first + k, lanes<T>), to);
                }
                if (k < slab.channels) store<T>(vector_at(element + k, first + k, slab.channels - k), to);
            }
        }
    });
}

}  // namespace cpu

SD_NAMESPACE_END
