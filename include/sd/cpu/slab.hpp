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
#include <array>

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

/// Asks for the line of the cache that an element is in, in each tensor of a source.
template <class T>
[[gnu::always_inline]] inline void prefetch_line(const std::array<const T*, 2>& tensors, Index element) {
    prefetch(tensors[0] + element);
    if (tensors[1] != nullptr) prefetch(tensors[1] + element);
}

/// Fills a slab from a source, by one or two blocks of channels, a line of the cache. Lanes beyond the last channel are
/// zero.
template <class T, class Source>
void pack_slab(const Source& source, const SlabShape& slab, T* target) {
    const ImageView& image = source.view();
    const Index height = image.extents.height;
    const Index width = image.extents.width;
    // The columns [before, after) of the slab lie in the image.
    const Index before = std::clamp<Index>(quotient_up(-slab.first_column, slab.column_step), 0, slab.columns);
    const Index after =
        std::clamp<Index>(quotient_up(width - slab.first_column, slab.column_step), before, slab.columns);
    const Index step = image.element(0, 0, slab.column_step);
    const Index plane = slab.plane<T>();
    // Packs `blocks` blocks that begin with channel k of the slab.
    const auto pack = [&]<Index blocks>(Index k, std::integral_constant<Index, blocks>, auto count) {
        source.with_channels(slab.first_channel + k, constant<blocks>, count, [&](const auto& value_at) {
            T* to = target + k / lanes<T> * plane;
            const auto put = [&](const auto& value_of) {
                with_each<blocks>([&](auto b) { store<T>(value_of(b), to + b * plane); });
                to += lanes<T>;
            };
            const auto zeros = [&](Index pixels) {
                for (Index i = 0; i < pixels; ++i) put([](auto) { return Vector<T>{}; });
            };
            for (Index r = 0; r < slab.rows; ++r) {
                const Index row = slab.first_row + r * slab.row_step;
                if (row < 0 || row >= height) {
                    zeros(slab.columns);
                    continue;
                }
                zeros(before);
                Index element = image.element(slab.sample, row, slab.first_column + before * slab.column_step) +
                                slab.first_channel + k;
                for (Index c = before; c < after; ++c, element += step) {
                    put([&](auto b) { return value_at(element, b); });
                }
                zeros(slab.columns - after);
            }
        });
    };
    Index k = 0;
    constexpr Index stored_bytes = lanes<T> * static_cast<Index>(sizeof(typename Source::Stored));
    if constexpr (stored_bytes < 64) {  // two vectors of a pixel lie in one line of the cache
        for (; k + 2 * lanes<T> <= slab.channels; k += 2 * lanes<T>) pack(k, constant<2>, constant<lanes<T>>);
    }
    for_each_vector<T>(slab.channels - k, [&](Index rest, auto count) { pack(k + rest, constant<1>, count); });
}

}  // namespace cpu

SD_NAMESPACE_END
