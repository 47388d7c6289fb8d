// What a loss gives.
#pragma once

#include "sd/core/tensor.hpp"

#include <type_traits>

SD_NAMESPACE_BEGIN

/// A mean loss: a number on the CPU, elsewhere a tensor of one, which nobody has waited for.
template <class T, class Device = Cpu>
using mean_loss_t = std::conditional_t<std::is_same_v<Device, Cpu>, accumulate_t<T>, Tensor<accumulate_t<T>, Device>>;

/// The mean loss over the samples of a batch and its gradient by their logits.
template <class T, class Device = Cpu>
struct LossAndGradient {
    mean_loss_t<T, Device> loss;  ///< over the samples
    Tensor<T, Device> dlogits;    ///< (N, classes)
};

SD_NAMESPACE_END
