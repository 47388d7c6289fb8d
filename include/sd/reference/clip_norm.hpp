// The norm of several tensors as one vector, cut to a largest one.
#pragma once

#include "sd/core/tensor.hpp"

#include <algorithm>
#include <cmath>
#include <span>

SD_NAMESPACE_BEGIN

namespace reference {

/// With the norm of all elements of all tensors together,
///
///     norm = sqrt(sum x^2),    x *= min(1, max_norm / (norm + 1e-6))
///
/// Returns the norm before, as a tensor of one. As torch.nn.utils.clip_grad_norm_; sums are in double.
template <class T>
Tensor<double> clip_norm(std::span<Tensor<T>> tensors, double max_norm) {
    double squares = 0;
    for (const Tensor<T>& x : tensors) {
        for (const T& value : x) squares += static_cast<double>(value) * static_cast<double>(value);
    }
    const double norm = std::sqrt(squares);
    const double factor = std::min(1.0, max_norm / (norm + 1e-6));
    for (Tensor<T>& x : tensors) {
        for (T& value : x) value = value * static_cast<T>(factor);
    }
    return {Shape{1}, {norm}};
}

}  // namespace reference

SD_NAMESPACE_END
