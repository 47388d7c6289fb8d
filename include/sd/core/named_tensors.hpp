// Tensors by name: what optimizers and algorithms carry from step to step.
#pragma once

#include "sd/core/tensor.hpp"

#include <map>
#include <string>

SD_NAMESPACE_BEGIN

/// Tensors by name, such as "conv1.weight.momentum_buffer". A part of a run tells its state as these and takes it back.
template <class T, class Device = Cpu>
using NamedTensors = std::map<std::string, Tensor<T, Device>>;

SD_NAMESPACE_END
