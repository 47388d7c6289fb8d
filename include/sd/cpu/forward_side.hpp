// How a convolution reads x, forward and by weight: which image is packed into slabs, and which weight meets it.
//
//     1x1, no stride, no padding      all pixels of the batch are one row: no edges, tiles are always full
//     few channels (the first layer)  the columns that a row of the kernel covers are taken as channels, which fill a
//                                     vector; taps are the kernel's rows alone. They lie together in memory already:
//
//                                     padded row   | 0 0 0 | r g b | r g b | r g b | r g b | ...
//                                     pixel 0      |<------- kernel_width * C ------->|
//                                     pixel 1             stride * C ->|<--- ...
//
//     any other                       x as it is
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/lattice.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/cpu/source.hpp"
#include "sd/cpu/tile_machines.hpp"

#include <type_traits>

SD_NAMESPACE_BEGIN

namespace cpu {

/// x, the points of y and the weights between them.
template <class T>
class ForwardSide {
public:
    ForwardSide(const Pending<T>& input, const Conv2dGeometry& geometry)
        : x(input),
          x_view(input.shape()),
          lattice(forward_lattice(geometry)),
          plan(geometry, group_lanes<T>()),
          depth(plan.in()),
          y_shape(geometry.output_shape()) {
        const Conv2dOptions& options = geometry.options;
        if (is_pointwise(geometry)) {
            x_view = ImageView(as_one_row(input.shape()));
            y_shape = as_one_row(y_shape);
            lattice.height = 1;
            lattice.width = y_shape[2];
        } else if (options.groups == 1 && options.dilation == 1 && geometry.in_channels < lanes<T> &&
                   geometry.kernel_width > 1 && copies_exactly()) {
            read_columns_as_channels(geometry);
        }
        drop_idle_taps(lattice, x_view.extents.height, x_view.extents.width);
    }

    /// The weights of a merged group.
    [[nodiscard]] WeightMap weights(Index group) const {
        WeightMap map{plan.in_indices(), plan.out_indices(group), tap_positions(lattice), plan.positions};
        if (depth == plan.in()) return map;
        map.depth.clear();
        for (Index k = 0; k < depth; ++k) map.depth.push_back({k % plan.in() * plan.positions + k / plan.in(), 0});
        return map;
    }

    /// Whether each weight meets some pixel.
    [[nodiscard]] bool reads_every_weight() const {
        return static_cast<Index>(lattice.taps.size()) * depth == plan.positions * plan.in();
    }

    Pending<T> x;
    ImageView x_view;
    Lattice lattice;
    GroupPlan plan;
    Index depth;    ///< channels of x that a merged group reads
    Shape y_shape;  ///< of y, as the lattice sees it

private:
    // Whether a copy of the values has them as they are.
    [[nodiscard]] bool copies_exactly() const { return std::is_same_v<T, accumulate_t<T>> || x.is_plain(); }

    void read_columns_as_channels(const Conv2dGeometry& geometry) {
        const Conv2dOptions& options = geometry.options;
        const Index channels = geometry.in_channels;
        depth = geometry.kernel_width * channels;
        x = padded_columns(geometry);
        const Index row = x.shape()[2] * channels;
        x_view = ImageView({geometry.batch, geometry.in_height, geometry.out_width, depth}, geometry.in_height * row,
                           row, options.stride * channels);
        lattice.column_step = 1;
        lattice.taps.clear();
        for (Index kh = 0; kh < geometry.kernel_height; ++kh) {
            lattice.taps.push_back({kh * geometry.kernel_width, kh - options.padding, 0});
        }
    }

    // The values of x with the padding of the columns.
    [[nodiscard]] Tensor<T> padded_columns(const Conv2dGeometry& geometry) const {
        const Index channels = geometry.in_channels;
        const Index padding = geometry.options.padding * channels;
        const Index row = geometry.in_width * channels;
        const Index alike = x.scale || x.gate ? channels : row;  // elements that nothing or the same is done to
        Tensor<T> wide = Tensor<T>::empty(
            {geometry.batch, geometry.in_height, geometry.in_width + 2 * geometry.options.padding, channels});
        parallel_for(geometry.batch * geometry.in_height, [&](Index i) {
            T* target = wide.data() + i * (row + 2 * padding);
            std::fill_n(target, padding, T(0));
            for (Index c = 0; c < row; c += alike) {
                load_pending(x, x.raw.data() + i * row + c, 0, alike, target + padding + c);
            }
            std::fill_n(target + padding + row, padding, T(0));
        });
        return wide;
    }
};

}  // namespace cpu

SD_NAMESPACE_END
