// Where a convolution's weights stand in the OIHW tensor, and the panels that tiles read.
//
//     OIHW    (output channel, input channel of its group, position of the kernel)
//     panels  (panel, block of depth channels, tap, channel of the block, column)      columns: what is written
//
// A panel lies in the order in which a tile reads it.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/tensor.hpp"
#include "sd/cpu/simd.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// One index of a weight: the part of its place in the tensor that the index decides, and its group. A weight between
/// different groups is zero and stands nowhere.
struct WeightIndex {
    Index offset, group;
};

/// The weights that take `depth` channels at some taps to `columns` channels.
struct WeightMap {
    PooledVector<WeightIndex> depth, columns;
    PooledVector<Index> taps;

    /// Whether some weights stand nowhere.
    [[nodiscard]] bool has_groups() const { return !depth.empty() && depth.back().group != 0; }
    [[nodiscard]] Index depth_count() const { return static_cast<Index>(depth.size()); }
    [[nodiscard]] Index column_count() const { return static_cast<Index>(columns.size()); }
    [[nodiscard]] Index tap_count() const { return static_cast<Index>(taps.size()); }
};

/// Calls use(k, tap, weight's place) for every weight that takes depth channels [first, last) to a column.
template <class Use>
[[gnu::always_inline]] inline void for_each_weight(const WeightMap& map, Index first, Index last, Index column,
                                                   const Use& use) {
    const WeightIndex to = map.columns[static_cast<std::size_t>(column)];
    const WeightIndex* from = map.depth.data();
    for (Index tap = 0; tap < map.tap_count(); ++tap) {
        const Index place = to.offset + map.taps[static_cast<std::size_t>(tap)];
        for (Index k = first; k < last; ++k) {
            if (from[k].group == to.group) use(k, tap, place + from[k].offset);
        }
    }
}

/// Panels of `width` columns, zeros beyond the last one; each column times its factor, if factors are given.
template <class T>
[[nodiscard]] Tensor<T> pack_panels(const Tensor<T>& weight, const WeightMap& map, Index width, const T* factors) {
    const Index panels = quotient_up(map.column_count(), width);
    const Index taps = map.tap_count();
    const Index panel_size = map.depth_count() * taps * width;
    const Index blocks = quotient_up(map.depth_count(), lanes<T>);
    Tensor<T> packed = Tensor<T>::empty({panels, panel_size});
    parallel_for(panels * blocks, [&](Index task) {
        const Index first_column = task / blocks * width;
        const Index columns = std::min(width, map.column_count() - first_column);
        const Index first = task % blocks * lanes<T>;
        const Index depth = std::min(lanes<T>, map.depth_count() - first);
        T* target = packed.data() + task / blocks * panel_size + first * taps * width;
        if (columns < width || map.has_groups()) std::fill_n(target, depth * taps * width, T(0));
        for (Index c = 0; c < columns; ++c) {  // a column's weights lie together in the tensor
            const T factor = factors == nullptr ? T(1) : factors[first_column + c];
            for_each_weight(map, first, first + depth, first_column + c, [&](Index k, Index tap, Index place) {
                target[(tap * depth + k - first) * width + c] = factor * weight.data()[place];
            });
        }
    });
    return packed;
}

}  // namespace cpu

SD_NAMESPACE_END
