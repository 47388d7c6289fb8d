// Pairs of rows as the columns of tiles (tile_machine.hpp), and the panels of weights that are made so.
//
//     panels  (panel of 32 columns, block of 32 depth channels, tap, half, pair of channels, column of the half, part)
#pragma once

#include "sd/cpu/tile_machine.hpp"
#include "sd/cpu/weights.hpp"

#include <cstring>

SD_NAMESPACE_BEGIN

namespace cpu {

/// All panels of a map's weights in bfloat16, zeros beyond the last channel and column; each column times its factor, if
/// factors are given.
[[nodiscard]] inline Tensor<bfloat16> pack_pair_panels(const Tensor<float>& weight, const WeightMap& map,
                                                       const float* factors) {
    constexpr Index half = pair_lanes / 2;
    const Index taps = map.tap_count();
    const Index of_block = taps * pair_step;
    const Shape shape{quotient_up(map.column_count(), pair_lanes),
                      quotient_up(map.depth_count(), pair_lanes) * of_block};
    const bool full = map.depth_count() % pair_lanes == 0;
    Tensor<bfloat16> packed = full ? Tensor<bfloat16>::empty(shape) : Tensor<bfloat16>(shape);
    if (packed.size() == 0) return packed;
    const PanelPacker<float> packer(weight, map, pair_lanes, factors);
    Tensor<float> blocks = Tensor<float>::empty({num_threads(), taps * lanes<float> * pair_lanes});
    packer.for_each_block([&](Index panel, Index first) {
        float* block = blocks.data() + thread_index() * blocks.extent(1);  // (tap, channel, column)
        packer.pack_block(panel, first, block);
        const Index depth = packer.block_depth(first);
        bfloat16* target =
            packed.data() + panel * shape[1] + first / pair_lanes * of_block + first % pair_lanes / 2 * pair_lanes;
        for (Index tap = 0; tap < taps; ++tap, target += pair_step) {
            for (Index k = 0; k < depth; k += 2) {
                const float* row = block + (tap * depth + k) * pair_lanes;
                for (Index c = 0; c < pair_lanes; c += lanes<float>) {
                    const Vector<float> second = k + 1 < depth ? load(row + pair_lanes + c) : Vector<float>{};
                    const Words words = paired(load(row + c), second);
                    bfloat16* to = target + c / half * (pair_step / 2) + k / 2 * pair_lanes + c % half * 2;
                    std::memcpy(static_cast<void*>(to), &words, sizeof words);
                }
            }
        }
    });
    return packed;
}

}  // namespace cpu

SD_NAMESPACE_END
