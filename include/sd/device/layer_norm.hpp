// Layer normalisation on a device: 32 threads a pixel. Sums over pixels are batch norm's, in another file.
#pragma once

#include "sd/core/layer_norm.hpp"
#include "sd/device/batch_norm_backward.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// Threads that go over the channels of a pixel together.
inline constexpr int pixel_threads = 32;

/// Pixels of so many channels, and which of them a thread takes.
struct PixelRows {
    Index pixels, channels;

    /// All blocks.
    [[nodiscard]] Index blocks() const { return quotient_up(pixels, block_threads / pixel_threads); }
    /// The thread's pixel; past the last one if it has none.
    [[nodiscard]] SD_HOST_DEVICE Index pixel(Thread thread) const {
        return thread.block * (block_threads / pixel_threads) + thread.index / pixel_threads;
    }
    /// Calls body(channel, element) for the thread's vectors of `width` channels.
    template <int width, class Body>
    SD_HOST_DEVICE void for_each(Thread thread, const Body& body) const {
        const Index first = pixel(thread) * channels;
        for (Index c = thread.index % pixel_threads * width; c < channels; c += pixel_threads * width) {
            body(c, first + c);
        }
    }
    /// The mean over channels of what the pixel's threads have summed, in order.
    template <class A>
    [[nodiscard]] SD_HOST_DEVICE A mean(Thread thread, const A* sums) const {
        const int first = thread.index / pixel_threads * pixel_threads;
        A sum = A(0);
        for (int other = first; other < first + pixel_threads; ++other) sum += sums[other];
        return sum / static_cast<A>(static_cast<double>(channels));
    }
};

/// y, and the statistics where they are wanted.
template <class T, int width>
struct LayerNormForward {
    using A = accumulate_t<T>;
    static constexpr int phases = 3;
    struct Shared {
        A sum[block_threads];
        A squares[block_threads];
    };
    PixelRows rows;
    const T* x;
    const A *weight, *bias;
    A eps;
    T* y;
    A *means, *inverse_stds;  ///< or nullptr

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        if (rows.pixel(thread) >= rows.pixels) return;
        A sum = A(0);
        rows.for_each<width>(thread, [&](Index, Index element) {
            const Pack<T, width> value = load<width>(x + element);
            for (int i = 0; i < width; ++i) sum += A(value.value[i]);
        });
        shared.sum[thread.index] = sum;
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        if (rows.pixel(thread) >= rows.pixels) return;
        const A mean = rows.mean(thread, shared.sum);
        A squares = A(0);
        rows.for_each<width>(thread, [&](Index, Index element) {
            const Pack<T, width> value = load<width>(x + element);
            for (int i = 0; i < width; ++i) squares += (A(value.value[i]) - mean) * (A(value.value[i]) - mean);
        });
        shared.squares[thread.index] = squares;
    }
    SD_HOST_DEVICE void operator()(Phase<2>, Thread thread, Shared& shared) const {
        const Index pixel = rows.pixel(thread);
        if (pixel >= rows.pixels) return;
        const A mean = rows.mean(thread, shared.sum);
        const A inverse_std = detail::inverse_deviation(rows.mean(thread, shared.squares), A(1), eps);
        rows.for_each<width>(thread, [&](Index c, Index element) {
            const Pack<T, width> value = load<width>(x + element);
            const Pack<A, width> factor = load<width>(weight + c);
            const Pack<A, width> term = load<width>(bias + c);
            Pack<T, width> result;
            for (int i = 0; i < width; ++i) {
                const A normalised = (A(value.value[i]) - mean) * inverse_std;
                result.value[i] = T(A(normalised * factor.value[i] + term.value[i]));
            }
            store<width>(result, y + element);
        });
        if (means == nullptr || thread.index % pixel_threads != 0) return;
        means[pixel] = mean;
        inverse_stds[pixel] = inverse_std;
    }
};

/// What a pixel's gradients and normalised values are made of.
template <class T, int width>
struct LayerNormOperands {
    using A = accumulate_t<T>;
    const T *dy, *x;
    const A *means, *inverse_stds;

    [[nodiscard]] SD_HOST_DEVICE Pack<A, width> upstream(Index element) const {
        const Pack<T, width> value = load<width>(dy + element);
        Pack<A, width> result;
        for (int i = 0; i < width; ++i) result.value[i] = A(value.value[i]);
        return result;
    }
    [[nodiscard]] SD_HOST_DEVICE Pack<A, width> normalised(Index pixel, Index element) const {
        const Pack<T, width> value = load<width>(x + element);
        Pack<A, width> result;
        for (int i = 0; i < width; ++i) result.value[i] = (A(value.value[i]) - means[pixel]) * inverse_stds[pixel];
        return result;
    }
};

/// dx.
template <class T, int width>
struct LayerNormByInput {
    using A = accumulate_t<T>;
    static constexpr int phases = 2;
    struct Shared {
        A sum[block_threads];
        A weighted[block_threads];
    };
    PixelRows rows;
    LayerNormOperands<T, width> operands;
    const A* weight;
    T* dx;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const Index pixel = rows.pixel(thread);
        if (pixel >= rows.pixels) return;
        A sum = A(0), weighted = A(0);
        rows.for_each<width>(thread, [&](Index c, Index element) {
            const Pack<A, width> g = gradient(c, element);
            const Pack<A, width> normalised = operands.normalised(pixel, element);
            for (int i = 0; i < width; ++i) {
                sum += g.value[i];
                weighted += g.value[i] * normalised.value[i];
            }
        });
        shared.sum[thread.index] = sum;
        shared.weighted[thread.index] = weighted;
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const Index pixel = rows.pixel(thread);
        if (pixel >= rows.pixels) return;
        const A mean = rows.mean(thread, shared.sum);
        const A weighted = rows.mean(thread, shared.weighted);
        const A inverse_std = operands.inverse_stds[pixel];
        rows.for_each<width>(thread, [&](Index c, Index element) {
            const Pack<A, width> g = gradient(c, element);
            const Pack<A, width> normalised = operands.normalised(pixel, element);
            Pack<T, width> result;
            for (int i = 0; i < width; ++i) {
                result.value[i] = T(A(inverse_std * (g.value[i] - mean - normalised.value[i] * weighted)));
            }
            store<width>(result, dx + element);
        });
    }

private:
    [[nodiscard]] SD_HOST_DEVICE Pack<A, width> gradient(Index c, Index element) const {
        Pack<A, width> g = operands.upstream(element);
        const Pack<A, width> factor = load<width>(weight + c);
        for (int i = 0; i < width; ++i) g.value[i] *= factor.value[i];
        return g;
    }
};

/// dweight and dbias over each block of rows: partial (row_blocks, 2, C).
template <class T, int width>
struct LayerNormSums {
    using A = accumulate_t<T>;
    using Sums = ChannelPairs<A, width>;
    using Shared = typename Sums::Shared;
    static constexpr int phases = 2;
    Sweep sweep;
    LayerNormOperands<T, width> operands;
    A* partial;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        Sums sums;
        sweep.for_each_row(at, [&](Index pixel, Index element) {
            const Pack<A, width> upstream = operands.upstream(element);
            const Pack<A, width> normalised = operands.normalised(pixel, element);
            for (int i = 0; i < width; ++i) {
                sums.dbias[i] += upstream.value[i];
                sums.dweight[i] += upstream.value[i] * normalised.value[i];
            }
        });
        sums.share(thread.index, shared);
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active || at.row_thread != 0) return;
        Sums::merge(sweep, at, thread.index, shared, partial + at.row_block * 2 * sweep.channels);
    }
};

}  // namespace cuda

/// Layer norm over the channels of each pixel, as on the CPU, with room for as many samples as x has. Throws
/// std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> layer_norm_forward(const Tensor<T, Device>& x,
                                                   const Tensor<accumulate_t<T>, Device>& weight,
                                                   const Tensor<accumulate_t<T>, Device>& bias, double eps,
                                                   LayerNormStatistics<accumulate_t<T>, Device>* statistics = nullptr) {
    using A = accumulate_t<T>;
    detail::expect_layer_norm("layer_norm_forward", x, weight, bias);
    const cuda::PixelRows rows{cuda::rows_of(x.shape()), weight.size()};
    LayerNormStatistics<A, Device> own;
    if (statistics != nullptr) {
        own = {Tensor<A, Device>::empty({rows.pixels}), Tensor<A, Device>::empty({rows.pixels})};
        *statistics = own;
    }
    auto y = cuda::empty_with_cleared_room<T, Device>(x.shape(), cuda::sample_room(x));
    cuda::with_width<T>(rows.channels, [&](auto width) {
        cuda::launch<Device>(
            cuda::LayerNormForward<T, width()>{rows, x.data(), weight.data(), bias.data(), static_cast<A>(eps),
                                               y.data(), own.mean.data(), own.inverse_std.data()},
            rows.blocks());
    });
    return y;
}

/// The gradients of layer norm, as on the CPU. Throws std::invalid_argument if shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] LayerNormGradient<T, Device> layer_norm_backward(
    const Tensor<T, Device>& dy, const Tensor<T, Device>& x, const Tensor<accumulate_t<T>, Device>& weight,
    const LayerNormStatistics<accumulate_t<T>, Device>& statistics) {
    using A = accumulate_t<T>;
    detail::expect_layer_norm_pass("layer_norm_backward", dy, x, weight, statistics);
    const cuda::PixelRows rows{cuda::rows_of(x.shape()), weight.size()};
    auto dx = cuda::empty_with_cleared_room<T, Device>(x.shape(), cuda::sample_room(x));
    Tensor<A, Device> partial;
    cuda::with_width<T>(rows.channels, [&](auto width) {
        const cuda::LayerNormOperands<T, width()> operands{dy.data(), x.data(), statistics.mean.data(),
                                                           statistics.inverse_std.data()};
        cuda::launch<Device>(cuda::LayerNormByInput<T, width()>{rows, operands, weight.data(), dx.data()},
                             rows.blocks());
        const cuda::Sweep sweep(rows.pixels, rows.channels, width, 16, cuda::reduction_blocks);
        partial = Tensor<A, Device>::empty({sweep.row_blocks, 2, rows.channels});
        cuda::launch<Device>(cuda::LayerNormSums<T, width()>{sweep, operands, partial.data()}, sweep.blocks());
    });
    const BatchNormSums<A, Device> sums =
        cuda::merged_sums<Device>(partial, Tensor<A, Device>::full({rows.channels}, A(1)));
    return {dx, sums.dweight, sums.dbias};
}

SD_NAMESPACE_END
