// Two-dimensional convolution, forward and by input, as one product over slabs (product.hpp); by weight in a file of
// its own.
#pragma once

#include "sd/cpu/batch_norm.hpp"
#include "sd/cpu/conv2d_by_weight.hpp"
#include "sd/cpu/forward_side.hpp"
#include "sd/cpu/product.hpp"
#include "sd/reference/conv2d.hpp"

#include <vector>

SD_NAMESPACE_BEGIN

using reference::conv2d_by_input;
using reference::conv2d_forward;

namespace cpu {

/// Writes the points of one lattice for one merged group; weight_at as in pack_panels. Statistics of task t go to
/// moments(t, 0 to 2, column): mean, m2 and count, if given.
template <class T, class WeightAt>
void product(const Pending<T>& source, const Lattice& lattice, Index first_channel, Index channels, Index first_column,
             Index columns, const WeightAt& weight_at, Tensor<T>& target, Tensor<T>* moments) {
    if (lattice.taps.empty()) channels = 0;  // nothing to read: the points are zero
    const std::size_t shape = choose_tile<T>(lattice.width, columns);
    const auto [points, vectors] = tile_shapes[shape];
    const Index width = vectors * lanes<T>;
    const auto taps = static_cast<Index>(lattice.taps.size());
    const Tensor<T> weights = pack_panels<T>(channels, columns, taps, width, weight_at);
    const RunPanel<T> run = find_run_panel<T>(shape, slab_column_step(lattice));
    const Cut cut = Cut::of(lattice, slab_pixels<T>(channels), points);
    const Index tasks = source.shape()[0] * cut.pieces_of_sample();
    const PendingSource<T> values(source);
    const Index target_channels = target.extent(3);
    if (moments != nullptr) *moments = Tensor<T>::empty({tasks, 3, columns});

    parallel_for(tasks, [&](Index t) {
        const Piece piece = cut.piece(lattice, t);
        const SlabShape slab = piece.slab(lattice, first_channel, channels);
        Tensor<T> packed = Tensor<T>::empty({slab.size<T>(points * slab_column_step(lattice))});
        pack_slab<T>(values, slab, packed.data());
        const std::vector<Index> offsets = tap_offsets(lattice, slab.columns, lanes<T>);
        const Index row = lattice.row + piece.first_row * lattice.step;
        const Index column = lattice.column + piece.first_column * lattice.step;
        T* first_pixel =
            target.data() + ((piece.sample * target.extent(1) + row) * target.extent(2) + column) * target_channels;
        PanelTask<T> task{.slab = packed.data(),
                          .slab_columns = slab.columns,
                          .plane = slab.plane<T>(),
                          .channels = channels,
                          .row_step = slab_row_step(lattice),
                          .point_step = slab_column_step(lattice),
                          .tap_offsets = offsets.data(),
                          .taps = taps,
                          .weights = nullptr,
                          .rows = piece.rows,
                          .width = piece.width,
                          .target = nullptr,
                          .row_stride = lattice.step * target.extent(2) * target_channels,
                          .pixel_stride = lattice.step * target_channels,
                          .columns = 0,
                          .moments = nullptr,
                          .moments_stride = columns};
        for (Index c = 0; c < columns; c += width) {
            task.weights = weights.data() + c / width * weights.extent(1);
            task.columns = std::min(width, columns - c);
            task.target = first_pixel + first_column + c;
            task.moments = moments == nullptr ? nullptr : moments->data() + t * 3 * columns + c;
            run(task);
        }
        if (moments != nullptr) moments->data()[(t * 3 + 2) * columns] = static_cast<T>(piece.rows * piece.width);
    });
}

/// Merges the statistics of the tasks, in their order.
template <class T>
void merge_task_moments(const Tensor<T>& tasks, Index first_column, Moments<T>& moments) {
    const Index columns = tasks.extent(2);
    parallel_ranges(columns, 64, [&](Index first, Index last) {
        for (Index c = first; c < last; ++c) {
            double mean = 0;
            double m2 = 0;
            Index count = 0;
            for (Index t = 0; t < tasks.extent(0); ++t) {
                const T* task = tasks.data() + t * 3 * columns;
                const auto task_count = static_cast<Index>(task[2 * columns]);
                merge_moments(count, mean, m2, task_count, static_cast<double>(task[c]),
                              static_cast<double>(task[columns + c]));
                count += task_count;
            }
            moments.mean.data()[first_column + c] = static_cast<T>(mean);
            moments.m2.data()[first_column + c] = static_cast<T>(m2);
        }
    });
}

}  // namespace cpu

/// y = x * weight, x (N, H, W, C) pending, weight (O, C / groups, KH, KW), y (N, OH, OW, O); extents as in
/// Conv2dGeometry. If `moments` is given it receives the statistics of every channel of y, gathered as y is written,
/// for the batch norm that follows.
/// Throws std::invalid_argument if settings or shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> conv2d_forward(const Pending<T>& x, const Tensor<accumulate_t<T>>& weight,
                                       const Conv2dOptions& options, Moments<accumulate_t<T>>* moments = nullptr) {
    const Conv2dGeometry geometry(x.shape(), weight.shape(), options);
    Tensor<T> y = Tensor<T>::empty(geometry.output_shape());
    if (moments != nullptr) {
        const Shape channels{geometry.out_channels};
        *moments = {y.size() / std::max<Index>(geometry.out_channels, 1), Tensor<T>(channels), Tensor<T>(channels)};
    }
    if (y.size() == 0) return y;
    const cpu::ForwardSide<T> side(x, geometry);
    const cpu::GroupPlan& plan = side.plan;
    Tensor<T> target = y.reshape(side.y_shape);
    for (Index group = 0; group < plan.count; ++group) {
        const auto weight_at = [&](Index k, Index o, Index tap) {
            const Index offset = side.weight_offset(group, o, k, tap);
            return offset < 0 ? T(0) : weight.data()[offset];
        };
        Tensor<T> task_moments;
        cpu::product(side.x, side.lattice, group * plan.in(), side.depth, group * plan.out(), plan.out(), weight_at,
                     target, moments == nullptr ? nullptr : &task_moments);
        if (moments != nullptr) cpu::merge_task_moments(task_moments, group * plan.out(), *moments);
    }
    return y;
}

/// The gradient by the value of x (with its pending scale, shift and ReLU applied), of shape x_shape:
///
///     dx(n, h, w, i) = sum over o, kh, kw of weight(o, i, kh, kw) dy(n, oh, ow, o) where x(n, h, w, i) met it forward
///
/// Throws std::invalid_argument if settings or shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> conv2d_by_input(const Tensor<T>& dy, const Tensor<accumulate_t<T>>& weight,
                                        const Conv2dOptions& options, const Shape& x_shape) {
    const Conv2dGeometry geometry(x_shape, weight.shape(), options);
    expect_shape("conv2d_by_input", "dy", dy.shape(), geometry.output_shape());
    Tensor<T> dx = Tensor<T>::empty(x_shape);
    if (dx.size() == 0) return dx;
    const cpu::GroupPlan plan(geometry, cpu::lanes<T>);
    const Index positions = geometry.kernel_height * geometry.kernel_width;
    std::vector<cpu::Lattice> lattices = cpu::by_input_lattices(geometry);
    Tensor<T> source = dy;
    Tensor<T> target = dx;
    if (positions == 1 && options.stride == 1 && options.padding == 0) {  // all pixels are one row, as forward
        const Index pixels = dy.size() / geometry.out_channels;
        source = dy.reshape({1, 1, pixels, geometry.out_channels});
        target = dx.reshape({1, 1, pixels, geometry.in_channels});
        lattices.front().height = 1;
        lattices.front().width = pixels;
    }
    for (const cpu::Lattice& lattice : lattices) {
        for (Index group = 0; group < plan.count; ++group) {
            const auto weight_at = [&](Index o, Index i, Index tap) {
                const Index offset = plan.weight_offset(group, o, i, positions);
                const Index position = lattice.taps[static_cast<std::size_t>(tap)].kernel_position;
                return offset < 0 ? T(0) : weight.data()[offset + position];
            };
            cpu::product<T>(source, lattice, group * plan.out(), plan.out(), group * plan.in(), plan.in(), weight_at,
                            target, nullptr);
        }
    }
    return dx;
}

SD_NAMESPACE_END
