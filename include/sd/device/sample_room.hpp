// Rounded numbers of samples, so that branches that run on the kept samples alone share convolution plans.
//
//     samples of a tensor:   | 0 | 1 | ... | kept - 1 |            shape: all that anyone sees
//     samples in its memory: | 0 | 1 | ... | kept - 1 | 0 | 0 |    room: what convolutions compute
//
// A convolution is asked for as many samples as its tensors have room for. Batch norm, the join and everything else see
// those that are there. What stands in the room behind them is zeros, in images and in gradients, so a sum over all of
// it, the gradient by the weights, is that of the samples. A convolution makes zeros of zeros; whoever else fills a
// tensor with room clears the rest.
#pragma once

#include "sd/core/tensor.hpp"
#include "sd/device/sweep.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cuda {

/// Room for `kept` samples of a batch: a multiple of a 32nd of the batch, or all of it. So there are 32 plans a
/// convolution at most, and about six in practice, as the number kept stays within a few of its deviations,
/// sqrt(N p (1 - p)). What is computed in vain is a 64th of the batch on average, little beside the p that is saved.
[[nodiscard]] inline Index rounded_samples(Index kept, Index batch) {
    const Index step = quotient_up(batch, 32);
    return kept == 0 ? 0 : std::min(quotient_up(kept, step) * step, batch);
}

/// How many samples a tensor has room for.
template <class T, Accelerator Device>
[[nodiscard]] Index sample_room(const Tensor<T, Device>& x) {
    return x.size() == 0 ? 0 : x.room() / (x.size() / x.extent(0));
}

/// The tensor with all samples that it has room for; at most `samples`.
template <class T, Accelerator Device>
[[nodiscard]] Tensor<T, Device> with_room(const Tensor<T, Device>& x, Index samples) {
    return x.in_room(with_samples(x.shape(), samples));
}

/// A tensor that is not set, with room for so many samples.
template <class T, Accelerator Device>
[[nodiscard]] Tensor<T, Device> empty_with_room(const Shape& shape, Index samples) {
    return Tensor<T, Device>::empty(shape, with_samples(shape, samples).size());
}

/// Sets elements to zero.
template <class T>
struct ClearElement {
    T* x;
    SD_HOST_DEVICE void operator()(Index i) const { x[i] = T(accumulate_t<T>(0)); }
};

/// The same with zeros behind the samples.
template <class T, Accelerator Device>
[[nodiscard]] Tensor<T, Device> empty_with_cleared_room(const Shape& shape, Index samples) {
    Tensor<T, Device> x = empty_with_room<T, Device>(shape, samples);
    launch_each<Device>(x.room() - x.size(), ClearElement<T>{x.data() + x.size()});
    return x;
}

}  // namespace cuda

SD_NAMESPACE_END
