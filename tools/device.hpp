// The device that a tool is built for.
#pragma once

#if defined(SD_TOOLS_CUDA)
#include "sd/cuda/cuda.hpp"
#else
#include "sd/core/storage.hpp"
#endif

namespace tools {

#if defined(SD_TOOLS_CUDA)
using Device = sd::Cuda;
#else
using Device = sd::Cpu;
#endif

}  // namespace tools
