// The norm of several tensors as one vector, cut to a largest one; formula in reference/clip_norm.hpp.
#pragma once

#include "sd/cpu/elementwise.hpp"
#include "sd/reference/clip_norm.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

SD_NAMESPACE_BEGIN

using reference::clip_norm;

/// Scales the tensors so that their norm as one vector is at most max_norm, and returns the norm before, as a tensor of
/// one.
template <cpu::Vectorized T>
Tensor<double> clip_norm(std::span<Tensor<T>> tensors, double max_norm) {
    double squares = 0;
    for (const Tensor<T>& x : tensors) {
        PooledVector<double> sums(static_cast<std::size_t>((x.size() + cpu::sweep_elements - 1) / cpu::sweep_elements));
        parallel_ranges(x.size(), cpu::sweep_elements, [&](Index first, Index last) {
            constexpr Index lanes = 8;  // sums side by side, so that the compiler makes vectors of the loop
            double sum[lanes] = {};
            const T* value = x.data();
            Index i = first;
            for (; i + lanes <= last; i += lanes) {
                for (Index lane = 0; lane < lanes; ++lane) {
                    const auto own = static_cast<double>(value[i + lane]);
                    sum[lane] += own * own;
                }
            }
            for (; i < last; ++i) sum[0] += static_cast<double>(value[i]) * static_cast<double>(value[i]);
            double total = 0;
            for (const double part : sum) total += part;
            sums[static_cast<std::size_t>(first / cpu::sweep_elements)] = total;
        });
        for (const double sum : sums) squares += sum;
    }
    const double norm = std::sqrt(squares);
    const double factor = std::min(1.0, max_norm / (norm + 1e-6));
    if (factor != 1) {
        for (Tensor<T>& x : tensors) scale_by(x, static_cast<T>(factor));
    }
    return {Shape{1}, {norm}};
}

SD_NAMESPACE_END
