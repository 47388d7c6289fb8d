// Sums over all rows of a channel, from those of blocks of rows.
//
// Values are cut into blocks of rows by the problem's size alone. A thread sums its own rows, the threads of a block
// are merged in order, then the blocks are, here. No atomic operations, so the results have the same bits in every run.
#pragma once

#include "sd/device/sweep.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// Blocks of rows that a reduction is cut into at most: enough for any device, few to merge.
inline constexpr Index reduction_blocks = 512;

/// Two sums of a channel, and how many values are in them.
struct Pair {
    double first = 0, second = 0;
    Index count = 0;
};

/// Merges pairs a channel, partial (parts, 2, C), in order: 32 channels a block, eight threads a channel. The job says
/// how two pairs are merged, how many values a range of parts has, and where the result of a channel goes.
template <class A, class Job>
struct MergePairs {
    static constexpr int phases = 2;
    static constexpr int channels_of_block = 32;
    static constexpr int threads_of_channel = block_threads / channels_of_block;
    struct Shared {
        double first[block_threads], second[block_threads];
    };
    Job job;
    Index parts, channels;
    const A* partial;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const Index c = channel(thread);
        if (c >= channels) return;
        Pair all;
        for (Index part = first_part(thread.index); part < last_part(thread.index); ++part) {
            const A* own = partial + part * 2 * channels + c;
            job.merge(all,
                      {static_cast<double>(own[0]), static_cast<double>(own[channels]), job.values(part, part + 1)});
        }
        shared.first[thread.index] = all.first;
        shared.second[thread.index] = all.second;
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const Index c = channel(thread);
        if (c >= channels || thread.index >= channels_of_block) return;
        Pair all;
        for (int other = thread.index; other < block_threads; other += channels_of_block) {
            job.merge(all,
                      {shared.first[other], shared.second[other], job.values(first_part(other), last_part(other))});
        }
        job.write(c, all);
    }

private:
    [[nodiscard]] SD_HOST_DEVICE Index channel(Thread thread) const {
        return thread.block * channels_of_block + thread.index % channels_of_block;
    }
    [[nodiscard]] SD_HOST_DEVICE Index first_part(int index) const {
        const Index first = index / channels_of_block * quotient_up(parts, threads_of_channel);
        return first < parts ? first : parts;
    }
    [[nodiscard]] SD_HOST_DEVICE Index last_part(int index) const { return first_part(index + channels_of_block); }
};

/// Starts the merge of partial (parts, 2, C).
template <Accelerator Device, class A, class Job>
void launch_merge(const Job& job, const Tensor<A, Device>& partial) {
    using Kernel = MergePairs<A, Job>;
    const Index channels = partial.extent(2);
    launch<Device>(Kernel{job, partial.extent(0), channels, partial.data()},
                   quotient_up(channels, Kernel::channels_of_block));
}

}  // namespace cuda

SD_NAMESPACE_END
