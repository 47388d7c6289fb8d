// Batches on their way to a device, beside the work on the batch before.
//
//     processor      fill 0          fill 1                fill 0 (when copy 0 has ended) ...
//     copies               | copy 0 |      | copy 1 |            | copy 0 (when use 0 has ended) ...
//     device                        | use 0 | train 0      | use 1 (when copy 1 has ended) | train 1 ...
#pragma once

#include "sd/device/elementwise.hpp"

#include <array>
#include <cstddef>

SD_NAMESPACE_BEGIN

namespace cuda {

/// A buffer of the CPU's that a device can copy from by itself, and one of the device's that it copies to. Every
/// device has its own:
///
///     fill(x)       copies a tensor of the CPU and starts its way to the device. First waits until the buffer's
///                   last copy has ended; the copy waits until the device is done with the last one
///     begin_use()   what is started on the device from now on waits for the copy; the tensor on the device
///     end_use()     the device is done with it when all that was started so far is
///
/// It may go at any time, also between two of them.
template <class T, class Device>
class StagingBuffer;

/// Two buffers, used in turn: while the device works on what one of them brought, the other is filled.
template <class From, class Device>
class Staging {
public:
    /// The tensor on the device, as elements of type T. `x` may be changed as soon as this returns.
    template <class T>
    [[nodiscard]] Tensor<T, Device> bring(const Tensor<From>& x) {
        if (x.size() == 0) return Tensor<T, Device>::empty(x.shape());
        StagingBuffer<From, Device>& buffer = buffers_[next_];
        next_ = (next_ + 1) % buffers_.size();
        buffer.fill(x);
        const Tensor<From, Device> brought = buffer.begin_use();
        Tensor<T, Device> own;
        if constexpr (std::is_same_v<T, From>) {
            own = brought.clone();
        } else {
            own = converted<T>(brought);
        }
        buffer.end_use();
        return own;
    }

private:
    std::array<StagingBuffer<From, Device>, 2> buffers_;
    std::size_t next_ = 0;
};

}  // namespace cuda

SD_NAMESPACE_END
