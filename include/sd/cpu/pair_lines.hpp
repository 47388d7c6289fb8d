// How the slabs that products of pairs read (pair_slab.hpp) are filled: a pixel of 32 channels is a line of the cache.
#pragma once

#include "sd/cpu/slab.hpp"
#include "sd/cpu/tile_machine.hpp"

#include <algorithm>
#include <cstring>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Packs some pixels that lie `step` elements apart, of channels [first_channel, first_channel + channels), into lines
/// of as many blocks, `plane` elements apart; lanes beyond the last channel are zero. Meanwhile the pixels are asked for
/// that lie `ahead` elements further.
template <class Source>
void pack_pixels(const Source& source, Index element, Index step, Index pixels, Index first_channel, Index channels,
                 Index ahead, Index plane, bfloat16* target) {
    constexpr Index lane_count = lanes<bfloat16>;
    constexpr Index together = 2 * lane_count;  // channels
    const auto place = [&](Index k) { return target + k / pair_lanes * plane + k % pair_lanes; };
    Index k = 0;
    for (; k + together <= channels; k += together) {
        const Index channel = first_channel + k;
        source.with_channels(channel, constant<2>, constant<lane_count>, [&](const auto& value_at) {
            bfloat16* to = place(k);
            Index from = element + channel;
            for (Index i = 0; i < pixels; ++i, from += step, to += pair_lanes) {
                prefetch_line(source.tensors(), from + ahead);
                const Vector<bfloat16> values[2] = {value_at(from, constant<0>), value_at(from, constant<1>)};
                store_vectors<bfloat16>(values, to);
            }
        });
    }
    for_each_vector<bfloat16>(channels - k, [&](Index rest, auto count) {
        const Index channel = first_channel + k + rest;
        source.with_channels(channel, constant<1>, count, [&](const auto& value_at) {
            bfloat16* to = place(k + rest);
            for (Index i = 0; i < pixels; ++i) {
                store<bfloat16>(value_at(element + channel + i * step, constant<0>), to + i * pair_lanes);
            }
        });
    });
    for (k = round_up(channels, lane_count); k < round_up(channels, pair_lanes); k += lane_count) {
        for (Index i = 0; i < pixels; ++i) store<bfloat16>(Vector<bfloat16>{}, place(k) + i * pair_lanes);
    }
}

/// Fills the lines that a shape says, in blocks `plane` elements apart. All channels of a few pixels are packed, then those
/// of the next few: memory is read nearly in its order.
template <class Source>
void pack_lines(const Source& source, const SlabShape& slab, Index plane, bfloat16* target) {
    constexpr Index strip = 16;  // pixels
    const ImageView& image = source.view();
    const Index height = image.extents.height;
    const Index width = image.extents.width;
    // The columns [before, after) of the slab lie in the image.
    const Index before = std::clamp<Index>(quotient_up(-slab.first_column, slab.column_step), 0, slab.columns);
    const Index after =
        std::clamp<Index>(quotient_up(width - slab.first_column, slab.column_step), before, slab.columns);
    const Index step = image.element(0, 0, slab.column_step);
    const Index blocks = quotient_up(slab.channels, pair_lanes);
    for (Index r = 0; r < slab.rows; ++r, target += slab.columns * pair_lanes) {
        const Index row = slab.first_row + r * slab.row_step;
        const bool inside = row >= 0 && row < height;
        const Index first = inside ? before : slab.columns;
        const Index last = inside ? after : slab.columns;
        for (Index b = 0; b < blocks; ++b) {
            std::memset(static_cast<void*>(target + b * plane), 0, static_cast<std::size_t>(first) * 64);
            std::memset(static_cast<void*>(target + b * plane + last * pair_lanes), 0,
                        static_cast<std::size_t>(slab.columns - last) * 64);
        }
        for (Index c = first; c < last; c += strip) {
            const Index element = image.element(slab.sample, row, slab.first_column + c * slab.column_step);
            pack_pixels(source, element, step, std::min(strip, last - c), slab.first_channel, slab.channels,
                        strip * step, plane, target + c * pair_lanes);
        }
    }
}

}  // namespace cpu

SD_NAMESPACE_END
