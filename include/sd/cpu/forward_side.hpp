// How a convolution reads x, forward and by weight: what is packed into slabs, and which weight meets it.
//
//     1x1, no stride, no padding      all pixels of the batch are one row: no edges, tiles are always full
//     few channels (the first layer)  x(n, h, j stride - padding + kw dilation, c) becomes channel (kw, c) of pixel
//                                     (n, h, j) of a wider image, so that vectors are filled; taps are (kh) alone
//     any other                       x as it is
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/lattice.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/cpu/simd.hpp"

SD_NAMESPACE_BEGIN

namespace cpu {

template <class T>
class ForwardSide {
public:
    ForwardSide(const Pending<T>& input, const Conv2dGeometry& geometry)
        : x(input),
          lattice(forward_lattice(geometry)),
          plan(geometry, lanes<T>),
          depth(plan.in()),
          y_shape(geometry.output_shape()),
          geometry_(geometry) {
        const Conv2dOptions& options = geometry.options;
        if (lattice.taps.size() == 1 && options.stride == 1 && options.padding == 0) {
            const Index pixels = geometry.batch * geometry.in_height * geometry.in_width;
            x.raw = input.raw.reshape({1, 1, pixels, geometry.in_channels});
            y_shape = {1, 1, pixels, geometry.out_channels};
            lattice.height = 1;
            lattice.width = pixels;
        } else if (options.groups == 1 && geometry.in_channels < lanes<T> && geometry.kernel_width > 1) {
            unrolled_ = true;
            x = unroll_columns(input);
            depth = x.channels();
            lattice = unrolled_lattice();
        }
    }

    /// The weights of a merged group.
    [[nodiscard]] WeightMap weights(Index group) const {
        WeightMap map{plan.in_indices(), plan.out_indices(group), tap_positions(lattice)};
        if (!unrolled_) return map;
        const Index channels = geometry_.in_channels;
        map.depth.clear();
        for (Index k = 0; k < depth; ++k) map.depth.push_back({k % channels * plan.positions + k / channels, 0});
        return map;
    }

    Pending<T> x;
    Lattice lattice;
    GroupPlan plan;
    Index depth;    ///< channels of x that a merged group reads
    Shape y_shape;  ///< of y, as the lattice sees it

private:
    [[nodiscard]] Lattice unrolled_lattice() const {
        Lattice result{0, 0, 1, geometry_.out_height, geometry_.out_width, geometry_.options.stride, 1, {}};
        for (Index kh = 0; kh < geometry_.kernel_height; ++kh) {
            result.taps.push_back({kh * geometry_.kernel_width, kh * geometry_.options.dilation - geometry_.options.padding, 0});
        }
        return result;
    }

    [[nodiscard]] Tensor<T> unroll_columns(const Pending<T>& input) const {
        const Conv2dOptions& options = geometry_.options;
        const Index channels = geometry_.in_channels;
        const Index width = geometry_.in_width;
        Tensor<T> wide = Tensor<T>::empty(
            {geometry_.batch, geometry_.in_height, geometry_.out_width, geometry_.kernel_width * channels});
        parallel_for(geometry_.batch * geometry_.in_height, [&](Index row) {
            T* target = wide.data() + row * wide.extent(2) * wide.extent(3);
            for (Index j = 0; j < geometry_.out_width; ++j) {
                for (Index kw = 0; kw < geometry_.kernel_width; ++kw, target += channels) {
                    const Index column = j * options.stride - options.padding + kw * options.dilation;
                    if (column < 0 || column >= width) {
                        std::fill_n(target, channels, T(0));
                    } else {
                        const T* raw = input.raw.data() + (row * width + column) * channels;
                        load_pending(input, raw, 0, channels, target);
                    }
                }
            }
        });
        return wide;
    }

    const Conv2dGeometry& geometry_;
    bool unrolled_ = false;
};

}  // namespace cpu

SD_NAMESPACE_END
