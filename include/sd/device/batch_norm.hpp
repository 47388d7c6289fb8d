// Batch normalisation on a device: what it applies to each channel. Statistics and the sums of its backward pass are
// gathered in files of their own.
#pragma once

#include "sd/device/batch_norm_backward.hpp"
#include "sd/device/moments.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// BatchNormFactors of a channel.
template <class A>
struct Factors {
    const A *mean, *squares, *weight, *bias;
    A count, eps;
    A *inverse_std, *scale, *shift;

    SD_HOST_DEVICE void operator()(Index c) const {
        inverse_std[c] = detail::inverse_deviation(squares[c], count, eps);
        scale[c] = weight[c] * inverse_std[c];
        shift[c] = bias[c] - mean[c] * scale[c];
    }
};

/// The running statistics of a channel.
template <class A>
struct UpdateRunningStatistics {
    Index count;
    const A *mean, *m2;
    double momentum;
    A *running_mean, *running_var;

    SD_HOST_DEVICE void operator()(Index c) const {
        running_mean[c] = detail::running_statistic(running_mean[c], mean[c], momentum);
        if (count < 2) return;  // one value has no unbiased variance
        running_var[c] = detail::running_statistic(running_var[c],
                                                   A(m2[c] / static_cast<A>(static_cast<double>(count - 1))), momentum);
    }
};

}  // namespace cuda

/// What batch norm applies to each channel: the variance is squares / count. Shapes (C).
template <class A, cuda::Accelerator Device>
[[nodiscard]] BatchNormFactors<A, Device> batch_norm_factors(const Tensor<A, Device>& mean,
                                                             const Tensor<A, Device>& squares, Index count,
                                                             const Tensor<A, Device>& weight,
                                                             const Tensor<A, Device>& bias, double eps) {
    const auto empty = [&] { return Tensor<A, Device>::empty(mean.shape()); };
    BatchNormFactors<A, Device> factors{empty(), empty(), empty()};
    cuda::launch_each<Device>(mean.size(),
                              cuda::Factors<A>{mean.data(), squares.data(), weight.data(), bias.data(),
                                               static_cast<A>(static_cast<double>(count)), static_cast<A>(eps),
                                               factors.inverse_std.data(), factors.scale.data(), factors.shift.data()});
    return factors;
}

/// Moves the running mean and variance (C) towards those of a batch, the variance unbiased; a batch of one value has
/// none, and one without values changes nothing.
template <class A, cuda::Accelerator Device>
void update_running_statistics(Tensor<A, Device>& running_mean, Tensor<A, Device>& running_var,
                               const Moments<A, Device>& moments, double momentum) {
    if (moments.count == 0) return;
    cuda::launch_each<Device>(running_mean.size(),
                              cuda::UpdateRunningStatistics<A>{moments.count, moments.mean.data(), moments.m2.data(),
                                                               momentum, running_mean.data(), running_var.data()});
}

SD_NAMESPACE_END
