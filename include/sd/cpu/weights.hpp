// Where a convolution's weights are in the OIHW tensor, and the panels that tiles read.
//
//     OIHW    (output channel, input channel of its group, position of the kernel)
//     panels  (panel, block of depth channels, tap, channel of the block, column)      columns: what is written
//
// A panel lies in the order in which a tile reads it.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/tensor.hpp"
#include "sd/cpu/target.hpp"
#include "sd/cpu/transpose.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// One index of a weight: the part of its place in the tensor that the index decides, and its group. A weight between
/// different groups is zero and is stored nowhere.
struct WeightIndex {
    Index offset, group;
};

/// The weights that take `depth` channels at some taps to `columns` channels.
struct WeightMap {
    PooledVector<WeightIndex> depth, columns;
    PooledVector<Index> taps;  ///< positions of the kernel
    Index positions;           ///< that a kernel has

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

/// The order of a map whose depth and columns both go through the tensor in equal steps, one of them from a kernel to
/// the next. What a column has of one depth channel, or of all, is then a run of memory, and `lanes` columns are moved
/// together. Maps of merged groups, and of columns that are read as channels, have no such order.
class WeightRuns {
public:
    explicit WeightRuns(const WeightMap& map)
        : map_(map),
          column_step_(step_of(map.columns)),
          run_channels_(step_of(map.depth) == map.positions ? map.depth_count() : 1),
          tap_of_(static_cast<std::size_t>(map.positions), Index{-1}) {
        for (Index tap = 0; tap < map.tap_count(); ++tap) {
            tap_of_[static_cast<std::size_t>(map.taps[static_cast<std::size_t>(tap)])] = tap;
        }
        const auto whole_kernels = [&](Index step) { return step > 0 && step % map.positions == 0; };
        exist_ = !map.has_groups() && whole_kernels(step_of(map.depth)) && whole_kernels(column_step_) &&
                 (run_channels_ > 1 || column_step_ == map.positions);
    }

    /// Whether there is such an order.
    [[nodiscard]] bool exist() const { return exist_; }
    /// Whether columns lie side by side, a weight each.
    [[nodiscard]] bool columns_adjoin() const { return column_step_ == 1; }

    /// Calls use(k, tap, weights) for depth channels [first, last), with the weights of columns [column, column +
    /// count), at most `lanes`, and zeros in the other lanes.
    template <class T, class Use>
    void read(const T* weight, Index first, Index last, Index column, Index count, const Use& use) const {
        if (columns_adjoin()) {
            const T* from = weight + map_.columns[static_cast<std::size_t>(column)].offset;
            for (Index k = first; k < last; ++k) {
                use(k, Index{0}, load_some(from + map_.depth[static_cast<std::size_t>(k)].offset, count));
            }
            return;
        }
        for_each_run<T>(first, last, column, [&](Index place, Index k, Index position, Index length) {
            if (run_channels_ == 1 && taps_in(position, length) <= lanes<T> / 4) {  // not worth a transposition
                for_each_tap<T>(k, position, length, [&](Index i, Index channel, Index tap) {
                    use(channel, tap, load_apart(weight + place + i, column_step_, count));
                });
                return;
            }
            Vector<T> values[lanes<T>];
#pragma GCC unroll 16
            for (Index c = 0; c < lanes<T>; ++c) {
                values[c] = c < count ? load_some(weight + place + c * column_step_, length) : Vector<T>{};
            }
            transpose<T>(values);
            for_each_tap<T>(k, position, length,
                            [&](Index i, Index channel, Index tap) { use(channel, tap, values[i]); });
        });
    }

    /// The reverse: writes the columns' values, value_of(k, tap), to where the weights stand, by put(values, place,
    /// length). Kernel positions without a tap become zero.
    template <class T, class Put, class ValueOf>
    void write(Index first, Index last, Index column, Index count, const Put& put, const ValueOf& value_of) const {
        if (columns_adjoin()) {
            const Index place = map_.columns[static_cast<std::size_t>(column)].offset;
            for (Index k = first; k < last; ++k) {
                put(value_of(k, Index{0}), place + map_.depth[static_cast<std::size_t>(k)].offset, count);
            }
            return;
        }
        for_each_run<T>(first, last, column, [&](Index place, Index k, Index position, Index length) {
            Vector<T> values[lanes<T>];
#pragma GCC unroll 16
            for (Index i = 0; i < lanes<T>; ++i) values[i] = Vector<T>{};
            for_each_tap<T>(k, position, length,
                            [&](Index i, Index channel, Index tap) { values[i] = value_of(channel, tap); });
            transpose<T>(values);
            for (Index c = 0; c < count; ++c) put(values[c], place + c * column_step_, length);
        });
    }

private:
    /// How many of the next `length` weights of a kernel have a tap.
    [[nodiscard]] Index taps_in(Index position, Index length) const {
        const auto begin = tap_of_.begin() + position;
        return std::count_if(begin, begin + length, [](Index tap) { return tap >= 0; });
    }

    /// Elements from an index to the next, 0 if they differ or there is but one.
    [[nodiscard]] static Index step_of(const PooledVector<WeightIndex>& indices) {
        for (std::size_t i = 2; i < indices.size(); ++i) {
            if (indices[i].offset - indices[i - 1].offset != indices[1].offset - indices[0].offset) return 0;
        }
        return indices.size() < 2 ? 0 : indices[1].offset - indices[0].offset;
    }

    /// Calls use(place, channel, position, length) for each run of a column, at most `lanes` weights at a time, which
    /// begin at a channel and a position of its kernel.
    template <class T, class Use>
    [[gnu::always_inline]] void for_each_run(Index first, Index last, Index column, const Use& use) const {
        const Index positions = map_.positions;
        const Index channels = std::min(run_channels_, last - first);
        for (Index k = first; k < last; k += channels) {
            const Index place =
                map_.columns[static_cast<std::size_t>(column)].offset + map_.depth[static_cast<std::size_t>(k)].offset;
            for (Index i = 0; i < channels * positions; i += lanes<T>) {
                use(place + i, k + i / positions, i % positions, std::min(lanes<T>, channels * positions - i));
            }
        }
    }

    /// Calls use(i, channel, tap) for those of the next `length` weights that have a tap.
    template <class T, class Use>
    [[gnu::always_inline]] void for_each_tap(Index channel, Index position, Index length, const Use& use) const {
#pragma GCC unroll 16
        for (Index i = 0; i < lanes<T>; ++i) {
            if (i >= length) break;
            const Index tap = tap_of_[static_cast<std::size_t>(position)];
            if (tap >= 0) use(i, channel, tap);
            if (++position == map_.positions) {
                position = 0;
                ++channel;
            }
        }
    }

    const WeightMap& map_;
    Index column_step_, run_channels_;
    PooledVector<Index> tap_of_;  ///< of a position, -1 for none
    bool exist_;
};

/// Packs panels of `width` columns, zeros beyond the last one; each column times its factor, if factors are given.
template <class T>
class PanelPacker {
public:
    PanelPacker(const Tensor<T>& weight, const WeightMap& map, Index width, const T* factors)
        : weight_(weight.data()), map_(map), width_(width), factors_(factors), runs_(map) {}

    /// Calls use(panel, first depth channel) for all blocks of all panels, in parallel, as the weights lie in memory.
    template <class Use>
    void for_each_block(const Use& use) const {
        constexpr Index elements = Index{1} << 14;  // of a range that a thread takes
        constexpr Index adjoining_panels = 8;       // which a row of weights is read for at once
        const Index panels = quotient_up(map_.column_count(), width_);
        const Index blocks = quotient_up(map_.depth_count(), lanes<T>);
        const Index together = runs_.columns_adjoin() ? adjoining_panels : 1;
        const Index size = together * lanes<T> * map_.tap_count() * width_;
        parallel_ranges(quotient_up(panels, together) * blocks, std::max<Index>(1, elements / size),
                        [&](Index begin, Index end) {
                            for (Index i = begin; i < end; ++i) {
                                const Index first = i / blocks * together;
                                const Index last = std::min(panels, first + together);
                                for (Index p = first; p < last; ++p) use(p, i % blocks * lanes<T>);
                            }
                        });
    }

    /// Depth channels of the block that begins with one.
    [[nodiscard]] Index block_depth(Index first) const { return std::min(lanes<T>, map_.depth_count() - first); }

    /// Writes the block of a panel that begins with depth channel `first`: (tap, channel of the block, column).
    void pack_block(Index panel, Index first, T* target) const {
        const Index taps = map_.tap_count();
        const Index depth = block_depth(first);
        const Index first_column = panel * width_;
        const Index columns = std::min(width_, map_.column_count() - first_column);
        const auto row = [&](Index k, Index tap) { return target + (tap * depth + k - first) * width_; };
        if (round_up(columns, lanes<T>) < width_ || !runs_.exist()) std::fill_n(target, depth * taps * width_, T(0));
        if (runs_.exist()) {
            for (Index c = 0; c < columns; c += lanes<T>) {
                const Index count = std::min(lanes<T>, columns - c);
                const Vector<T> factor =
                    factors_ == nullptr ? Vector<T>{} + T(1) : load_some(factors_ + first_column + c, count);
                runs_.read(
                    weight_, first, first + depth, first_column + c, count,
                    [&](Index k, Index tap, const Vector<T>& values) { store<T>(factor * values, row(k, tap) + c); });
            }
            return;
        }
        for (Index c = 0; c < columns; ++c) {  // a column's weights lie together in the tensor
            const T factor = factors_ == nullptr ? T(1) : factors_[first_column + c];
            for_each_weight(map_, first, first + depth, first_column + c,
                            [&](Index k, Index tap, Index place) { row(k, tap)[c] = factor * weight_[place]; });
        }
    }

private:
    const T* weight_;
    const WeightMap& map_;
    Index width_;
    const T* factors_;
    WeightRuns runs_;
};

/// All panels of `width` columns, as PanelPacker packs them.
template <class T>
[[nodiscard]] Tensor<T> pack_panels(const Tensor<T>& weight, const WeightMap& map, Index width, const T* factors) {
    const Index of_channel = map.tap_count() * width;
    const Index panel_size = map.depth_count() * of_channel;
    Tensor<T> packed = Tensor<T>::empty({quotient_up(map.column_count(), width), panel_size});
    if (panel_size == 0) return packed;
    const PanelPacker<T> packer(weight, map, width, factors);
    packer.for_each_block([&](Index panel, Index first) {
        packer.pack_block(panel, first, packed.data() + panel * panel_size + first * of_channel);
    });
    return packed;
}

/// Writes the first span of sums (spans, panels, (tap, depth channel, column of the panel)), `tap_step` elements from a
/// tap to the next, to where the weights stand.
template <class T>
void unpack_panels(const Tensor<T>& sums, const WeightMap& map, Index width, Index tap_step, Tensor<T>& weight) {
    constexpr Index run = 512;               // weights of a column that are written together
    constexpr Index kept = Index{64} << 10;  // of larger gradients nothing is left in a cache when they are read
    const Index grain = round_up(quotient_up(run, map.positions), lanes<T>);
    const Index parts = quotient_up(map.depth_count(), grain);
    const WeightRuns runs(map);
    const Target<T> target(weight.data(), weight.size() > kept);
    parallel_for(sums.extent(1) * parts, [&](Index task) {
        const Index first_column = task / parts * width;
        const Index columns = std::min(width, map.column_count() - first_column);
        const Index first = task % parts * grain;
        const Index last = std::min(map.depth_count(), first + grain);
        const T* panel = sums.data() + task / parts * sums.extent(2);
        const auto row = [&](Index k, Index tap) { return panel + tap * tap_step + k * width; };
        if (runs.exist()) {
            for (Index c = 0; c < columns; c += lanes<T>) {
                runs.write<T>(
                    first, last, first_column + c, std::min(lanes<T>, columns - c),
                    [&](const Vector<T>& values, Index place, Index count) { target.put(values, place, count); },
                    [&](Index k, Index tap) { return load(row(k, tap) + c); });
            }
            stream_fence();
            return;
        }
        for (Index c = 0; c < columns; ++c) {
            for_each_weight(map, first, last, first_column + c,
                            [&](Index k, Index tap, Index place) { weight.data()[place] = row(k, tap)[c]; });
        }
    });
}

}  // namespace cpu

SD_NAMESPACE_END
