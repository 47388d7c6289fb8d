// Batch normalisation on a device: statistics forward, sums backward, factors a channel.
//
// Values are cut into blocks of rows by the problem's size alone. A thread sums its own rows, the threads of a block are
// merged in order, then the blocks are: (count, mean, m2) forward, two sums backward. No atomic operations, so the
// results have the same bits in every run.
#pragma once

#include "sd/core/moments.hpp"
#include "sd/cuda/pending.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// Blocks of rows that a reduction is cut into at most: enough for any device, few to merge.
inline constexpr Index reduction_blocks = 512;

/// The moments of each channel over each block of rows: partial (row_blocks, 2, C), mean and m2.
template <class T, int width>
struct BlockMoments {
    using A = accumulate_t<T>;
    static constexpr int phases = 2;
    static constexpr int batch = 4;  ///< rows that a thread has in registers
    struct Shared {
        A mean[width][block_threads];
        A m2[width][block_threads];
    };
    Sweep sweep;
    const T* x;
    A* partial;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread.block, thread.index);
        if (!at.active) return;
        A mean[width], m2[width];
        for (int i = 0; i < width; ++i) mean[i] = m2[i] = A(0);
        Index count = 0;
        for (Index row = at.row; row < at.last_row; row += batch * sweep.rows_at_once) {
            const Index left = quotient_up(at.last_row - row, sweep.rows_at_once);
            add_batch(row, at.channel, left < batch ? static_cast<int>(left) : batch, count, mean, m2);
        }
        for (int i = 0; i < width; ++i) {
            shared.mean[i][thread.index] = mean[i];
            shared.m2[i][thread.index] = m2[i];
        }
    }

    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread.block, thread.index);
        if (!at.active || at.row_thread != 0) return;
        A* target = partial + at.row_block * 2 * sweep.channels + at.channel;
        for (int i = 0; i < width; ++i) {
            Index count = 0;
            A mean = A(0), m2 = A(0);
            for (int other = 0; other < sweep.rows_at_once; ++other) {
                const Index rows = sweep.rows_of_thread(at.row_block, other);
                const int index = thread.index + other * sweep.lanes;
                merge_moments(count, mean, m2, rows, shared.mean[i][index], shared.m2[i][index]);
                count += rows;
            }
            target[i] = mean;
            target[sweep.channels + i] = m2;
        }
    }

private:
    // The mean of a batch first, then the deviations from it.
    SD_HOST_DEVICE void add_batch(Index row, Index channel, int rows, Index& count, A* mean, A* m2) const {
        Pack<T, width> values[batch];
        for (int r = 0; r < batch; ++r) {
            if (r < rows) values[r] = load<width>(x + (row + r * sweep.rows_at_once) * sweep.channels + channel);
        }
        const A share = A(1) / static_cast<A>(rows);
        for (int i = 0; i < width; ++i) {
            A sum = A(0);
            for (int r = 0; r < batch; ++r) {
                if (r < rows) sum += A(values[r].value[i]);
            }
            const A batch_mean = sum * share;
            A squares = A(0);
            for (int r = 0; r < batch; ++r) {
                if (r >= rows) continue;
                const A deviation = A(values[r].value[i]) - batch_mean;
                squares += deviation * deviation;
            }
            merge_moments(count, mean[i], m2[i], Index{rows}, batch_mean, squares);
        }
        count += rows;
    }
};

/// Merges pairs a channel, partial (parts, 2, C), in order: 32 channels a block, eight threads a channel.
struct PairMerge {
    static constexpr int channels_of_block = 32;
    static constexpr int threads_of_channel = block_threads / channels_of_block;
    Index parts, channels;

    [[nodiscard]] Index blocks() const { return quotient_up(channels, channels_of_block); }
    [[nodiscard]] SD_HOST_DEVICE Index channel(Thread thread) const {
        return thread.block * channels_of_block + thread.index % channels_of_block;
    }
    [[nodiscard]] SD_HOST_DEVICE Index first_part(Thread thread) const {
        const Index first = thread.index / channels_of_block * quotient_up(parts, threads_of_channel);
        return first < parts ? first : parts;
    }
    [[nodiscard]] SD_HOST_DEVICE Index last_part(Thread thread) const {
        return first_part({thread.block, thread.index + channels_of_block});
    }
};

/// The moments of each channel from those of blocks of rows.
template <class A>
struct MergeMoments {
    static constexpr int phases = 2;
    struct Shared {
        double mean[block_threads], m2[block_threads];
    };
    PairMerge merge;
    Sweep sweep;
    const A* partial;
    A *mean, *m2;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const Index c = merge.channel(thread);
        if (c >= merge.channels) return;
        double all = 0, squares = 0;
        Index count = 0;
        for (Index part = merge.first_part(thread); part < merge.last_part(thread); ++part) {
            const A* pair = partial + part * 2 * merge.channels + c;
            const Index rows = sweep.rows_in_block(part);
            merge_moments(count, all, squares, rows, static_cast<double>(pair[0]),
                          static_cast<double>(pair[merge.channels]));
            count += rows;
        }
        shared.mean[thread.index] = all;
        shared.m2[thread.index] = squares;
    }

    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const Index c = merge.channel(thread);
        if (c >= merge.channels || thread.index >= PairMerge::channels_of_block) return;
        double all = 0, squares = 0;
        Index count = 0;
        for (int index = thread.index; index < block_threads; index += PairMerge::channels_of_block) {
            const Thread other{thread.block, index};
            const Index first = merge.first_part(other) * sweep.rows_of_block;
            const Index last = merge.last_part(other) * sweep.rows_of_block;
            const Index rows = (last < sweep.rows ? last : sweep.rows) - (first < sweep.rows ? first : sweep.rows);
            merge_moments(count, all, squares, rows, shared.mean[index], shared.m2[index]);
            count += rows;
        }
        mean[c] = static_cast<A>(all);
        m2[c] = static_cast<A>(squares);
    }
};

/// The sums of batch norm's backward from those of blocks: deviations times inverse_std, and gradients.
template <class A>
struct MergeSums {
    static constexpr int phases = 2;
    struct Shared {
        double dweight[block_threads], dbias[block_threads];
    };
    PairMerge merge;
    const A* partial;
    const A* inverse_std;
    A *dweight, *dbias;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const Index c = merge.channel(thread);
        if (c >= merge.channels) return;
        double weighted = 0, plain = 0;
        for (Index part = merge.first_part(thread); part < merge.last_part(thread); ++part) {
            const A* pair = partial + part * 2 * merge.channels + c;
            weighted += static_cast<double>(pair[0]);
            plain += static_cast<double>(pair[merge.channels]);
        }
        shared.dweight[thread.index] = weighted;
        shared.dbias[thread.index] = plain;
    }

    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const Index c = merge.channel(thread);
        if (c >= merge.channels || thread.index >= PairMerge::channels_of_block) return;
        double weighted = 0, plain = 0;
        for (int index = thread.index; index < block_threads; index += PairMerge::channels_of_block) {
            weighted += shared.dweight[index];
            plain += shared.dbias[index];
        }
        dweight[c] = static_cast<A>(weighted * static_cast<double>(inverse_std[c]));
        dbias[c] = static_cast<A>(plain);
    }
};

/// What a thread sums of batch norm's backward, for `width` channels.
template <class T, int width>
struct ChannelSums {
    using A = accumulate_t<T>;
    struct Shared {
        A dweight[width][block_threads];
        A dbias[width][block_threads];
    };
    PendingChannels<T, width> output;
    Pack<A, width> center;
    A dweight[width], dbias[width];

    SD_HOST_DEVICE ChannelSums(const PendingView<T>& y, const A* mean, Index channel)
        : output(y, channel), center(load<width>(mean + channel)) {
        for (int i = 0; i < width; ++i) dweight[i] = dbias[i] = A(0);
    }
    /// Takes in the gradient by channel i of batch norm's output where its input is z.
    SD_HOST_DEVICE void add(const A& dy, const T& z, int i) {
        const A g = passes(output.relu, output.apply(z, i)) ? dy : A(0);
        dbias[i] += g;
        dweight[i] += g * (A(z) - center.value[i]);
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

/// The sums of batch norm's backward over each block of rows: partial (row_blocks, 2, C).
template <class T, int width>
struct BlockSums {
    using A = accumulate_t<T>;
    using Sums = ChannelSums<T, width>;
    using Shared = typename Sums::Shared;
    static constexpr int phases = 2;
    Sweep sweep;
    PendingView<T> y;
    const A* mean;
    const T* dy;
    A* partial;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread.block, thread.index);
        if (!at.active) return;
        Sums sums(y, mean, at.channel);
        for (Index row = at.row; row < at.last_row; row += sweep.rows_at_once) {
            const Index element = row * sweep.channels + at.channel;
            const Pack<T, width> upstream = load<width>(dy + element);
            const Pack<T, width> z = load<width>(y.raw + element);
            for (int i = 0; i < width; ++i) sums.add(A(upstream.value[i]), z.value[i], i);
        }
        sums.share(thread.index, shared);
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread.block, thread.index);
        if (!at.active || at.row_thread != 0) return;
        Sums::merge(sweep, at, thread.index, shared, partial + at.row_block * 2 * sweep.channels);
    }
};

/// BatchNormFactors, a channel a thread.
template <class A>
struct Factors {
    Index channels;
    const A *mean, *squares, *weight, *bias;
    A count, eps;
    A *inverse_std, *scale, *shift;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index c = thread.block * block_threads + thread.index;
        if (c >= channels) return;
        inverse_std[c] = inverse_deviation(squares[c], count, eps);
        scale[c] = weight[c] * inverse_std[c];
        shift[c] = bias[c] - mean[c] * scale[c];
    }
};

template <class A>
struct UpdateRunningStatistics {
    Index channels, count;
    const A *mean, *m2;
    double momentum;
    A *running_mean, *running_var;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index c = thread.block * block_threads + thread.index;
        if (c >= channels) return;
        running_mean[c] = running_statistic(running_mean[c], mean[c], momentum);
        if (count < 2) return;  // one value has no unbiased variance
        running_var[c] =
            running_statistic(running_var[c], A(m2[c] / static_cast<A>(static_cast<double>(count - 1))), momentum);
    }
};

/// Slope and offset of the gradient by batch norm's input, see batch_norm_by_input.
template <class A>
struct GradientFactors {
    Index channels;
    const A *scale, *inverse_std, *dweight, *dbias;
    A count;  ///< 0 for constant statistics, which make both 0
    A *slope, *offset;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index c = thread.block * block_threads + thread.index;
        if (c >= channels) return;
        slope[c] = count == A(0) ? A(0) : -scale[c] * dweight[c] * inverse_std[c] / count;
        offset[c] = count == A(0) ? A(0) : -scale[c] * dbias[c] / count;
    }
};

/// Sums of all parts, partial (parts, 2, C).
template <Accelerator Device, class A>
[[nodiscard]] BatchNormSums<A, Device> merged_sums(const Tensor<A, Device>& partial,
                                                   const Tensor<A, Device>& inverse_std) {
    const Shape& channels = inverse_std.shape();
    BatchNormSums<A, Device> sums{Tensor<A, Device>::empty(channels), Tensor<A, Device>::empty(channels)};
    const PairMerge merge{partial.extent(0), inverse_std.size()};
    launch<Device>(MergeSums<A>{merge, partial.data(), inverse_std.data(), sums.dweight.data(), sums.dbias.data()},
                   merge.blocks());
    return sums;
}

}  // namespace cuda

/// Mean and squared deviations of every channel (the last dimension) of x. With no values, zeros and a count of 0.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Moments<accumulate_t<T>, Device> batch_moments(const Tensor<T, Device>& x) {
    using A = accumulate_t<T>;
    const Index channels = x.extent(x.rank() - 1);
    if (x.size() == 0) return {0, Tensor<A, Device>(Shape{channels}), Tensor<A, Device>(Shape{channels})};
    Moments<A, Device> moments{cuda::rows_of(x.shape()), Tensor<A, Device>::empty({channels}),
                               Tensor<A, Device>::empty({channels})};
    cuda::with_width<T>(channels, [&](auto width) {
        const cuda::Sweep sweep(moments.count, channels, width, 16, cuda::reduction_blocks);
        auto partial = Tensor<A, Device>::empty({sweep.row_blocks, 2, channels});
        cuda::launch<Device>(cuda::BlockMoments<T, width()>{sweep, x.data(), partial.data()}, sweep.blocks());
        const cuda::PairMerge merge{sweep.row_blocks, channels};
        cuda::launch<Device>(
            cuda::MergeMoments<A>{merge, sweep, partial.data(), moments.mean.data(), moments.m2.data()},
            merge.blocks());
    });
    return moments;
}

/// What batch norm applies to each channel: the variance is squares / count. Shapes (C).
template <class A, cuda::Accelerator Device>
[[nodiscard]] BatchNormFactors<A, Device> batch_norm_factors(const Tensor<A, Device>& mean,
                                                             const Tensor<A, Device>& squares, Index count,
                                                             const Tensor<A, Device>& weight,
                                                             const Tensor<A, Device>& bias, double eps) {
    const auto empty = [&] { return Tensor<A, Device>::empty(mean.shape()); };
    BatchNormFactors<A, Device> factors{empty(), empty(), empty()};
    cuda::launch<Device>(cuda::Factors<A>{mean.size(), mean.data(), squares.data(), weight.data(), bias.data(),
                                          static_cast<A>(static_cast<double>(count)), static_cast<A>(eps),
                                          factors.inverse_std.data(), factors.scale.data(), factors.shift.data()},
                         cuda::quotient_up(mean.size(), cuda::block_threads));
    return factors;
}

/// Moves the running mean and variance (C) towards those of a batch, the variance unbiased; a batch of one value has
/// none, and one without values changes nothing.
template <class A, cuda::Accelerator Device>
void update_running_statistics(Tensor<A, Device>& running_mean, Tensor<A, Device>& running_var,
                               const Moments<A, Device>& moments, double momentum) {
    if (moments.count == 0) return;
    cuda::launch<Device>(
        cuda::UpdateRunningStatistics<A>{running_mean.size(), moments.count, moments.mean.data(), moments.m2.data(),
                                         momentum, running_mean.data(), running_var.data()},
        cuda::quotient_up(running_mean.size(), cuda::block_threads));
}

/// The sums of batch norm's backward, as on the processor. Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] BatchNormSums<accumulate_t<T>, Device> batch_norm_sums(const Tensor<T, Device>& dy,
                                                                     const BatchNormPass<T, Device>& pass) {
    using A = accumulate_t<T>;
    expect_batch_norm_pass("batch_norm_sums", pass, dy.shape());
    const Index channels = pass.y.channels();
    Tensor<A, Device> partial;
    cuda::with_width<T>(channels, [&](auto width) {
        const cuda::Sweep sweep(cuda::rows_of(dy.shape()), channels, width, 16, cuda::reduction_blocks);
        partial = Tensor<A, Device>::empty({sweep.row_blocks, 2, channels});
        cuda::launch<Device>(cuda::BlockSums<T, width()>{sweep, cuda::PendingView<T>(pass.y), pass.mean.data(),
                                                         dy.data(), partial.data()},
                             sweep.blocks());
    });
    return cuda::merged_sums<Device>(partial, pass.inverse_std);
}

/// The gradient by z, pending, as on the processor. Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] PendingGradient<T, Device> batch_norm_by_input(const Tensor<T, Device>& dy,
                                                             const BatchNormPass<T, Device>& pass,
                                                             const BatchNormSums<accumulate_t<T>, Device>& sums) {
    using A = accumulate_t<T>;
    const Shape channels{pass.y.channels()};
    expect_batch_norm_pass("batch_norm_by_input", pass, dy.shape());
    expect_shape("batch_norm_by_input", "sums.dweight", sums.dweight.shape(), channels);
    expect_shape("batch_norm_by_input", "sums.dbias", sums.dbias.shape(), channels);
    auto slope = Tensor<A, Device>::empty(channels);
    auto offset = Tensor<A, Device>::empty(channels);
    const Index count = pass.batch_statistics ? cuda::rows_of(dy.shape()) : 0;
    cuda::launch<Device>(
        cuda::GradientFactors<A>{channels[0], pass.y.scale.data(), pass.inverse_std.data(), sums.dweight.data(),
                                 sums.dbias.data(), static_cast<A>(static_cast<double>(count)), slope.data(),
                                 offset.data()},
        cuda::quotient_up(channels[0], cuda::block_threads));
    return {dy, pass.y, pass.mean, slope, offset};
}

SD_NAMESPACE_END
