// Depthwise convolution on a device: each channel for itself, so a thread keeps its channels and goes over pixels. What
// is pending is applied on load; statistics of what is written are gathered as it is written.
//
//     x (N, H, W, C)      taps (KH KW, C): weights (C, 1, KH, KW), channels last      y (N, H', W', C)
#pragma once

#include "sd/core/window.hpp"
#include "sd/device/batch_norm_backward.hpp"
#include "sd/device/moments.hpp"
#include "sd/device/sample_sums.hpp"
#include "sd/device/weights.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// Calls use(tap, row) for every tap of the output pixel `row` that meets an input pixel, whose row that is.
template <class Use>
SD_HOST_DEVICE void for_each_input(const Conv2dGeometry& g, Index row, Index first_tap, Index last_tap,
                                   const Use& use) {
    const Index top = row / g.out_width % g.out_height * g.options.stride - g.options.padding;
    const Index left = row % g.out_width * g.options.stride - g.options.padding;
    const Index image = row / g.out_width / g.out_height * g.in_height;
    for (Index tap = first_tap; tap < last_tap; ++tap) {
        const Index h = top + tap / g.kernel_width * g.options.dilation;
        const Index w = left + tap % g.kernel_width * g.options.dilation;
        if (h >= 0 && h < g.in_height && w >= 0 && w < g.in_width) use(tap, (image + h) * g.in_width + w);
    }
}

/// Calls use(tap, row) for every tap by which the input pixel `row` was met, with the row of the output pixel.
template <class Use>
SD_HOST_DEVICE void for_each_output(const Conv2dGeometry& g, Index row, const Use& use) {
    const Index bottom = row / g.in_width % g.in_height + g.options.padding;
    const Index right = row % g.in_width + g.options.padding;
    const Index image = row / g.in_width / g.in_height * g.out_height;
    for (Index kh = 0; kh < g.kernel_height; ++kh) {
        const Index h = bottom - kh * g.options.dilation;
        const Index oh = h / g.options.stride;
        if (h < 0 || oh * g.options.stride != h || oh >= g.out_height) continue;
        for (Index kw = 0; kw < g.kernel_width; ++kw) {
            const Index w = right - kw * g.options.dilation;
            const Index ow = w / g.options.stride;
            if (w < 0 || ow * g.options.stride != w || ow >= g.out_width) continue;
            use(kh * g.kernel_width + kw, (image + oh) * g.out_width + ow);
        }
    }
}

/// The taps' sum of some rows' values: sum += taps(tap) values(row).
template <class A, int width, class Values>
SD_HOST_DEVICE void add_tap(Pack<A, width>& sum, const A* taps, const Values& values, Index row) {
    const Pack<A, width> factor = load<width>(taps);
    const Pack<A, width> value = values.values(row);
    for (int i = 0; i < width; ++i) sum.value[i] += factor.value[i] * value.value[i];
}

/// The rows of y, which are stored as they are made.
template <class T, int width>
struct DepthwiseForward {
    using A = accumulate_t<T>;
    Conv2dGeometry g;
    GatedView<T> x;
    const A* taps;
    T* y;

    [[nodiscard]] SD_HOST_DEVICE auto of_channel(Index channel) const {
        return [this, channel, values = GatedChannels<T, width>(x, channel)](Index row) {
            Pack<A, width> sum{};
            for_each_input(g, row, 0, g.kernel_height * g.kernel_width, [&](Index tap, Index input) {
                add_tap<A, width>(sum, taps + tap * g.in_channels + channel, values, input);
            });
            return store_rounded<T, width>(sum, y + row * g.in_channels + channel);
        };
    }
};

/// The rows of dx, which are stored as they are made.
template <class T, int width>
struct DepthwiseByInput {
    using A = accumulate_t<T>;
    Conv2dGeometry g;
    GradientView<T> dy;
    const A* taps;
    T* dx;

    [[nodiscard]] SD_HOST_DEVICE auto of_channel(Index channel) const {
        return [this, channel, values = GradientChannels<T, width>(dy, channel)](Index row) {
            Pack<A, width> sum{};
            for_each_output(g, row, [&](Index tap, Index output) {
                add_tap<A, width>(sum, taps + tap * g.in_channels + channel, values, output);
            });
            return store_rounded<T, width>(sum, dx + row * g.in_channels + channel);
        };
    }
};

/// Makes rows of which nothing is gathered.
template <class Rows>
struct MakeRows {
    Sweep sweep;
    Rows rows;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const auto make = rows.of_channel(at.channel);
        sweep.for_each_row(at, [&](Index row, Index) { (void)make(row); });
    }
};

/// Starts the Rows of `count` rows that rows_of_width(width) makes.
template <Accelerator Device, class T, class RowsOfWidth>
void make_rows(Index count, Index channels, const RowsOfWidth& rows_of_width) {
    with_width<T>(channels, [&](auto width) {
        const Sweep sweep(count, channels, width);
        const auto rows = rows_of_width(width);
        launch<Device>(MakeRows<std::remove_const_t<decltype(rows)>>{sweep, rows}, sweep.blocks());
    });
}

/// dweight over each block of output pixels: partial (row_blocks, KH KW, C). Blocks that are neighbours take the same
/// pixels, for `most` taps each.
template <class T, int width>
struct DepthwiseByWeight {
    using A = accumulate_t<T>;
    static constexpr int phases = 2;
    static constexpr int most = 4;  ///< taps of a block: what shared memory has room for
    using Sums = SampleSums<T, width, most>;
    using Shared = typename Sums::Shared;
    Conv2dGeometry g;
    Sweep sweep;
    Index runs;  ///< blocks that take the same pixels
    GatedView<T> x;
    GradientView<T> dy;
    A* partial;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const SweepPlace at = place(thread);
        if (!at.active) return;
        const Index first = first_tap(thread);
        const Index last = first + most < taps() ? first + most : taps();
        const GatedChannels<T, width> input(x, at.channel);
        const GradientChannels<T, width> gradient(dy, at.channel);
        Sums sums;
        sweep.for_each_row(at, [&](Index row, Index) {
            const Pack<A, width> upstream = gradient.values(row);
            for_each_input(g, row, first, last, [&](Index tap, Index input_row) {
                const Pack<A, width> value = input.values(input_row);
                for (int k = 0; k < most; ++k) {  // so that the sums stay in registers
                    if (tap - first != k) continue;
                    for (int i = 0; i < width; ++i) sums.part[k][i] += upstream.value[i] * value.value[i];
                }
            });
        });
        sums.share(thread.index, shared);
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const SweepPlace at = place(thread);
        if (!at.active || at.row_thread != 0) return;
        const Sums sums(sweep, thread.index, shared);
        const Index first = first_tap(thread);
        for (int k = 0; k < most && first + k < taps(); ++k) {
            A* target = partial + (at.row_block * taps() + first + k) * sweep.channels + at.channel;
            for (int i = 0; i < width; ++i) target[i] = sums.part[k][i];
        }
    }

private:
    [[nodiscard]] SD_HOST_DEVICE Index taps() const { return g.kernel_height * g.kernel_width; }
    [[nodiscard]] SD_HOST_DEVICE Index first_tap(Thread thread) const { return thread.block % runs * most; }
    [[nodiscard]] SD_HOST_DEVICE SweepPlace place(Thread thread) const {
        return sweep.place({thread.block / runs, thread.index});
    }
};

/// An element of dweight (C, 1, KH, KW): the sum of the blocks' in order, in double.
template <class A>
struct MergeTaps {
    Index parts, taps, channels;
    const A* partial;  ///< (parts, taps, C)
    A* dweight;

    SD_HOST_DEVICE void operator()(Index i) const {  // neighbours have neighbouring channels
        double sum = 0;
        for (Index part = 0; part < parts; ++part) sum += static_cast<double>(partial[part * taps * channels + i]);
        dweight[i % channels * taps + i / channels] = static_cast<A>(sum);
    }
};

/// Weights (C, 1, KH, KW) as taps (KH KW, C).
template <class A, Accelerator Device>
[[nodiscard]] Tensor<A, Device> taps_of(const Tensor<A, Device>& weight) {
    return weights_channels_last<A>(weight.reshape({1, weight.extent(0), weight.extent(2), weight.extent(3)}));
}

/// y = x * weight, with its moments if they are asked for, and room for as many samples as x has.
template <class T, Accelerator Device>
[[nodiscard]] Tensor<T, Device> depthwise_forward(const Conv2dGeometry& g, const Pending<T, Device>& x,
                                                  const Tensor<accumulate_t<T>, Device>& weight,
                                                  Moments<accumulate_t<T>, Device>* moments) {
    auto y = empty_with_cleared_room<T, Device>(g.output_shape(), sample_room(x.raw));
    if (y.size() == 0) {
        if (moments != nullptr) *moments = batch_moments(y);
        return y;
    }
    const auto taps = taps_of(weight);
    const auto rows = [&](auto width) {
        return DepthwiseForward<T, width()>{g, GatedView<T>(x), taps.data(), y.data()};
    };
    if (moments == nullptr) {
        make_rows<Device, T>(rows_of(y.shape()), g.in_channels, rows);
    } else {
        *moments = moments_of_rows<Device, T>(rows_of(y.shape()), g.in_channels, rows);
    }
    return y;
}

/// dx, with the sums of the batch norm before if they are asked for, and room for as many samples as dy has.
template <class T, Accelerator Device>
[[nodiscard]] Tensor<T, Device> depthwise_by_input(const Conv2dGeometry& g, const PendingGradient<T, Device>& dy,
                                                   const Tensor<accumulate_t<T>, Device>& weight,
                                                   const BatchNormPass<T, Device>* before,
                                                   BatchNormSums<accumulate_t<T>, Device>* sums) {
    auto dx = empty_with_cleared_room<T, Device>(g.input_shape(), sample_room(dy.is_plain() ? dy.dy : dy.y.raw));
    const auto taps = taps_of(weight);
    const auto rows = [&](auto width) {
        return DepthwiseByInput<T, width()>{g, GradientView<T>(dy), taps.data(), dx.data()};
    };
    if (sums == nullptr) {
        make_rows<Device, T>(rows_of(dx.shape()), g.in_channels, rows);
    } else {
        detail::expect_batch_norm_pass("conv2d_by_input", *before, dx.shape());
        *sums = sums_of_rows<Device, T>(*before, rows);
    }
    return dx;
}

/// dweight (C, 1, KH, KW).
template <class T, Accelerator Device>
[[nodiscard]] Tensor<accumulate_t<T>, Device> depthwise_by_weight(const Conv2dGeometry& g, const Pending<T, Device>& x,
                                                                  const PendingGradient<T, Device>& dy) {
    using A = accumulate_t<T>;
    auto dweight = Tensor<A, Device>::empty(g.weight_shape());
    const Index taps = g.kernel_height * g.kernel_width;
    with_width<T>(g.in_channels, [&](auto width) {
        using Kernel = DepthwiseByWeight<T, width()>;
        const Sweep sweep(rows_of(dy.shape()), g.in_channels, width, 16, reduction_blocks);
        const Index runs = quotient_up(taps, Kernel::most);
        auto partial = Tensor<A, Device>::empty({sweep.row_blocks, taps, g.in_channels});
        launch<Device>(Kernel{g, sweep, runs, GatedView<T>(x), GradientView<T>(dy), partial.data()},
                       sweep.blocks() * runs);
        launch_each<Device>(dweight.size(),
                            MergeTaps<A>{sweep.row_blocks, taps, g.in_channels, partial.data(), dweight.data()});
    });
    return dweight;
}

}  // namespace cuda

SD_NAMESPACE_END
