// The device's kernels without a device: each thread of each block in turn, against the plain loops.
#include "cuda_emulator.hpp"

namespace {
using KernelDevice = sd_test::Emulator;
}

#include "cuda_kernel_cases.hpp"
