// Batch normalisation: statistics forward, sums and gradient by input backward.
// S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training", ICML 2015.
#pragma once

#include "sd/core/moments.hpp"
#include "sd/core/pending_gradient.hpp"

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

/// What batch norm applies to each channel: the variance is squares / count. Shapes (C).
template <class A>
[[nodiscard]] BatchNormFactors<A> batch_norm_factors(const Tensor<A>& mean, const Tensor<A>& squares, Index count,
                                                     const Tensor<A>& weight, const Tensor<A>& bias, double eps) {
    const Shape& channels = mean.shape();
    BatchNormFactors<A> factors{Tensor<A>::empty(channels), Tensor<A>::empty(channels), Tensor<A>::empty(channels)};
    for (Index c = 0; c < mean.size(); ++c) {
        factors.inverse_std(c) = detail::inverse_deviation(squares(c), A(static_cast<double>(count)), A(eps));
        factors.scale(c) = weight(c) * factors.inverse_std(c);
        factors.shift(c) = bias(c) - mean(c) * factors.scale(c);
    }
    return factors;
}

/// Moves the running mean and variance (C) towards those of a batch, the variance unbiased; a batch of one value has
/// none, and one without values changes nothing.
template <class A>
void update_running_statistics(Tensor<A>& running_mean, Tensor<A>& running_var, const Moments<A>& moments,
                               double momentum) {
    if (moments.count == 0) return;
    for (Index c = 0; c < running_mean.size(); ++c) {
        running_mean(c) = detail::running_statistic(running_mean(c), moments.mean(c), momentum);
        if (moments.count < 2) continue;
        const A unbiased = moments.m2(c) / A(static_cast<double>(moments.count - 1));
        running_var(c) = detail::running_statistic(running_var(c), unbiased, momentum);
    }
}

/// With g = dy act'(scale z + shift), act the activation that follows:
///
///     dbias = sum g,    dweight = sum g zhat,    zhat = (z - mean) inverse_std
///
/// Throws std::invalid_argument if shapes do not fit.
template <class T>
[[nodiscard]] BatchNormSums<accumulate_t<T>> batch_norm_sums(const Tensor<T>& dy, const BatchNormPass<T>& pass) {
    using A = accumulate_t<T>;
    detail::expect_batch_norm_pass("batch_norm_sums", pass, dy.shape());
    const Index channels = pass.y.channels();
    BatchNormSums<A> sums{Tensor<A>(Shape{channels}), Tensor<A>(Shape{channels})};
    for (Index i = 0; i < dy.size(); ++i) {
        const Index c = i % channels;
        const T before = pass.y.before_activation(pass.y.raw.data()[i], c);
        const A g = A(activation_gradient(pass.y.activation, dy.data()[i], before));
        const A normalised = (A(pass.y.raw.data()[i]) - pass.mean(c)) * pass.inverse_std(c);
        sums.dbias(c) = sums.dbias(c) + g;
        sums.dweight(c) = sums.dweight(c) + g * normalised;
    }
    return sums;
}

/// The gradient by z, pending. The batch's mean and variance depend on every z of the channel; that gives the two sums:
///
///     dz = scale (g - dbias / count - zhat dweight / count)
///
/// With constant statistics: dz = scale g. Throws std::invalid_argument if shapes do not fit.
template <class T>
[[nodiscard]] PendingGradient<T> batch_norm_by_input(const Tensor<T>& dy, const BatchNormPass<T>& pass,
                                                     const BatchNormSums<accumulate_t<T>>& sums) {
    using A = accumulate_t<T>;
    const Shape channels{pass.y.channels()};
    detail::expect_batch_norm_sums(dy.shape(), pass, sums);
    Tensor<A> slope(channels);
    Tensor<A> offset(channels);
    if (pass.batch_statistics && dy.size() > 0) {
        const A count = static_cast<A>(static_cast<double>(dy.size() / channels[0]));
        for (Index c = 0; c < channels[0]; ++c) {
            slope(c) = A(0) - pass.y.scale(c) * sums.dweight(c) * pass.inverse_std(c) / count;
            offset(c) = A(0) - pass.y.scale(c) * sums.dbias(c) / count;
        }
    }
    return {dy, pass.y, pass.mean, slope, offset};
}

}  // namespace reference

SD_NAMESPACE_END
