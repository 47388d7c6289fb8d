// The geometry of a convolution as a product that reads one image and writes another.
//
//     forward:   writes y,  reads x,   for each output channel o over depth (i, kh, kw)
//     by input:  writes dx, reads dy,  for each input channel i over depth (o, kh, kw)
//
// Written pixels that read through the same taps form a lattice. Forward, all of y is one. By input with stride s, the
// pixels of dx fall into s x s lattices, each reached by its own taps only, so no product with a zero that the stride
// made is computed.
#pragma once

#include "sd/core/storage.hpp"
#include "sd/core/window.hpp"
#include "sd/cpu/weights.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// One position of the kernel, and where it reads relative to a lattice point.
struct Tap {
    Index kernel_position;  ///< kh * kernel_width + kw
    Index row_offset, column_offset;
};

/// Lattice point (i, j) writes pixel (row + i step, column + j step); its taps read the pixels (i row_step +
/// row_offset, j column_step + column_offset).
struct Lattice {
    Index row = 0, column = 0, step = 1;
    Index height = 0, width = 0;  ///< points
    Index row_step = 1, column_step = 1;
    PooledVector<Tap> taps;

    /// The least and the largest offset of a tap, 0 without taps.
    [[nodiscard]] Index first_row() const { return least(&Tap::row_offset); }
    [[nodiscard]] Index last_row() const { return largest(&Tap::row_offset); }
    [[nodiscard]] Index first_column() const { return least(&Tap::column_offset); }
    [[nodiscard]] Index last_column() const { return largest(&Tap::column_offset); }

private:
    [[nodiscard]] Index least(Index Tap::*offset) const {
        const auto found = std::min_element(taps.begin(), taps.end(),
                                            [&](const Tap& a, const Tap& b) { return a.*offset < b.*offset; });
        return found == taps.end() ? 0 : (*found).*offset;
    }
    [[nodiscard]] Index largest(Index Tap::*offset) const {
        const auto found = std::max_element(taps.begin(), taps.end(),
                                            [&](const Tap& a, const Tap& b) { return a.*offset < b.*offset; });
        return found == taps.end() ? 0 : (*found).*offset;
    }
};

/// Leaves out the taps that read nothing but padding of an image, for whichever point: what others read then lies
/// within an image's extent around the points, however large the dilation.
inline void drop_idle_taps(Lattice& lattice, Index image_height, Index image_width) {
    std::erase_if(lattice.taps, [&](const Tap& tap) {
        const auto misses = [](Index first, Index last, Index extent) { return last < 0 || first >= extent; };
        return misses(tap.row_offset, tap.row_offset + (lattice.height - 1) * lattice.row_step, image_height) ||
               misses(tap.column_offset, tap.column_offset + (lattice.width - 1) * lattice.column_step, image_width);
    });
}

/// Whether each pixel is read for itself: a 1x1 kernel without stride and padding.
[[nodiscard]] inline bool is_pointwise(const Conv2dGeometry& geometry) {
    return geometry.kernel_height * geometry.kernel_width == 1 && geometry.options.stride == 1 &&
           geometry.options.padding == 0;
}

/// A batch whose pixels are taken as one row: no edges, so tiles are always full.
[[nodiscard]] inline Shape as_one_row(const Shape& images) {
    return {1, 1, images[0] * images[1] * images[2], images[3]};
}

/// All pixels of y, reading x.
[[nodiscard]] inline Lattice forward_lattice(const Conv2dGeometry& geometry) {
    const Conv2dOptions& options = geometry.options;
    Lattice lattice{0, 0, 1, geometry.out_height, geometry.out_width, options.stride, options.stride, {}};
    for (Index kh = 0; kh < geometry.kernel_height; ++kh) {
        for (Index kw = 0; kw < geometry.kernel_width; ++kw) {
            lattice.taps.push_back({kh * geometry.kernel_width + kw, kh * options.dilation - options.padding,
                                    kw * options.dilation - options.padding});
        }
    }
    return lattice;
}

/// The same with the taps that read x, not only its padding.
[[nodiscard]] inline Lattice read_lattice(const Conv2dGeometry& geometry) {
    Lattice lattice = forward_lattice(geometry);
    drop_idle_taps(lattice, geometry.in_height, geometry.in_width);
    return lattice;
}

/// The lattices of dx, reading dy. Tap (kh, kw) maps row h of dx to row (h + padding - kh dilation) / stride of dy, if
/// that is whole.
[[nodiscard]] inline PooledVector<Lattice> by_input_lattices(const Conv2dGeometry& geometry) {
    const Conv2dOptions& options = geometry.options;
    const Index stride = options.stride;
    PooledVector<Lattice> lattices;
    const Index rows = std::min(stride, geometry.in_height);
    const Index columns = std::min(stride, geometry.in_width);
    for (Index phase = 0; phase < rows * columns; ++phase) {
        Lattice lattice;
        lattice.row = phase / columns;
        lattice.column = phase % columns;
        lattice.step = stride;
        lattice.height = quotient_up(geometry.in_height - lattice.row, stride);
        lattice.width = quotient_up(geometry.in_width - lattice.column, stride);
        for (Index kh = 0; kh < geometry.kernel_height; ++kh) {
            const Index row = lattice.row + options.padding - kh * options.dilation;
            for (Index kw = 0; kw < geometry.kernel_width; ++kw) {
                const Index column = lattice.column + options.padding - kw * options.dilation;
                if (row % stride != 0 || column % stride != 0) continue;
                lattice.taps.push_back({kh * geometry.kernel_width + kw, row / stride, column / stride});
            }
        }
        drop_idle_taps(lattice, geometry.out_height, geometry.out_width);
        lattices.push_back(std::move(lattice));
    }
    return lattices;
}

/// Groups that are computed together. Groups of few channels would leave most of a vector empty, so as many as fill at
/// most one are taken as one group, whose weights between different groups are zero. Where they do not come out even, the
/// last merged group begins with groups that the one before ends with, and writes the same to them again.
struct GroupPlan {
    GroupPlan(const Conv2dGeometry& geometry, Index lanes)
        : group_in(geometry.group_in),
          group_out(geometry.group_out),
          positions(geometry.kernel_height * geometry.kernel_width) {
        const Index groups = geometry.options.groups;
        const Index most = std::clamp<Index>(lanes / std::min(group_in, group_out), 1, groups);
        count = quotient_up(groups, most);
        merged = quotient_up(groups, count);
        last_first = groups - merged;
    }

    /// Channels of a merged group.
    [[nodiscard]] Index in() const { return merged * group_in; }
    [[nodiscard]] Index out() const { return merged * group_out; }

    /// Where the channels of a merged group begin.
    [[nodiscard]] Index first_in(Index group) const { return first_group(group) * group_in; }
    [[nodiscard]] Index first_out(Index group) const { return first_group(group) * group_out; }

    /// The input and the output channels of merged group `group` as indices of a weight (O, I / groups, KH, KW).
    [[nodiscard]] PooledVector<WeightIndex> in_indices() const {
        PooledVector<WeightIndex> indices;
        for (Index i = 0; i < in(); ++i) indices.push_back({i % group_in * positions, i / group_in});
        return indices;
    }
    [[nodiscard]] PooledVector<WeightIndex> out_indices(Index group) const {
        PooledVector<WeightIndex> indices;
        for (Index o = 0; o < out(); ++o) {
            indices.push_back({(first_out(group) + o) * group_in * positions, o / group_out});
        }
        return indices;
    }

    Index group_in, group_out, positions;
    Index merged;  ///< groups of a merged group
    Index count;   ///< of merged groups

private:
    [[nodiscard]] Index first_group(Index group) const { return std::min(group * merged, last_first); }

    Index last_first;
};

/// The kernel positions of a lattice's taps.
[[nodiscard]] inline PooledVector<Index> tap_positions(const Lattice& lattice) {
    PooledVector<Index> positions;
    for (const Tap& tap : lattice.taps) positions.push_back(tap.kernel_position);
    return positions;
}

}  // namespace cpu

SD_NAMESPACE_END
