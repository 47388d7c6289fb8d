// Families of networks on a device without a device, against double.
#include "cuda_emulator.hpp"

namespace {
using KernelDevice = sd_test::Emulator;
}

#include "cuda_family_cases.hpp"
