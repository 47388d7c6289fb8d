// Batch norm's statistics over all ranks, of a device: they are merged on the CPU, which waits for them.
#pragma once

#include "sd/device/kernel.hpp"
#include "sd/nn/joint_statistics.hpp"

SD_NAMESPACE_BEGIN

/// The moments of the values of all ranks, of which `own` are this rank's; its count may be 0.
template <class A, cuda::Accelerator Device>
[[nodiscard]] Moments<A, Device> merged_over_ranks(const Moments<A, Device>& own, Communicator& communicator) {
    const Moments<A> merged =
        merged_over_ranks(Moments<A>{own.count, to_host(own.mean), to_host(own.m2)}, communicator);
    return {merged.count, to_device<Device>(merged.mean), to_device<Device>(merged.m2)};
}

/// The sums of batch norm's backward over the values of all ranks, times `share`.
template <class A, cuda::Accelerator Device>
[[nodiscard]] BatchNormSums<A, Device> summed_over_ranks(const BatchNormSums<A, Device>& own,
                                                         Communicator& communicator, double share) {
    const BatchNormSums<A> sums =
        summed_over_ranks(BatchNormSums<A>{to_host(own.dweight), to_host(own.dbias)}, communicator, share);
    return {to_device<Device>(sums.dweight), to_device<Device>(sums.dbias)};
}

SD_NAMESPACE_END
