// The kernel cases on a GPU.
#include "sd/cuda/cuda.hpp"

namespace {
using KernelDevice = sd::Cuda;
}

#include "../cuda_kernel_cases.hpp"
