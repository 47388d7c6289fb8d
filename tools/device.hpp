// The device that a tool is built for.
#pragma once

#if defined(SD_TOOLS_CUDA)
#include "sd/cuda/cuda.hpp"
#else
#include "sd/core/storage.hpp"
#endif

#include <string>
#include <vector>

namespace tools {

#if defined(SD_TOOLS_CUDA)
using Device = sd::Cuda;
inline constexpr const char* device_name = "GPU";
inline const std::vector<std::string> precisions = {"float", "tf32", "bf16"};

/// What loaders make for a model of elements T: floats, which the device rounds.
template <class T>
using loaded_t = float;

/// The loader's batches on the device, as elements of type T.
template <class T, class Loader>
sd::DeviceLoader<T, Device, Loader> on_device(const Loader& loader) {
    return sd::DeviceLoader<T, Device, Loader>(loader);
}
#else
using Device = sd::Cpu;
inline constexpr const char* device_name = "processor";
inline const std::vector<std::string> precisions = {"float", "bf16"};

/// What loaders make for a model of elements T.
template <class T>
using loaded_t = T;

/// The loader, whose batches are where they are needed.
template <class T, class Loader>
Loader on_device(const Loader& loader) {
    return loader;
}
#endif

}  // namespace tools
