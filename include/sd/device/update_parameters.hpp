// An optimizer's step on a device: all tensors in one launch, over a table, whatever the formula.
#pragma once

#include "sd/core/parameter_update.hpp"
#include "sd/device/kernel.hpp"

#include <array>
#include <cstddef>
#include <span>
#include <utility>

SD_NAMESPACE_BEGIN

namespace cuda {

/// A row of the table.
template <class Update, class T>
struct UpdateRow {
    Update update;
    T* value;
    const T* grad;
    std::array<T*, Update::buffers> buffers;  ///< nullptr for one that is not in use
    Index size;
    Index first_block;  ///< the first block that works on this tensor

    SD_HOST_DEVICE void operator()(Index i) const { run(i, std::make_index_sequence<Update::buffers>()); }

private:
    template <std::size_t... k>
    SD_HOST_DEVICE void run(Index i, std::index_sequence<k...>) const {
        T w = value[i];
        T own[Update::buffers + 1] = {(buffers[k] == nullptr ? T(0) : buffers[k][i])...};
        update(w, grad[i], own[k]...);
        value[i] = w;
        ((buffers[k] == nullptr ? void() : void(buffers[k][i] = own[k])), ...);
    }
};

/// Updates `block_elements` elements a block; a block finds its tensor by bisection.
template <class Update, class T>
struct UpdateKernel {
    static constexpr Index block_elements = 4 * block_threads;
    const UpdateRow<Update, T>* table;
    Index rows;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        Index low = 0, high = rows;  // the last row that begins at this block or before is in [low, high)
        while (high - low > 1) {
            const Index middle = low + (high - low) / 2;
            (table[middle].first_block <= thread.block ? low : high) = middle;
        }
        const UpdateRow<Update, T> row = table[low];
        const Index begin = (thread.block - row.first_block) * block_elements;
        for (Index i = begin + thread.index; i < begin + block_elements && i < row.size; i += block_threads) row(i);
    }
};

}  // namespace cuda

/// Updates the tensors, see ParameterUpdate, in one launch.
template <class Update, class T, cuda::Accelerator Device>
void update_parameters(std::span<ParameterUpdate<Update, T, Device>> tensors) {
    using Kernel = cuda::UpdateKernel<Update, T>;
    using Row = cuda::UpdateRow<Update, T>;
    PooledVector<Row> rows;
    Index blocks = 0;
    for (ParameterUpdate<Update, T, Device>& tensor : tensors) {
        if (tensor.value.size() == 0) continue;
        std::array<T*, Update::buffers> buffers{};
        for (std::size_t k = 0; k < Update::buffers; ++k) buffers[k] = tensor.buffers[k].data();
        rows.push_back({tensor.update, tensor.value.data(), tensor.grad.data(), buffers, tensor.value.size(), blocks});
        blocks += cuda::quotient_up(tensor.value.size(), Kernel::block_elements);
    }
    if (rows.empty()) return;
    auto table = Tensor<Row, Device>::empty({static_cast<Index>(rows.size())});
    table.write(rows.data());
    cuda::launch<Device>(Kernel{table.data(), table.size()}, blocks);
}

SD_NAMESPACE_END
