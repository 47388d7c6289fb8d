// The device of NVIDIA's GPUs. Include it after or instead of sd.hpp in units that nvcc compiles, and put sd::Cuda
// where sd::Cpu is the default: sd::resnet50<float, sd::Cuda>(), sd::Sgd<float, sd::Cuda>. Programs link the CUDA
// runtime, cuDNN and cuBLASLt, in CMake by sd::cuda; docs/cuda.md says what runs where.
#pragma once

#include "sd/cuda/conv2d.hpp"
#include "sd/cuda/linear.hpp"
#include "sd/cuda/readback.hpp"
#include "sd/cuda/staging.hpp"
#include "sd/cuda/step_graph.hpp"

#include "sd/device/kernels.hpp"
#include "sd/sd.hpp"

SD_NAMESPACE_BEGIN
static_assert(ComputeDevice<Cuda> && cuda::CompleteAccelerator<Cuda>);
static_assert(HasKernels<Cuda, float> && HasKernels<Cuda, double> && HasKernels<Cuda, bfloat16>);
SD_NAMESPACE_END
