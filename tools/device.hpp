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
inline constexpr const char* device_name = "GPU";

/// The loader's batches on the device, as elements of type T.
template <class T, class Loader>
sd::DeviceLoader<T, Device, Loader> on_device(const Loader& loader) {
    return sd::DeviceLoader<T, Device, Loader>(loader);
}
#else
using Device = sd::Cpu;
inline constexpr const char* device_name = "processor";

/// The loader, whose batches are where they are needed.
template <class T, class Loader>
Loader on_device(const Loader& loader) {
    return loader;
}
#endif

}  // namespace tools
