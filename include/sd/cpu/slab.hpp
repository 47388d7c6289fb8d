// A slab: the part of an image that one piece of work reads, with everything pending applied, zeros in the padding, and
// channels in blocks of one vector:
//
//     image   (row, column, channel)                 channels contiguous
//     slab    (block, row, column, lane)             channel = block * lanes + lane
//
// Its elements are of the type that is computed in, whatever the image's are. Products of bfloat16 have slabs of their
// own (pair_slab.hpp).
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
template <class Source>
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
    static constexpr Index line = 64 / static_cast<Index>(sizeof(typename Source::Stored));

    const Source& source_;
    Index next_ = 0, end_ = 0, each_ = 0;
};

/// Fills a slab from a source, by one or two blocks of channels, a line of the cache. Lanes beyond the last channel are
/// zero.
template <class T, class Source>
void pack_slab(const Source& source, const SlabShape& slab, T* target) {
    const Index height = source.extents().height;
    const Index width = source.extents().width;
    // The columns [before, after) of the slab lie in the image.
    const Index before = std::clamp<Index>(quotient_up(-slab.first_column, slab.column_step), 0, slab.columns);
    const Index after =
        std::clamp<Index>(quotient_up(width - slab.first_column, slab.column_step), before, slab.columns);
    const Index step = source.element(0, 0, slab.column_step);
    const Index plane = slab.plane<T>();
    // put(element, to) packs one pixel of `blocks` blocks that begin with channel k of the slab.
    const auto pack = [&]<Index blocks>(Index k, std::integral_constant<Index, blocks>, const auto& put) {
        T* to = target + k / lanes<T> * plane;
        const auto zeros = [&](Index pixels) {
            for (Index i = 0; i < pixels; ++i, to += lanes<T>) {
                for (Index b = 0; b < blocks; ++b) store<T>(Vector<T>{}, to + b * plane);
            }
        };
        for (Index r = 0; r < slab.rows; ++r) {
            const Index row = slab.first_row + r * slab.row_step;
            if (row < 0 || row >= height) {
                zeros(slab.columns);
                continue;
            }
            zeros(before);
            Index element = source.element(slab.sample, row, slab.first_column + before * slab.column_step) +
                            slab.first_channel + k;
            for (Index c = before; c < after; ++c, to += lanes<T>, element += step) put(element, to);
            zeros(slab.columns - after);
        }
    };
    Index k = 0;
    constexpr Index stored_bytes = lanes<T> * static_cast<Index>(sizeof(typename Source::Stored));
    if constexpr (stored_bytes < 64) {  // two vectors of a pixel lie in one line of the cache
        constexpr auto whole = constant<lanes<T>>;
        for (; k + 2 * lanes<T> <= slab.channels; k += 2 * lanes<T>) {
            const Index channel = slab.first_channel + k;
            source.with_channels(channel, whole, [&](const auto& first_at) {
                source.with_channels(channel + lanes<T>, whole, [&](const auto& second_at) {
                    pack(k, constant<2>, [&](Index element, T* to) {
                        store<T>(first_at(element), to);
                        store<T>(second_at(element + lanes<T>), to + plane);
                    });
                });
            });
        }
    }
    for_each_vector<T>(slab.channels - k, [&](Index rest, auto count) {
        source.with_channels(slab.first_channel + k + rest, count, [&](const auto& value_at) {
            pack(k + rest, constant<1>, [&](Index element, T* to) { store<T>(value_at(element), to); });
        });
    });
}

}  // namespace cpu

SD_NAMESPACE_END
