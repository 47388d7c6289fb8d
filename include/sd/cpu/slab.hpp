// A slab: the part of an image that one piece of work reads, with everything pending applied, zeros in the padding, and
// channels in blocks of one vector:
//
//     image   (row, column, channel)                 channels contiguous
//     slab    (block, row, column, lane)             channel = block * lanes + lane
//
// Its elements are of the type that is computed in, whatever the image's are; products of bfloat16 read slabs of
// bfloat16, whose blocks are a line of the cache (pair_slab.hpp).
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
    Index trailing = 0;  ///< columns of zeros behind each row, besides

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
    SlabPrefetch(const Source& source, const SlabShape& slab, Index calls)
        : SlabPrefetch(source, slab, slab.sample, calls) {}
    /// The same part of all samples up to a last one.
    SlabPrefetch(const Source& source, const SlabShape& slab, Index last_sample, Index calls) : source_(source) {
        const auto& [samples, height, width, channels] = source.extents();
        if (slab.first_channel != 0 || slab.channels != channels || calls == 0) return;
        const Index last_row = std::min(height - 1, slab.first_row + (slab.rows - 1) * slab.row_step);
        const Index last_column = std::min(width - 1, slab.first_column + (slab.columns - 1) * slab.column_step);
        const Index first_row = std::max<Index>(0, slab.first_row);
        const Index first_column = std::max<Index>(0, slab.first_column);
        next_ = source.element(slab.sample, first_row, first_column);
        end_ = source.element(last_sample, last_row, last_column) + channels;
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

/// Fills a slab from a source, by one or two vectors of channels, a line of the cache. Blocks have `block` channels, a
/// multiple of lanes, and lie `plane` elements apart. Lanes beyond the last channel are zero.
template <class E, Index block, class Source>
void pack_blocks(const Source& source, const SlabShape& slab, Index plane, E* target) {
    const Index height = source.extents().height;
    const Index width = source.extents().width;
    // The columns [before, after) of the slab lie in the image.
    const Index before = std::clamp<Index>(quotient_up(-slab.first_column, slab.column_step), 0, slab.columns);
    const Index after =
        std::clamp<Index>(quotient_up(width - slab.first_column, slab.column_step), before, slab.columns);
    const Index step = source.element(0, 0, slab.column_step);
    constexpr bool one_block = block > lanes<E>;  // two vectors of a pixel are in one
    const Index second = one_block ? lanes<E> : plane;
    // put(element, to) packs one pixel of `vectors` vectors that begin with channel k of the slab.
    const auto pack = [&]<Index vectors>(Index k, std::integral_constant<Index, vectors>, const auto& put) {
        E* to = target + k / block * plane + k % block;
        const auto zeros = [&](Index pixels) {
            for (Index i = 0; i < pixels; ++i, to += block) {
                for (Index v = 0; v < vectors; ++v) store<E>(Vector<E>{}, to + v * second);
            }
        };
        for (Index r = 0; r < slab.rows; ++r) {
            const Index row = slab.first_row + r * slab.row_step;
            if (row < 0 || row >= height) {
                zeros(slab.columns + slab.trailing);
                continue;
            }
            zeros(before);
            Index element = source.element(slab.sample, row, slab.first_column + before * slab.column_step) +
                            slab.first_channel + k;
            for (Index c = before; c < after; ++c, to += block, element += step) put(element, to);
            zeros(slab.columns - after + slab.trailing);
        }
    };
    Index k = 0;
    constexpr Index stored_bytes = lanes<E> * static_cast<Index>(sizeof(typename Source::Stored));
    if constexpr (stored_bytes < 64) {  // two vectors of a pixel lie in one line of the cache
        constexpr auto whole = constant<lanes<E>>;
        for (; k + 2 * lanes<E> <= slab.channels; k += 2 * lanes<E>) {
            const Index channel = slab.first_channel + k;
            source.with_channels(channel, whole, [&](const auto& first_at) {
                source.with_channels(channel + lanes<E>, whole, [&](const auto& second_at) {
                    pack(k, constant<2>, [&](Index element, E* to) {
                        const Vector<E> values[2] = {first_at(element), second_at(element + lanes<E>)};
                        if constexpr (one_block) {
                            store_vectors<E>(values, to);
                        } else {
                            store<E>(values[0], to);
                            store<E>(values[1], to + plane);
                        }
                    });
                });
            });
        }
    }
    for_each_vector<E>(slab.channels - k, [&](Index rest, auto count) {
        source.with_channels(slab.first_channel + k + rest, count, [&](const auto& value_at) {
            pack(k + rest, constant<1>, [&](Index element, E* to) { store<E>(value_at(element), to); });
        });
    });
    for (k = round_up(slab.channels, lanes<E>); k < round_up(slab.channels, block); k += lanes<E>) {
        pack(k, constant<1>, [](Index, E* to) { store<E>(Vector<E>{}, to); });
    }
}

/// The same by blocks of one vector.
template <class T, class Source>
void pack_slab(const Source& source, const SlabShape& slab, T* target) {
    pack_blocks<T, lanes<T>>(source, slab, slab.plane<T>(), target);
}

}  // namespace cpu

SD_NAMESPACE_END
