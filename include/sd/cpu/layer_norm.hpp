// Layer normalisation: every pixel over its channels, while they are in the first cache. Memory is passed over once
// either way.
// J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/merge_rows.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/cpu/target.hpp"
#include "sd/reference/layer_norm.hpp"

SD_NAMESPACE_BEGIN

using reference::layer_norm_backward;
using reference::layer_norm_forward;

namespace cpu {

/// The sum of all lanes, in order.
template <class T>
[[nodiscard, gnu::always_inline]] inline accumulate_t<T> lane_sum(const Vector<T>& values) {
    accumulate_t<T> sum = 0;
    for (Index i = 0; i < lanes<T>; ++i) sum += values[i];
    return sum;
}

/// The values in the first `count` lanes, at most all, and zeros in the others.
template <class T>
[[nodiscard, gnu::always_inline]] inline Vector<T> first_of(const Vector<T>& values, Index count) {
    if (count >= lanes<T>) return values;
    Vector<T> result = {};
    std::memcpy(&result, &values, static_cast<std::size_t>(count) * sizeof(accumulate_t<T>));
    return result;
}

/// Mean and inverse deviation of a pixel.
template <class T>
struct PixelStatistics {
    using A = accumulate_t<T>;
    A mean, inverse_std;

    PixelStatistics(const T* x, Index channels, double eps) {
        const A count = static_cast<A>(channels);
        Vector<T> sum = {};
        for_each_vector<T>(channels, [&](Index c, auto some) { sum += load_some(x + c, some); });
        mean = lane_sum<T>(sum) / count;
        Vector<T> squares = {};
        for_each_vector<T>(channels, [&](Index c, auto some) {
            const Vector<T> deviation = first_of<T>(load_some(x + c, some) - mean, some);
            squares += deviation * deviation;
        });
        inverse_std = detail::inverse_deviation(lane_sum<T>(squares), count, static_cast<A>(eps));
    }
};

}  // namespace cpu

/// Layer norm over the channels of each pixel, y = weight (x - mean) inverse_std + bias, as reference::layer_norm_forward
/// says. Throws std::invalid_argument if shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> layer_norm_forward(const Tensor<T>& x, const Tensor<accumulate_t<T>>& weight,
                                           const Tensor<accumulate_t<T>>& bias, double eps,
                                           LayerNormStatistics<accumulate_t<T>>* statistics = nullptr) {
    using A = accumulate_t<T>;
    using cpu::load_some;
    detail::expect_layer_norm("layer_norm_forward", x, weight, bias);
    const Index channels = weight.size();
    const Index pixels = x.size() / channels;
    if (statistics != nullptr) *statistics = {Tensor<A>::empty({pixels}), Tensor<A>::empty({pixels})};
    Tensor<T> y = Tensor<T>::empty(x.shape());
    const cpu::Target<T> target(y);
    parallel_ranges(pixels, cpu::sweep_rows(channels), [&](Index first, Index last) {
        for (Index pixel = first; pixel < last; ++pixel) {
            const T* values = x.data() + pixel * channels;
            const cpu::PixelStatistics<T> own(values, channels, eps);
            cpu::for_each_vector<T>(channels, [&](Index c, auto count) {
                const cpu::Vector<T> normalised = (load_some(values + c, count) - own.mean) * own.inverse_std;
                target.put(normalised * load_some(weight.data() + c, count) + load_some(bias.data() + c, count),
                           pixel * channels + c, count);
            });
            if (statistics == nullptr) continue;
            statistics->mean.data()[pixel] = own.mean;
            statistics->inverse_std.data()[pixel] = own.inverse_std;
        }
        cpu::stream_fence();
    });
    return y;
}

/// The gradients of layer norm, as reference::layer_norm_backward says.
/// Throws std::invalid_argument if shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] LayerNormGradient<T> layer_norm_backward(const Tensor<T>& dy, const Tensor<T>& x,
                                                       const Tensor<accumulate_t<T>>& weight,
                                                       const LayerNormStatistics<accumulate_t<T>>& statistics) {
    using A = accumulate_t<T>;
    using cpu::load_some;
    using V = cpu::Vector<T>;
    detail::expect_layer_norm_pass("layer_norm_backward", dy, x, weight, statistics);
    const Index channels = weight.size();
    const Index pixels = x.size() / channels;
    const Index grain = cpu::sweep_rows(channels);
    const A count = static_cast<A>(channels);
    LayerNormGradient<T> gradient{Tensor<T>::empty(x.shape()), Tensor<A>::empty({channels}),
                                  Tensor<A>::empty({channels})};
    Tensor<A> partial(Shape{cpu::quotient_up(pixels, grain), 2 * channels});  // of dweight, of dbias
    const cpu::Target<T> target(gradient.dx);
    parallel_ranges(pixels, grain, [&](Index first, Index last) {
        A* dweight = partial.data() + first / grain * 2 * channels;
        A* dbias = dweight + channels;
        for (Index pixel = first; pixel < last; ++pixel) {
            const T* values = x.data() + pixel * channels;
            const T* upstream = dy.data() + pixel * channels;
            const A mean = statistics.mean.data()[pixel];
            const A inverse_std = statistics.inverse_std.data()[pixel];
            V sum = {};
            V weighted = {};
            // Lanes past the last channel have an upstream of 0 and so add nothing.
            cpu::for_each_vector<T>(channels, [&](Index c, auto some) {
                const V own = load_some(upstream + c, some);
                const V normalised = (load_some(values + c, some) - mean) * inverse_std;
                cpu::store_some<A>(load_some(dbias + c, some) + own, dbias + c, some);
                cpu::store_some<A>(load_some(dweight + c, some) + own * normalised, dweight + c, some);
                const V g = own * load_some(weight.data() + c, some);
                sum += g;
                weighted += g * normalised;
            });
            const A mean_g = cpu::lane_sum<T>(sum) / count;
            const A mean_weighted = cpu::lane_sum<T>(weighted) / count;
            cpu::for_each_vector<T>(channels, [&](Index c, auto some) {
                const V g = load_some(upstream + c, some) * load_some(weight.data() + c, some);
                const V normalised = (load_some(values + c, some) - mean) * inverse_std;
                target.put(inverse_std * (g - mean_g - normalised * mean_weighted), pixel * channels + c, some);
            });
        }
        cpu::stream_fence();
    });
    const Tensor<double> sums = cpu::merged_rows(partial);
    for (Index c = 0; c < channels; ++c) {
        gradient.dweight.data()[c] = static_cast<A>(sums.data()[c]);
        gradient.dbias.data()[c] = static_cast<A>(sums.data()[channels + c]);
    }
    return gradient;
}

SD_NAMESPACE_END
