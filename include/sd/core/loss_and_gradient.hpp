// What a loss gives.
#pragma once

#include "sd/core/tensor.hpp"

#include <type_traits>

SD_NAMESPACE_BEGIN

/// A mean loss: a number, or on a device that runs beside the CPU a tensor of one, which nobody has waited for.
template <class T, class Device = Cpu>
using mean_loss_t = std::conditional_t<Device::runs_beside_cpu, Tensor<accumulate_t<T>, Device>, accumulate_t<T>>;

/// The mean loss over the samples of a batch and its gradient by their logits.
template <class T, class Device = Cpu>
struct LossAndGradient {
    mean_loss_t<T, Device> loss;  ///< over the samples
    Tensor<T, Device> dlogits;    ///< (N, classes)
};

SD_NAMESPACE_END
