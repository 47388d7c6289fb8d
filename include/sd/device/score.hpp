// Loss and accuracies on a device: three numbers of a batch, for which nobody waits.
#pragma once

#include "sd/device/cross_entropy.hpp"

#include <span>

SD_NAMESPACE_BEGIN

namespace cuda {

/// How many classes of a sample come before its label, as count_in_top has it; a sample a block.
template <class T>
struct ClassesBefore {
    using A = accumulate_t<T>;
    static constexpr int phases = 2;
    struct Shared {
        Index part[block_threads];
    };
    Index classes;
    const T* logits;
    const Index* labels;
    Index* before;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const T* row = logits + thread.block * classes;
        const Index label = labels[thread.block];
        const A own = A(row[label]);
        Index count = 0;
        for (Index c = thread.index; c < classes; c += block_threads) {
            const bool is_after = c < label ? A(row[c]) < own : A(row[c]) <= own;  // false for not a number
            if (!is_after) ++count;
        }
        shared.part[thread.index] = count;
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        if (thread.index == 0) before[thread.block] = sum_of_block(shared.part);
    }
};

/// numbers = the loss, and how many samples have no class and at most four before their label; by one block.
template <class A>
struct ScoreNumbers {
    static constexpr int phases = 2;
    struct Shared {
        Index first[block_threads], in_five[block_threads];
    };
    Index samples;
    const A* loss;
    const Index* before;
    double* numbers;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        Index first = 0, in_five = 0;
        for (Index n = thread.index; n < samples; n += block_threads) {
            if (before[n] < 1) ++first;
            if (before[n] < 5) ++in_five;
        }
        shared.first[thread.index] = first;
        shared.in_five[thread.index] = in_five;
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        if (thread.index != 0) return;
        numbers[0] = static_cast<double>(*loss);
        numbers[1] = static_cast<double>(sum_of_block(shared.first));
        numbers[2] = static_cast<double>(sum_of_block(shared.in_five));
    }
};

}  // namespace cuda

/// Mean loss, and how many samples have their label as the first and among the first five of their logits, as on the
/// CPU, left on the device. Throws std::invalid_argument for labels that do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<double, Device> score_numbers(const Tensor<T, Device>& logits, std::span<const Index> labels,
                                                   const Tensor<accumulate_t<T>, Device>& loss) {
    const cuda::LossTarget<T, Device> classes("score_numbers", logits.shape(), labels);
    auto before = Tensor<Index, Device>::empty({logits.extent(0)});
    cuda::launch<Device>(cuda::ClassesBefore<T>{logits.extent(1), logits.data(), classes.view().classes, before.data()},
                         logits.extent(0));
    auto numbers = Tensor<double, Device>::empty({3});
    cuda::launch<Device>(
        cuda::ScoreNumbers<accumulate_t<T>>{logits.extent(0), loss.data(), before.data(), numbers.data()}, 1);
    return numbers;
}

SD_NAMESPACE_END
