// Per-channel sums: count, mean and squared deviations on the way forward, batch norm's two sums on the way back.
#pragma once

#include "sd/core/tensor.hpp"

#include <cmath>

SD_NAMESPACE_BEGIN

/// Statistics of each channel over `count` values:
///
///     mean(c) = sum x / count,    m2(c) = sum (x - mean(c))^2
///
/// so the biased variance is m2 / count. Never E[x^2] - E[x]^2, which cancels.
template <class A, class Device = Cpu>
struct Moments {
    Index count = 0;         ///< values a channel
    Tensor<A, Device> mean;  ///< (C)
    Tensor<A, Device> m2;    ///< (C)
};

/// What batch norm's backward gathers from all values of a channel, with g the gradient by its output and zhat the
/// normalised input:
///
///     dbias(c) = sum g,    dweight(c) = sum g zhat
template <class A, class Device = Cpu>
struct BatchNormSums {
    Tensor<A, Device> dweight;  ///< (C)
    Tensor<A, Device> dbias;    ///< (C)
    /// Whether g, which they are of, is what was written beside them. Else it was the gradient behind the activation that
    /// follows, and whoever reads that has to work out g again.
    bool of_written = false;
};

/// What the backward pass of y = gate(n, c) x gathers of each sample's channel, with dy the gradient by y:
///
///     of_gate(n, c) = sum dy x
///
/// and of a batch norm and activation before, x = act(v), v = scale z + shift, what its own two sums are made of when the
/// gradient by x is known, see batch_norm_sums(GateSums, ...):
///
///     of_norm(n, :, c) = sum dy act'(v) (z - mean), sum dy act'(v), sum act'(v) (z - mean), sum act'(v)
template <class T, class Device = Cpu>
struct GateSums {
    Tensor<T, Device> of_gate;                ///< (N, C)
    Tensor<accumulate_t<T>, Device> of_norm;  ///< (N, 4, C), or undefined
};

/// What batch norm applies to each channel, and what its backward needs.
template <class A, class Device = Cpu>
struct BatchNormFactors {
    Tensor<A, Device> inverse_std;  ///< (C), 1 / sqrt(variance + eps)
    Tensor<A, Device> scale;        ///< (C), weight inverse_std
    Tensor<A, Device> shift;        ///< (C), bias - mean scale
};

namespace detail {

/// One channel's inverse standard deviation: 1 / sqrt(squares / count + eps).
template <class A>
[[nodiscard]] SD_HOST_DEVICE A inverse_deviation(const A& squares, const A& count, const A& eps) {
    using std::sqrt;
    return A(1) / sqrt(A(A(squares / count) + eps));
}

/// One channel's running statistic after a batch.
template <class A>
[[nodiscard]] SD_HOST_DEVICE A running_statistic(const A& before, const A& of_batch, double momentum) {
    return static_cast<A>(1 - momentum) * before + static_cast<A>(momentum) * of_batch;
}

/// Merges the moments (count_b, mean_b, m2_b) of one channel into (count_a, mean_a, m2_a).
/// T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
///
///     delta = mean_b - mean_a,    mean = mean_a + delta count_b / count,
///     m2 = m2_a + m2_b + delta^2 count_a count_b / count
template <class A>
SD_HOST_DEVICE void merge_moments(Index count_a, A& mean_a, A& m2_a, Index count_b, const A& mean_b, const A& m2_b) {
    if (count_b == 0) return;
    const A count = A(static_cast<double>(count_a + count_b));
    const A delta = mean_b - mean_a;
    mean_a = mean_a + delta * (A(static_cast<double>(count_b)) / count);
    m2_a = m2_a + m2_b + delta * delta * (A(static_cast<double>(count_a)) * A(static_cast<double>(count_b)) / count);
}

}  // namespace detail

SD_NAMESPACE_END
