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
#include <vector>

SD_NAMESPACE_BEGIN

namespace cpu {

/// One index of a weight: the part of its place in the tensor that the index decides, and its group. A weight between
/// different groups is zero and stands nowhere.
struct WeightIndex {
    Index offset, group;
};

/// The weights that take `depth` channels at some taps to `columns` channels.
struct WeightMap {
    std::vector<WeightIndex> depth, columns;
    std::vector<Index> taps;

    /// Where the weight stands, or -1.
    [[nodiscard]] Index offset(Index k, Index column, Index tap) const {
        const WeightIndex& from = depth[static_cast<std::size_t>(k)];
        const WeightIndex& to = columns[static_cast<std::size_t>(column)];
        return from.group == to.group ? from.offset + to.offset + taps[static_cast<std::size_t>(tap)] : -1;
    }
    [[nodiscard]] Index depth_count() const { return static_cast<Index>(depth.size()); }
    [[nodiscard]] Index column_count() const { return static_cast<Index>(columns.size()); }
    [[nodiscard]] Index tap_count() const { return static_cast<Index>(taps.size()); }
};

/// Panels of `width` columns, zeros beyond the last one; each column times its factor, if factors are given.
template <class T>
[[nodiscard]] Tensor<T> pack_panels(const Tensor<T>& weight, const WeightMap& map, Index width, const T* factors) {
    const Index panels = quotient_up(map.column_count(), width);
    const Index panel_size = map.depth_count() * map.tap_count() * width;
    const Index blocks = quotient_up(map.depth_count(), lanes<T>);
    Tensor<T> packed = Tensor<T>::empty({panels, panel_size});
    parallel_for(panels * blocks, [&](Index task) {
        const Index first_column = task / blocks * width;
        const Index first = task % blocks * lanes<T>;
        const Index depth = std::min(lanes<T>, map.depth_count() - first);
        const Index columns = std::min(width, map.column_count() - first_column);
        T* target = packed.data() + task / blocks * panel_size + first * map.tap_count() * width;
        for (Index c = 0; c < width; ++c) {  // a column's weights lie together in the tensor
            const T factor = factors != nullptr && c < columns ? factors[first_column + c] : T(1);
            for (Index tap = 0; tap < map.tap_count(); ++tap) {
                for (Index k = 0; k < depth; ++k) {
                    const Index offset = c < columns ? map.offset(first + k, first_column + c, tap) : -1;
                    target[(tap * depth + k) * width + c] = offset < 0 ? T(0) : factor * weight.data()[offset];
                }
            }
        }
    });
    return packed;
}

}  // namespace cpu

SD_NAMESPACE_END
