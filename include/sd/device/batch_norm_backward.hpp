// The two sums of batch norm's backward on a device, and what they make of the gradient.
#pragma once

#include "sd/core/moments.hpp"
#include "sd/device/merge_pairs.hpp"
#include "sd/device/pending.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// Two sums that a thread has of each of `width` channels.
template <class A, int width>
struct ChannelPairs {
    struct Shared {
        A dweight[width][block_threads];
        A dbias[width][block_threads];
    };
    A dweight[width], dbias[width];

    SD_HOST_DEVICE ChannelPairs() {
        for (int i = 0; i < width; ++i) dweight[i] = dbias[i] = A(0);
    }
    SD_HOST_DEVICE void share(int index, Shared& shared) const {
        for (int i = 0; i < width; ++i) {
            shared.dweight[i][index] = dweight[i];
            shared.dbias[i][index] = dbias[i];
        }
    }
    /// Adds up the threads of a block that have the same channels, in order, into one part of `partial`.
    static SD_HOST_DEVICE void merge(const Sweep& sweep, const SweepPlace& at, int index, const Shared& shared,
                                     A* part) {
        for (int i = 0; i < width; ++i) {
            A weighted = A(0), plain = A(0);
            for (int other = 0; other < sweep.rows_at_once; ++other) {
                weighted += shared.dweight[i][index + other * sweep.lanes];
                plain += shared.dbias[i][index + other * sweep.lanes];
            }
            part[at.channel + i] = weighted;
            part[sweep.channels + at.channel + i] = plain;
        }
    }
};

/// What a thread sums of batch norm's backward, for `width` channels.
template <class T, int width>
struct ChannelSums : ChannelPairs<accumulate_t<T>, width> {
    using A = accumulate_t<T>;
    PendingChannels<T, width> output;
    Pack<A, width> center;

    SD_HOST_DEVICE ChannelSums(const PendingView<T>& y, const A* mean, Index channel)
        : output(y, channel), center(load<width>(mean + channel)) {}
    /// Takes in the gradient by channel i of batch norm's output where its input is z.
    SD_HOST_DEVICE void add(const A& dy, const T& z, int i) {
        const A g = output.gradient(dy, z, i);
        this->dbias[i] += g;
        this->dweight[i] += g * (A(z) - center.value[i]);
    }
};

/// The sums of batch norm's backward over each block of rows: partial (row_blocks, 2, C). Rows gives dy, from memory or
/// as it makes it.
template <class T, int width, class Rows = StoredRows<T, width>>
struct BlockSums {
    using A = accumulate_t<T>;
    using Sums = ChannelSums<T, width>;
    using Shared = typename Sums::Shared;
    static constexpr int phases = 2;
    Sweep sweep;
    PendingView<T> y;
    const A* mean;
    Rows dy;
    A* partial;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        Sums sums(y, mean, at.channel);
        const auto upstream_of = dy.of_channel(at.channel);
        sweep.for_each_row(at, [&](Index row, Index element) {
            const Pack<T, width> upstream = upstream_of(row);
            const Pack<T, width> z = load<width>(y.raw + element);
            for (int i = 0; i < width; ++i) sums.add(A(upstream.value[i]), z.value[i], i);
        });
        sums.share(thread.index, shared);
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active || at.row_thread != 0) return;
        Sums::merge(sweep, at, thread.index, shared, partial + at.row_block * 2 * sweep.channels);
    }
};

/// The sums from those of blocks of rows, as MergePairs does it: deviations times inverse_std, and gradients.
template <class A>
struct MergeSums {
    const A* inverse_std;
    A *dweight, *dbias;

    [[nodiscard]] SD_HOST_DEVICE Index values(Index, Index) const { return 0; }
    SD_HOST_DEVICE void merge(Pair& all, const Pair& part) const {
        all.first += part.first;
        all.second += part.second;
    }
    SD_HOST_DEVICE void write(Index c, const Pair& all) const {
        dweight[c] = static_cast<A>(all.first * static_cast<double>(inverse_std[c]));
        dbias[c] = static_cast<A>(all.second);
    }
};

/// Sums of all parts, partial (parts, 2, C).
template <Accelerator Device, class A>
[[nodiscard]] BatchNormSums<A, Device> merged_sums(const Tensor<A, Device>& partial,
                                                   const Tensor<A, Device>& inverse_std) {
    const Shape& channels = inverse_std.shape();
    BatchNormSums<A, Device> sums{Tensor<A, Device>::empty(channels), Tensor<A, Device>::empty(channels)};
    launch_merge<Device>(MergeSums<A>{inverse_std.data(), sums.dweight.data(), sums.dbias.data()}, partial);
    return sums;
}

/// The sums of batch norm's backward over the gradients dy of the Rows that rows_of_width(width) makes.
template <Accelerator Device, class T, class RowsOfWidth>
[[nodiscard]] BatchNormSums<accumulate_t<T>, Device> sums_of_rows(const BatchNormPass<T, Device>& pass,
                                                                  const RowsOfWidth& rows_of_width) {
    using A = accumulate_t<T>;
    const Index channels = pass.y.channels();
    Tensor<A, Device> partial;
    with_width<T>(channels, [&](auto width) {
        const Sweep sweep(rows_of(pass.y.shape()), channels, width, 16, reduction_blocks);
        partial = Tensor<A, Device>::empty({sweep.row_blocks, 2, channels});
        const auto rows = rows_of_width(width);
        launch<Device>(
            BlockSums<T, width(), std::remove_const_t<decltype(rows)>>{sweep, PendingView<T>(pass.y), pass.mean.data(),
                                                                       rows, partial.data()},
            sweep.blocks());
    });
    return merged_sums<Device>(partial, pass.inverse_std);
}

/// Slope and offset of the gradient by batch norm's input for a channel, see batch_norm_by_input.
template <class A>
struct GradientFactors {
    const A *scale, *inverse_std, *dweight, *dbias;
    A count;  ///< 0 for constant statistics, which make both 0
    A *slope, *offset;

    SD_HOST_DEVICE void operator()(Index c) const {
        slope[c] = count == A(0) ? A(0) : -scale[c] * dweight[c] * inverse_std[c] / count;
        offset[c] = count == A(0) ? A(0) : -scale[c] * dbias[c] / count;
    }
};

}  // namespace cuda

/// The sums of batch norm's backward, as on the CPU. Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] BatchNormSums<accumulate_t<T>, Device> batch_norm_sums(const Tensor<T, Device>& dy,
                                                                     const BatchNormPass<T, Device>& pass) {
    detail::expect_batch_norm_pass("batch_norm_sums", pass, dy.shape());
    return cuda::sums_of_rows<Device, T>(pass, [&](auto width) {
        return cuda::StoredRows<T, width()>{dy.data(), pass.y.channels()};
    });
}

/// The gradient by z, pending, as on the CPU. Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] PendingGradient<T, Device> batch_norm_by_input(const Tensor<T, Device>& dy,
                                                             const BatchNormPass<T, Device>& pass,
                                                             const BatchNormSums<accumulate_t<T>, Device>& sums) {
    using A = accumulate_t<T>;
    const Shape channels{pass.y.channels()};
    detail::expect_batch_norm_sums(dy.shape(), pass, sums);
    auto slope = Tensor<A, Device>::empty(channels);
    auto offset = Tensor<A, Device>::empty(channels);
    const Index count = pass.batch_statistics ? cuda::rows_of(dy.shape()) : 0;
    cuda::launch_each<Device>(
        channels[0],
        cuda::GradientFactors<A>{pass.y.scale.data(), pass.inverse_std.data(), sums.dweight.data(), sums.dbias.data(),
                                 static_cast<A>(static_cast<double>(count)), slope.data(), offset.data()});
    return {dy, pass.y, pass.mean, slope, offset};
}

SD_NAMESPACE_END
