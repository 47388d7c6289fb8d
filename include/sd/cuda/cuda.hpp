// The device of NVIDIA's GPUs. Include it after or instead of sd.hpp in units that nvcc compiles, and put sd::Cuda
// where sd::Cpu is the default: sd::resnet50<float, sd::Cuda>(), sd::Sgd<float, sd::Cuda>. Programs link the CUDA
// runtime, cuDNN and cuBLASLt, in CMake by sd::cuda; docs/cuda.md says what runs where.
#pragma once

#include "sd/cuda/toolkit/conv2d.hpp"
#include "sd/cuda/toolkit/linear.hpp"
#include "sd/cuda/toolkit/readback.hpp"
#include "sd/cuda/toolkit/staging.hpp"
#include "sd/cuda/toolkit/step_graph.hpp"

#include "sd/cuda/kernels.hpp"
#include "sd/sd.hpp"
