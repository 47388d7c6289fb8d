// Layer normalisation: every pixel over its channels.
// J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016.
#pragma once

#include "sd/core/layer_norm.hpp"
#include "sd/core/moments.hpp"

SD_NAMESPACE_BEGIN

namespace reference {

/// Over the channels of each pixel, with the biased variance m2 / C:
///
///     y = weight xhat + bias,    xhat = (x - mean) inverse_std,    inverse_std = 1 / sqrt(m2 / C + eps)
///
/// x (..., C), weight and bias (C), y of x's shape. The statistics are written if they are asked for.
/// Throws std::invalid_argument if shapes do not fit.
template <class T>
[[nodiscard]] Tensor<T> layer_norm_forward(const Tensor<T>& x, const Tensor<accumulate_t<T>>& weight,
                                           const Tensor<accumulate_t<T>>& bias, double eps,
                                           LayerNormStatistics<accumulate_t<T>>* statistics = nullptr) {
    using A = accumulate_t<T>;
    detail::expect_layer_norm("layer_norm_forward", x, weight, bias);
    const Index channels = weight.size();
    const Index pixels = x.size() / channels;
    const A count(static_cast<double>(channels));
    if (statistics != nullptr) *statistics = {Tensor<A>(Shape{pixels}), Tensor<A>(Shape{pixels})};
    Tensor<T> y(x.shape());
    for (Index pixel = 0; pixel < pixels; ++pixel) {
        const T* values = x.data() + pixel * channels;
        A sum(0);
        for (Index c = 0; c < channels; ++c) sum = sum + A(values[c]);
        const A mean = sum / count;
        A squares(0);
        for (Index c = 0; c < channels; ++c) squares = squares + (A(values[c]) - mean) * (A(values[c]) - mean);
        const A inverse_std = detail::inverse_deviation(squares, count, A(eps));
        for (Index c = 0; c < channels; ++c) {
            y.data()[pixel * channels + c] = T((A(values[c]) - mean) * inverse_std * weight(c) + bias(c));
        }
        if (statistics == nullptr) continue;
        statistics->mean(pixel) = mean;
        statistics->inverse_std(pixel) = inverse_std;
    }
    return y;
}

/// With g = dy weight, and means over the channels of the pixel:
///
///     dx = inverse_std (g - mean(g) - xhat mean(g xhat)),    dweight = sum dy xhat,    dbias = sum dy
///
/// Throws std::invalid_argument if shapes do not fit.
template <class T>
[[nodiscard]] LayerNormGradient<T> layer_norm_backward(const Tensor<T>& dy, const Tensor<T>& x,
                                                       const Tensor<accumulate_t<T>>& weight,
                                                       const LayerNormStatistics<accumulate_t<T>>& statistics) {
    using A = accumulate_t<T>;
    detail::expect_layer_norm_pass("layer_norm_backward", dy, x, weight, statistics);
    const Index channels = weight.size();
    const A count(static_cast<double>(channels));
    LayerNormGradient<T> gradient{Tensor<T>(x.shape()), Tensor<A>(weight.shape()), Tensor<A>(weight.shape())};
    for (Index pixel = 0; pixel < x.size() / channels; ++pixel) {
        const Index first = pixel * channels;
        const A inverse_std = statistics.inverse_std(pixel);
        const auto normalised = [&](Index c) {
            return (A(x.data()[first + c]) - statistics.mean(pixel)) * inverse_std;
        };
        A sum(0);
        A weighted(0);
        for (Index c = 0; c < channels; ++c) {
            const A upstream(dy.data()[first + c]);
            sum = sum + upstream * weight(c);
            weighted = weighted + upstream * weight(c) * normalised(c);
            gradient.dweight(c) = gradient.dweight(c) + upstream * normalised(c);
            gradient.dbias(c) = gradient.dbias(c) + upstream;
        }
        for (Index c = 0; c < channels; ++c) {
            const A g = A(dy.data()[first + c]) * weight(c);
            gradient.dx.data()[first + c] = T(inverse_std * (g - sum / count - normalised(c) * (weighted / count)));
        }
    }
    return gradient;
}

}  // namespace reference

SD_NAMESPACE_END
