// SGD on a device: all tensors of a step in one launch, over a table.
#pragma once

#include "sd/device/kernel.hpp"
#include "sd/optim/sgd.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// A row of the table.
template <class T>
struct SgdRow {
    T* value;
    T* velocity;  ///< nullptr without momentum
    const T* grad;
    Index size;
    Index first_block;  ///< the first block that works on this tensor
    bool first_step;
};

/// Updates `block_elements` elements a block; a block finds its tensor by bisection.
template <class T>
struct SgdKernel {
    static constexpr Index block_elements = 4 * block_threads;
    const SgdRow<T>* table;
    Index rows;
    SgdFactors<T> first, later;  ///< of a tensor's first step, and of later ones

    SD_HOST_DEVICE void operator()(Thread thread) const {
        Index low = 0, high = rows;  // the last row that begins at this block or before is in [low, high)
        while (high - low > 1) {
            const Index middle = low + (high - low) / 2;
            (table[middle].first_block <= thread.block ? low : high) = middle;
        }
        const SgdRow<T> row = table[low];
        const SgdFactors<T>& factors = row.first_step ? first : later;
        const Index begin = (thread.block - row.first_block) * block_elements;
        for (Index i = begin + thread.index; i < begin + block_elements && i < row.size; i += block_threads) {
            factors.update(i, row.value, row.velocity, row.grad);
        }
    }
};

}  // namespace cuda

/// Updates the tensors, see Sgd, in one launch.
template <class T, cuda::Accelerator Device>
void sgd_update(std::span<SgdTensor<T, Device>> tensors, const SgdOptions& options) {
    using Kernel = cuda::SgdKernel<T>;
    using Row = cuda::SgdRow<T>;
    PooledVector<Row> rows;
    Index blocks = 0;
    for (SgdTensor<T, Device>& tensor : tensors) {
        if (tensor.value.size() == 0) continue;
        rows.push_back({tensor.value.data(), tensor.velocity.data(), tensor.grad.data(), tensor.value.size(), blocks,
                        tensor.first});
        blocks += cuda::quotient_up(tensor.value.size(), Kernel::block_elements);
    }
    if (rows.empty()) return;
    auto table = Tensor<Row, Device>::empty({static_cast<Index>(rows.size())});
    table.write(rows.data());
    cuda::launch<Device>(
        Kernel{table.data(), table.size(), SgdFactors<T>(options, true), SgdFactors<T>(options, false)}, blocks);
}

SD_NAMESPACE_END
