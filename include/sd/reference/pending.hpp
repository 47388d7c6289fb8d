// Pending tensors made plain.
#pragma once

#include "sd/core/pending_gradient.hpp"

SD_NAMESPACE_BEGIN

namespace reference {

/// The values of a pending tensor; the tensor itself if it is plain.
template <class T>
[[nodiscard]] Tensor<T> materialize(const Pending<T>& x) {
    if (x.is_plain()) return x.raw;
    Tensor<T> y(x.shape());
    for (Index i = 0; i < y.size(); ++i) y.data()[i] = x.value(i);
    return y;
}

/// The values of a pending gradient; the tensor itself if it is plain.
template <class T>
[[nodiscard]] Tensor<T> materialize(const PendingGradient<T>& dy) {
    if (dy.is_plain()) return dy.dy;
    Tensor<T> dz(dy.shape());
    for (Index i = 0; i < dz.size(); ++i) dz.data()[i] = dy.value(i);
    return dz;
}

}  // namespace reference

SD_NAMESPACE_END
