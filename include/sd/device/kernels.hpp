// All that a device runs, for any accelerator; no CUDA is needed to compile it.
#pragma once

#include "sd/core/device.hpp"
#include "sd/device/batch_norm.hpp"
#include "sd/device/channels.hpp"
#include "sd/device/clip_norm.hpp"
#include "sd/device/conv2d.hpp"
#include "sd/device/cross_entropy.hpp"
#include "sd/device/device_loader.hpp"
#include "sd/device/elementwise.hpp"
#include "sd/device/gate.hpp"
#include "sd/device/global_pooling.hpp"
#include "sd/device/joint_statistics.hpp"
#include "sd/device/layer_norm.hpp"
#include "sd/device/linear.hpp"
#include "sd/device/mixup.hpp"
#include "sd/device/pooling.hpp"
#include "sd/device/residual_join.hpp"
#include "sd/device/samples.hpp"
#include "sd/device/score.hpp"
#include "sd/device/staging.hpp"
#include "sd/device/update_parameters.hpp"

#include <concepts>

SD_NAMESPACE_BEGIN

namespace cuda {

/// A device that runs the kernels of this folder: all that they and its loader ask of it beside ComputeDevice.
///
///     Launcher<D>::run(kernel, blocks)    starts a kernel                                     kernel.hpp
///     StagingBuffer<T, D>                 a batch on its way to it                            staging.hpp
///     Conv2dEngine<T, D>                  convolutions of a library's, if it has any          direct_conv2d.hpp
///     LinearEngine<T, D>                  products of a library's, if it has any              linear.hpp
template <class D>
concept CompleteAccelerator = ComputeDevice<D> && Accelerator<D> && HasKernels<D, float> &&
    sd::detail::IsDefined<StagingBuffer<float, D>> && std::default_initializable<StagingBuffer<float, D>> &&
    requires(const Each<void (*)(Index)>& kernel, Index blocks, StagingBuffer<float, D>& buffer,
             const Tensor<float>& x) {
    Launcher<D>::run(kernel, blocks);
    buffer.fill(x);
    { buffer.begin_use() } -> std::same_as<Tensor<float, D>>;
    buffer.end_use();
};

}  // namespace cuda

SD_NAMESPACE_END
