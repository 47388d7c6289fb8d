// Two-dimensional convolution as an implicit matrix product: the matrix of shifted pixels is never stored, blocks of
// its rows are gathered where they are multiplied.
//
// Forward and by-input are one gathering product (rows: target pixels, depth: taps x source channels):
//
//     target (pixels x columns)  =  gathered (pixels x depth)  *  weight panel (depth x columns)
//
//     forward:   target y,  source x,  column o,  depth (kh, kw, i)
//     by input:  target dx, source dy, column i,  depth (kh, kw, o)
//
// With stride s, the pixels of dx fall into s x s phases, each reached by its own taps only, so no product with a zero
// that the stride made is computed. By-weight is the outer product of the same gathered rows with dy (columns: o).
#pragma once

#include "sd/core/moments.hpp"
#include "sd/core/parallel.hpp"
#include "sd/core/window.hpp"
#include "sd/cpu/batch_norm.hpp"
#include "sd/cpu/gemm.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/reference/conv2d.hpp"

#include <vector>

SD_NAMESPACE_BEGIN

using reference::conv2d_by_input;
using reference::conv2d_by_weight;
using reference::conv2d_forward;

namespace cpu {

/// One position of the kernel, and where it reads relative to a target pixel.
struct Tap {
    Index kernel_row, kernel_column;
    Index row_offset, column_offset;
};

/// A lattice of target pixels that share their taps: lattice point (i, j) is target pixel (row + i step, column + j
/// step) and its taps read source pixels (i source_step + row_offset, j source_step + column_offset).
struct Lattice {
    Index row = 0, column = 0, step = 1;
    Index height = 0, width = 0;  ///< points
    Index source_step = 1;
    std::vector<Tap> taps;
};

/// All pixels of y, reading x.
[[nodiscard]] inline Lattice forward_lattice(const Conv2dGeometry& geometry) {
    const Conv2dOptions& options = geometry.options;
    Lattice lattice{0, 0, 1, geometry.out_height, geometry.out_width, options.stride, {}};
    for (Index kh = 0; kh < geometry.kernel_height; ++kh) {
        for (Index kw = 0; kw < geometry.kernel_width; ++kw) {
            lattice.taps.push_back(
                {kh, kw, kh * options.dilation - options.padding, kw * options.dilation - options.padding});
        }
    }
    return lattice;
}

/// The pixels of dx with (row, column) = (phase_row, phase_column) modulo the stride, reading dy. Tap (kh, kw) maps
/// target row h to source row (h + padding - kh dilation) / stride, if that is whole.
[[nodiscard]] inline Lattice by_input_lattice(const Conv2dGeometry& geometry, Index phase_row, Index phase_column) {
    const Conv2dOptions& options = geometry.options;
    const Index stride = options.stride;
    Lattice lattice{phase_row,
                    phase_column,
                    stride,
                    (geometry.in_height - phase_row + stride - 1) / stride,
                    (geometry.in_width - phase_column + stride - 1) / stride,
                    1,
                    {}};
    for (Index kh = 0; kh < geometry.kernel_height; ++kh) {
        const Index row = phase_row + options.padding - kh * options.dilation;
        for (Index kw = 0; kw < geometry.kernel_width; ++kw) {
            const Index column = phase_column + options.padding - kw * options.dilation;
            if (row % stride == 0 && column % stride == 0)
                lattice.taps.push_back({kh, kw, row / stride, column / stride});
        }
    }
    return lattice;
}

/// Gathers rows of the implicit matrix: for a target pixel, the taps' source pixels one after the other, each with the
/// channels [channel, channel + channels) of the source, pending scale, shift and ReLU applied; zeros in the padding.
template <class T>
class Gather {
public:
    Gather(const Pending<T>& source, const Lattice& lattice, Index channel, Index channels)
        : source_(source),
          lattice_(lattice),
          channel_(channel),
          channels_(channels),
          height_(source.shape()[1]),
          width_(source.shape()[2]),
          all_channels_(source.shape()[3]) {}

    [[nodiscard]] Index depth() const { return static_cast<Index>(lattice_.taps.size()) * channels_; }
    [[nodiscard]] Index pixels() const { return source_.shape()[0] * lattice_.height * lattice_.width; }

    /// row[0..last - first) = elements [first, last) of the depth, for lattice point `pixel` counted over the batch.
    void load(Index pixel, Index first, Index last, T* row) const {
        const Index j = pixel % lattice_.width;
        const Index i = pixel / lattice_.width % lattice_.height;
        const Index n = pixel / lattice_.width / lattice_.height;
        while (first < last) {
            const Tap& tap = lattice_.taps[static_cast<std::size_t>(first / channels_)];
            const Index c = first % channels_;
            const Index count = std::min(channels_ - c, last - first);
            const Index h = i * lattice_.source_step + tap.row_offset;
            const Index w = j * lattice_.source_step + tap.column_offset;
            if (h < 0 || h >= height_ || w < 0 || w >= width_) {
                std::fill(row, row + count, T(0));
            } else {
                const T* raw = source_.raw.data() + ((n * height_ + h) * width_ + w) * all_channels_ + channel_ + c;
                load_pending(source_, raw, channel_ + c, count, row);
            }
            row += count;
            first += count;
        }
    }

private:
    const Pending<T>& source_;
    const Lattice& lattice_;
    Index channel_, channels_;
    Index height_, width_, all_channels_;
};

/// Panels of Tile::columns columns, each depth x Tile::columns, zeros beyond the last column; value(k, j) gives element
/// j of depth k.
template <class T, class Value>
[[nodiscard]] Tensor<T> pack_panels(Index depth, Index columns, const Value& value) {
    constexpr Index width = Tile<T>::columns;
    const Index panels = (columns + width - 1) / width;
    Tensor<T> packed = Tensor<T>::empty({panels, depth, width});
    parallel_for(panels, [&](Index panel) {
        T* target = packed.data() + panel * depth * width;
        for (Index k = 0; k < depth; ++k) {
            for (Index j = 0; j < width; ++j) {
                const Index column = panel * width + j;
                *target++ = column < columns ? value(k, column) : T(0);
            }
        }
    });
    return packed;
}

/// target(pixel, target_channel + j) = sum over k of gathered(pixel, k) * packed(k, j), j < columns, for all pixels of
/// the lattice.
template <class T>
void gathered_product(const Gather<T>& gather, const Lattice& lattice, const Tensor<T>& packed, Index columns,
                      Index target_channel, Tensor<T>& target) {
    constexpr Index tile_rows = Tile<T>::rows;
    constexpr Index tile_columns = Tile<T>::columns;
    constexpr Index block_rows = 8 * tile_rows;
    constexpr Index block_depth = Tile<T>::depth;
    const Index depth = gather.depth();
    const Index target_channels = target.extent(3);
    const Index pixels = gather.pixels();

    parallel_ranges(pixels, block_rows, [&](Index first, Index last) {
        Tensor<T> block = Tensor<T>::empty({block_rows, block_depth});
        Tensor<T> result = Tensor<T>::empty({block_rows, round_up(columns, tile_columns)});
        const Index result_stride = result.extent(1);
        for (Index k = 0; k < std::max<Index>(depth, 1); k += block_depth) {
            const Index block_end = std::min(depth, k + block_depth);
            for (Index r = first; r < last; ++r) gather.load(r, k, block_end, block.data() + (r - first) * block_depth);
            const Index filled = round_up(last - first, tile_rows);
            for (Index r = last - first; r < filled; ++r) {  // rows that a tile reads beyond the last pixel
                std::fill_n(block.data() + r * block_depth, block_end - k, T(0));
            }
            for (Index j = 0; j < columns; j += tile_columns) {
                const T* panel = packed.data() + (j / tile_columns * depth + k) * tile_columns;
                for (Index r = 0; r < filled; r += tile_rows) {
                    multiply_tile<block_depth, 1>(block_end - k, block.data() + r * block_depth, panel,
                                                  result.data() + r * result_stride + j, result_stride, tile_rows,
                                                  tile_columns, k > 0);
                }
            }
        }
        for (Index r = first; r < last; ++r) {
            const Index j = r % lattice.width;
            const Index i = r / lattice.width % lattice.height;
            const Index n = r / lattice.width / lattice.height;
            const Index pixel = (n * target.extent(1) + lattice.row + i * lattice.step) * target.extent(2) +
                                lattice.column + j * lattice.step;
            const T* row = result.data() + (r - first) * result_stride;
            std::copy(row, row + columns, target.data() + pixel * target_channels + target_channel);
        }
    });
}

}  // namespace cpu

/// y = x * weight, x (N, H, W, C) pending, weight (O, C / groups, KH, KW), y (N, OH, OW, O); extents as in
/// Conv2dGeometry. If `moments` is given it receives the statistics of every channel of y, for the batch norm that
/// follows.
/// Throws std::invalid_argument if settings or shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> conv2d_forward(const Pending<T>& x, const Tensor<accumulate_t<T>>& weight,
                                       const Conv2dOptions& options, Moments<accumulate_t<T>>* moments = nullptr) {
    const Conv2dGeometry geometry(x.shape(), weight.shape(), options);
    Tensor<T> y = Tensor<T>::empty(geometry.output_shape());
    const cpu::Lattice lattice = cpu::forward_lattice(geometry);
    for (Index group = 0; group < options.groups; ++group) {
        const cpu::Gather<T> gather(x, lattice, group * geometry.group_in, geometry.group_in);
        const Tensor<T> packed = cpu::pack_panels<T>(gather.depth(), geometry.group_out, [&](Index k, Index o) {
            const cpu::Tap& tap = lattice.taps[static_cast<std::size_t>(k / geometry.group_in)];
            return weight.data()[((group * geometry.group_out + o) * geometry.group_in + k % geometry.group_in) *
                                     geometry.kernel_height * geometry.kernel_width +
                                 tap.kernel_row * geometry.kernel_width + tap.kernel_column];
        });
        cpu::gathered_product(gather, lattice, packed, geometry.group_out, group * geometry.group_out, y);
    }
    if (moments != nullptr) *moments = batch_moments(y);
    return y;
}

/// The gradient by the value of x (with its pending scale, shift and ReLU applied), of shape x_shape:
///
///     dx(n, h, w, i) = sum over o, kh, kw of weight(o, i, kh, kw) dy(n, oh, ow, o) where x(n, h, w, i) met it forward
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> conv2d_by_input(const Tensor<T>& dy, const Tensor<accumulate_t<T>>& weight,
                                        const Conv2dOptions& options, const Shape& x_shape) {
    const Conv2dGeometry geometry(x_shape, weight.shape(), options);
    expect_shape("conv2d_by_input", "dy", dy.shape(), geometry.output_shape());
    Tensor<T> dx = Tensor<T>::empty(x_shape);
    const Pending<T> source(dy);
    for (Index phase = 0; phase < options.stride * options.stride; ++phase) {
        const cpu::Lattice lattice = cpu::by_input_lattice(geometry, phase / options.stride, phase % options.stride);
        if (lattice.height <= 0 || lattice.width <= 0) continue;
        for (Index group = 0; group < options.groups; ++group) {
            const cpu::Gather<T> gather(source, lattice, group * geometry.group_out, geometry.group_out);
            const Tensor<T> packed = cpu::pack_panels<T>(gather.depth(), geometry.group_in, [&](Index k, Index i) {
                const cpu::Tap& tap = lattice.taps[static_cast<std::size_t>(k / geometry.group_out)];
                return weight.data()[((group * geometry.group_out + k % geometry.group_out) * geometry.group_in + i) *
                                         geometry.kernel_height * geometry.kernel_width +
                                     tap.kernel_row * geometry.kernel_width + tap.kernel_column];
            });
            cpu::gathered_product(gather, lattice, packed, geometry.group_in, group * geometry.group_in, dx);
        }
    }
    return dx;
}

/// The gradient by the weights, of shape weight_shape:
///
///     dweight(o, i, kh, kw) = sum over n, oh, ow of dy(n, oh, ow, o) x(n, h, w, i), h and w as forward
///
/// The sum over pixels is cut into spans by the problem's size alone; spans are summed in parallel and added in order.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<accumulate_t<T>> conv2d_by_weight(const Pending<T>& x, const Tensor<T>& dy,
                                                       const Conv2dOptions& options, const Shape& weight_shape) {
    constexpr Index tile_rows = cpu::Tile<T>::rows;
    constexpr Index tile_columns = cpu::Tile<T>::columns;
    constexpr Index block_depth = cpu::Tile<T>::depth;
    constexpr Index block_rows = 16 * tile_rows;
    const Conv2dGeometry geometry(x.shape(), weight_shape, options);
    expect_shape("conv2d_by_weight", "dy", dy.shape(), geometry.output_shape());
    Tensor<T> dweight(weight_shape);
    const cpu::Lattice lattice = cpu::forward_lattice(geometry);
    const Index columns = geometry.group_out;
    const Index padded_columns = cpu::round_up(columns, tile_columns);
    const Index taps = geometry.kernel_height * geometry.kernel_width;

    for (Index group = 0; group < options.groups; ++group) {
        const cpu::Gather<T> gather(x, lattice, group * geometry.group_in, geometry.group_in);
        const Index rows = gather.depth();
        const Index pixels = gather.pixels();
        const Index row_blocks = (rows + block_rows - 1) / block_rows;
        const Index spans = std::clamp<Index>(pixels / (8 * block_depth), 1, 16);
        const Index span = cpu::round_up((pixels + spans - 1) / spans, block_depth);
        Tensor<T> partial = Tensor<T>::empty({spans, row_blocks * block_rows, padded_columns});

        parallel_for(row_blocks * spans, [&](Index task) {
            const Index row = task % row_blocks * block_rows;
            const Index row_end = std::min(rows, row + block_rows);
            const Index filled = cpu::round_up(row_end - row, tile_rows);
            T* sum = partial.data() + (task / row_blocks * row_blocks * block_rows + row) * padded_columns;
            std::fill_n(sum, block_rows * padded_columns, T(0));
            Tensor<T> block(Shape{block_depth, block_rows});
            Tensor<T> panel = Tensor<T>::empty({block_depth, tile_columns});
            const Index end = std::min(pixels, (task / row_blocks + 1) * span);
            for (Index p = task / row_blocks * span; p < end; p += block_depth) {
                const Index depth = std::min(block_depth, end - p);
                for (Index k = 0; k < depth; ++k) gather.load(p + k, row, row_end, block.data() + k * block_rows);
                for (Index j = 0; j < columns; j += tile_columns) {
                    const Index width = std::min(tile_columns, columns - j);
                    for (Index k = 0; k < depth; ++k) {
                        const T* source = dy.data() + (p + k) * geometry.out_channels + group * columns + j;
                        T* target = panel.data() + k * tile_columns;
                        std::copy(source, source + width, target);
                        std::fill(target + width, target + tile_columns, T(0));
                    }
                    for (Index r = 0; r < filled; r += tile_rows) {
                        cpu::multiply_tile<1, block_rows>(depth, block.data() + r, panel.data(),
                                                          sum + r * padded_columns + j, padded_columns, tile_rows,
                                                          tile_columns, true);
                    }
                }
            }
        });

        parallel_for(columns, [&](Index o) {
            T* target = dweight.data() + (group * columns + o) * geometry.group_in * taps;
            for (Index k = 0; k < rows; ++k) {
                T total = T(0);
                for (Index part = 0; part < spans; ++part) {
                    total += partial.data()[(part * row_blocks * block_rows + k) * padded_columns + o];
                }
                target[k % geometry.group_in * taps + k / geometry.group_in] = total;
            }
        });
    }
    return dweight;
}

SD_NAMESPACE_END
