// Batch norm's statistics on a device: count, mean and squared deviations of every channel.
#pragma once

#include "sd/core/moments.hpp"
#include "sd/device/merge_pairs.hpp"
#include "sd/device/pending.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// The moments of each channel over each block of rows: partial (row_blocks, 2, C), mean and m2. Rows gives them, from
/// memory or as it makes them.
template <class T, int width, class Rows = StoredRows<T, width>>
struct BlockMoments {
    using A = accumulate_t<T>;
    static constexpr int phases = 2;
    static constexpr int batch = 4;  ///< rows that a thread has in registers
    struct Shared {
        A mean[width][block_threads];
        A m2[width][block_threads];
    };
    Sweep sweep;
    Rows rows;
    A* partial;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const auto values_of = rows.of_channel(at.channel);
        A mean[width], m2[width];
        for (int i = 0; i < width; ++i) mean[i] = m2[i] = A(0);
        Index count = 0;
        for (Index row = at.row; row < at.last_row; row += batch * sweep.rows_at_once) {
            const Index left = quotient_up(at.last_row - row, sweep.rows_at_once);
            add_batch(values_of, row, left < batch ? static_cast<int>(left) : batch, count, mean, m2);
        }
        for (int i = 0; i < width; ++i) {
            shared.mean[i][thread.index] = mean[i];
            shared.m2[i][thread.index] = m2[i];
        }
    }

    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active || at.row_thread != 0) return;
        A* target = partial + at.row_block * 2 * sweep.channels + at.channel;
        for (int i = 0; i < width; ++i) {
            Index count = 0;
            A mean = A(0), m2 = A(0);
            for (int other = 0; other < sweep.rows_at_once; ++other) {
                const Index taken = sweep.rows_of_thread(at.row_block, other);
                const int index = thread.index + other * sweep.lanes;
                detail::merge_moments(count, mean, m2, taken, shared.mean[i][index], shared.m2[i][index]);
                count += taken;
            }
            target[i] = mean;
            target[sweep.channels + i] = m2;
        }
    }

private:
    // The mean of a batch first, then the deviations from it.
    template <class Values>
    SD_HOST_DEVICE void add_batch(const Values& values_of, Index row, int taken, Index& count, A* mean, A* m2) const {
        Pack<T, width> values[batch];
        for (int r = 0; r < batch; ++r) {
            if (r < taken) values[r] = values_of(row + r * sweep.rows_at_once);
        }
        const A share = A(1) / static_cast<A>(taken);
        for (int i = 0; i < width; ++i) {
            A sum = A(0);
            for (int r = 0; r < batch; ++r) {
                if (r < taken) sum += A(values[r].value[i]);
            }
            const A batch_mean = sum * share;
            A squares = A(0);
            for (int r = 0; r < batch; ++r) {
                if (r >= taken) continue;
                const A deviation = A(values[r].value[i]) - batch_mean;
                squares += deviation * deviation;
            }
            detail::merge_moments(count, mean[i], m2[i], Index{taken}, batch_mean, squares);
        }
        count += taken;
    }
};

/// The moments of each channel from those of blocks of rows, as MergePairs does it.
template <class A>
struct MergeMoments {
    Sweep sweep;
    A *mean, *m2;

    [[nodiscard]] SD_HOST_DEVICE Index values(Index first_part, Index last_part) const {
        return first_row(last_part) - first_row(first_part);
    }
    SD_HOST_DEVICE void merge(Pair& all, const Pair& part) const {
        detail::merge_moments(all.count, all.first, all.second, part.count, part.first, part.second);
        all.count += part.count;
    }
    SD_HOST_DEVICE void write(Index c, const Pair& all) const {
        mean[c] = static_cast<A>(all.first);
        m2[c] = static_cast<A>(all.second);
    }

private:
    [[nodiscard]] SD_HOST_DEVICE Index first_row(Index part) const {
        const Index row = part * sweep.rows_of_block;
        return row < sweep.rows ? row : sweep.rows;
    }
};

/// The moments of `count` rows of channels, those of the Rows that rows_of_width(width) makes.
template <Accelerator Device, class T, class RowsOfWidth>
[[nodiscard]] Moments<accumulate_t<T>, Device> moments_of_rows(Index count, Index channels,
                                                               const RowsOfWidth& rows_of_width) {
    using A = accumulate_t<T>;
    Moments<A, Device> moments{count, Tensor<A, Device>::empty({channels}), Tensor<A, Device>::empty({channels})};
    with_width<T>(channels, [&](auto width) {
        const Sweep sweep(count, channels, width, 16, reduction_blocks);
        auto partial = Tensor<A, Device>::empty({sweep.row_blocks, 2, channels});
        const auto rows = rows_of_width(width);
        launch<Device>(BlockMoments<T, width(), std::remove_const_t<decltype(rows)>>{sweep, rows, partial.data()},
                       sweep.blocks());
        launch_merge<Device>(MergeMoments<A>{sweep, moments.mean.data(), moments.m2.data()}, partial);
    });
    return moments;
}

}  // namespace cuda

/// Mean and squared deviations of every channel (the last dimension) of x. With no values, zeros and a count of 0.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Moments<accumulate_t<T>, Device> batch_moments(const Tensor<T, Device>& x) {
    using A = accumulate_t<T>;
    const Index channels = x.extent(x.rank() - 1);
    if (x.size() == 0) return {0, Tensor<A, Device>(Shape{channels}), Tensor<A, Device>(Shape{channels})};
    return cuda::moments_of_rows<Device, T>(cuda::rows_of(x.shape()), channels, [&](auto width) {
        return cuda::StoredRows<T, width()>{x.data(), channels};
    });
}

SD_NAMESPACE_END
