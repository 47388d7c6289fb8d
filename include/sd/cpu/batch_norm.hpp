// Batch normalisation: statistics forward, sums and gradient by input backward.
// S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training", ICML 2015.
//
// The values of a channel are cut into chunks of rows by the problem's size alone. Each chunk is summed by one thread
// and the chunks are merged in order, so the results have the same bits for any number of threads.
#pragma once

#include "sd/core/moments.hpp"
#include "sd/core/parallel.hpp"
#include "sd/core/pending.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/reference/batch_norm.hpp"

SD_NAMESPACE_BEGIN

using reference::batch_moments;
using reference::batch_norm_by_input;
using reference::batch_norm_sums;

/// Mean and squared deviations of every channel (the last dimension) of x. With no values, zeros and a count of 0.
template <cpu::Vectorized T>
[[nodiscard]] Moments<accumulate_t<T>> batch_moments(const Tensor<T>& x) {
    const Index channels = x.extent(x.rank() - 1);
    Moments<T> moments{0, Tensor<T>(Shape{channels}), Tensor<T>(Shape{channels})};
    if (x.size() == 0) return moments;
    const Index rows = x.size() / channels;
    const Index grain = cpu::sweep_rows(channels);
    const Index chunks = (rows + grain - 1) / grain;

    Tensor<T> partial(Shape{chunks, 2, channels});
    parallel_ranges(rows, grain, [&](Index first, Index last) {
        T* mean = partial.data() + first / grain * 2 * channels;
        T* m2 = mean + channels;
        for (Index row = first; row < last; ++row) {
            const T* value = x.data() + row * channels;
            for (Index c = 0; c < channels; ++c) mean[c] += value[c];
        }
        const T count = static_cast<T>(last - first);
        for (Index c = 0; c < channels; ++c) mean[c] /= count;
        for (Index row = first; row < last; ++row) {  // the chunk is still in the cache
            const T* value = x.data() + row * channels;
            for (Index c = 0; c < channels; ++c) m2[c] += (value[c] - mean[c]) * (value[c] - mean[c]);
        }
    });

    moments.count = rows;
    parallel_ranges(channels, 64, [&](Index first, Index last) {
        for (Index c = first; c < last; ++c) {
            double mean = 0;
            double m2 = 0;
            for (Index chunk = 0; chunk < chunks; ++chunk) {
                const Index count = std::min(grain, rows - chunk * grain);
                const T* part = partial.data() + chunk * 2 * channels;
                merge_moments(chunk * grain, mean, m2, count, static_cast<double>(part[c]),
                              static_cast<double>(part[channels + c]));
            }
            moments.mean.data()[c] = static_cast<T>(mean);
            moments.m2.data()[c] = static_cast<T>(m2);
        }
    });
    return moments;
}

/// The sums of batch norm's backward. y is its output as a pending tensor: raw = its input z, scale = weight
/// inverse_std, shift = bias - mean scale, and maybe the ReLU that follows.
///
///     g = dy where no ReLU follows or y > 0, else 0
///     dbias = sum g,    dweight = sum g (z - mean) inverse_std
template <cpu::Vectorized T>
[[nodiscard]] BatchNormSums<accumulate_t<T>> batch_norm_sums(const Tensor<T>& dy, const Pending<T>& y,
                                                             const Tensor<accumulate_t<T>>& mean,
                                                             const Tensor<accumulate_t<T>>& inverse_std) {
    expect_shape("batch_norm_sums", "dy", dy.shape(), y.shape());
    const Index channels = y.channels();
    expect_shape("batch_norm_sums", "scale", y.scale.shape(), {channels});
    expect_shape("batch_norm_sums", "mean", mean.shape(), {channels});
    expect_shape("batch_norm_sums", "inverse_std", inverse_std.shape(), {channels});
    BatchNormSums<T> sums{Tensor<T>(Shape{channels}), Tensor<T>(Shape{channels})};
    if (dy.size() == 0) return sums;
    const Index rows = dy.size() / channels;
    const Index grain = cpu::sweep_rows(channels);
    const Index chunks = (rows + grain - 1) / grain;

    Tensor<T> partial(Shape{chunks, 2, channels});
    parallel_ranges(rows, grain, [&](Index first, Index last) {
        T* dweight = partial.data() + first / grain * 2 * channels;
        T* dbias = dweight + channels;
        const T* scale = y.scale.data();
        const T* shift = y.shift.data();
        const T* center = mean.data();
        for (Index row = first; row < last; ++row) {
            const T* z = y.raw.data() + row * channels;
            const T* upstream = dy.data() + row * channels;
            for (Index c = 0; c < channels; ++c) {
                const T g = !y.relu || scale[c] * z[c] + shift[c] > T(0) ? upstream[c] : T(0);
                dbias[c] += g;
                dweight[c] += g * (z[c] - center[c]);
            }
        }
    });

    parallel_ranges(channels, 64, [&](Index first, Index last) {
        for (Index c = first; c < last; ++c) {
            double dweight = 0;
            double dbias = 0;
            for (Index chunk = 0; chunk < chunks; ++chunk) {
                const T* part = partial.data() + chunk * 2 * channels;
                dweight += static_cast<double>(part[c]);
                dbias += static_cast<double>(part[channels + c]);
            }
            sums.dweight.data()[c] = static_cast<T>(dweight * static_cast<double>(inverse_std.data()[c]));
            sums.dbias.data()[c] = static_cast<T>(dbias);
        }
    });
    return sums;
}

/// The gradient by batch norm's input z, for y as in batch_norm_sums. With the batch's own statistics, which depend on
/// z:
///
///     dz = scale (g - dbias / count - zhat dweight / count),    zhat = (z - mean) inverse_std
///
/// With constant statistics (evaluation; sums == nullptr): dz = scale g.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> batch_norm_by_input(const Tensor<T>& dy, const Pending<T>& y,
                                            const Tensor<accumulate_t<T>>& mean,
                                            const Tensor<accumulate_t<T>>& inverse_std,
                                            const BatchNormSums<accumulate_t<T>>* sums) {
    expect_shape("batch_norm_by_input", "dy", dy.shape(), y.shape());
    const Index channels = y.channels();
    expect_shape("batch_norm_by_input", "scale", y.scale.shape(), {channels});
    Tensor<T> dz = Tensor<T>::empty(dy.shape());
    if (dz.size() == 0) return dz;
    const Index rows = dz.size() / channels;

    // dz = scale g + slope (z - mean) + offset, one slope and offset a channel
    Tensor<T> slope(Shape{channels});
    Tensor<T> offset(Shape{channels});
    if (sums != nullptr) {
        const T count = static_cast<T>(rows);
        for (Index c = 0; c < channels; ++c) {
            const T along = -y.scale.data()[c] * sums->dweight.data()[c] * inverse_std.data()[c] / count;
            slope.data()[c] = along;
            offset.data()[c] = -y.scale.data()[c] * sums->dbias.data()[c] / count;
        }
    }
    parallel_ranges(rows, cpu::sweep_rows(channels), [&](Index first, Index last) {
        const T* scale = y.scale.data();
        const T* shift = y.shift.data();
        const T* center = mean.data();
        const T* along = slope.data();
        const T* constant = offset.data();
        for (Index row = first; row < last; ++row) {
            const T* z = y.raw.data() + row * channels;
            const T* upstream = dy.data() + row * channels;
            T* target = dz.data() + row * channels;
            for (Index c = 0; c < channels; ++c) {
                const T g = !y.relu || scale[c] * z[c] + shift[c] > T(0) ? upstream[c] : T(0);
                target[c] = scale[c] * g + along[c] * (z[c] - center[c]) + constant[c];
            }
        }
    });
    return dz;
}

SD_NAMESPACE_END
