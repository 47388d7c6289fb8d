// Batch normalisation: statistics forward, sums and gradient by input backward.
// S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training", ICML 2015.
#pragma once

#include "sd/core/moments.hpp"
#include "sd/core/pending.hpp"

SD_NAMESPACE_BEGIN

namespace reference {

/// Statistics of every channel (the last dimension) in two passes: the mean, then the squared deviations from it.
/// With no values, zeros and a count of 0.
template <class T>
[[nodiscard]] Moments<accumulate_t<T>> batch_moments(const Tensor<T>& x) {
    using A = accumulate_t<T>;
    const Index channels = x.extent(x.rank() - 1);
    Moments<A> moments{0, Tensor<A>(Shape{channels}), Tensor<A>(Shape{channels})};
    if (x.size() == 0) return moments;
    moments.count = x.size() / channels;
    for (Index c = 0; c < channels; ++c) {
        A sum(0);
        for (Index row = 0; row < moments.count; ++row) sum = sum + A(x.data()[row * channels + c]);
        const A mean = sum / A(static_cast<double>(moments.count));
        A squares(0);
        for (Index row = 0; row < moments.count; ++row) {
            const A deviation = A(x.data()[row * channels + c]) - mean;
            squares = squares + deviation * deviation;
        }
        moments.mean(c) = mean;
        moments.m2(c) = squares;
    }
    return moments;
}

/// The gradient that reaches batch norm's output: dy, stopped by the ReLU that may follow.
template <class T>
[[nodiscard]] T gradient_before_relu(const Tensor<T>& dy, const Pending<T>& y, Index i) {
    const bool passes = !y.relu || y.apply(y.raw.data()[i], i % y.channels()) > T(0);
    return passes ? dy.data()[i] : T(0);
}

/// For y = batch norm's output as a pending tensor (raw = its input z, scale = weight inverse_std, shift = bias - mean
/// scale, and maybe the ReLU that follows), and g = dy where no ReLU follows or y > 0, else 0:
///
///     dbias = sum g,    dweight = sum g zhat,    zhat = (z - mean) inverse_std
///
/// mean and inverse_std (C). Throws std::invalid_argument if shapes do not fit.
template <class T>
[[nodiscard]] BatchNormSums<accumulate_t<T>> batch_norm_sums(const Tensor<T>& dy, const Pending<T>& y,
                                                             const Tensor<accumulate_t<T>>& mean,
                                                             const Tensor<accumulate_t<T>>& inverse_std) {
    using A = accumulate_t<T>;
    const Index channels = y.channels();
    expect_shape("batch_norm_sums", "dy", dy.shape(), y.shape());
    expect_shape("batch_norm_sums", "scale", y.scale.shape(), {channels});
    expect_shape("batch_norm_sums", "mean", mean.shape(), {channels});
    expect_shape("batch_norm_sums", "inverse_std", inverse_std.shape(), {channels});
    BatchNormSums<A> sums{Tensor<A>(Shape{channels}), Tensor<A>(Shape{channels})};
    for (Index i = 0; i < dy.size(); ++i) {
        const Index c = i % channels;
        const A g = A(gradient_before_relu(dy, y, i));
        const A normalised = (A(y.raw.data()[i]) - mean(c)) * inverse_std(c);
        sums.dbias(c) = sums.dbias(c) + g;
        sums.dweight(c) = sums.dweight(c) + g * normalised;
    }
    return sums;
}

/// The gradient by z. The batch's mean and variance depend on every z of the channel; that gives the two sums:
///
///     dz = scale (g - dbias / count - zhat dweight / count)
///
/// With constant statistics (evaluation; sums == nullptr): dz = scale g.
/// Throws std::invalid_argument if shapes do not fit.
template <class T>
[[nodiscard]] Tensor<T> batch_norm_by_input(const Tensor<T>& dy, const Pending<T>& y,
                                            const Tensor<accumulate_t<T>>& mean,
                                            const Tensor<accumulate_t<T>>& inverse_std,
                                            const BatchNormSums<accumulate_t<T>>* sums) {
    using A = accumulate_t<T>;
    const Index channels = y.channels();
    expect_shape("batch_norm_by_input", "dy", dy.shape(), y.shape());
    expect_shape("batch_norm_by_input", "scale", y.scale.shape(), {channels});
    expect_shape("batch_norm_by_input", "mean", mean.shape(), {channels});
    expect_shape("batch_norm_by_input", "inverse_std", inverse_std.shape(), {channels});
    if (sums != nullptr) {
        expect_shape("batch_norm_by_input", "sums.dweight", sums->dweight.shape(), {channels});
        expect_shape("batch_norm_by_input", "sums.dbias", sums->dbias.shape(), {channels});
    }
    Tensor<T> dz(dy.shape());
    const A count = static_cast<A>(static_cast<double>(channels == 0 ? 0 : dy.size() / channels));
    for (Index i = 0; i < dy.size(); ++i) {
        const Index c = i % channels;
        A g = A(gradient_before_relu(dy, y, i));
        if (sums != nullptr) {
            const A normalised = (A(y.raw.data()[i]) - mean(c)) * inverse_std(c);
            g = g - sums->dbias(c) / count - normalised * sums->dweight(c) / count;
        }
        dz.data()[i] = T(y.scale(c) * g);
    }
    return dz;
}

}  // namespace reference

SD_NAMESPACE_END
