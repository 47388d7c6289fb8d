// The residual join on a device, y = act(S + select(mask, scale F)), forward and backward in one pass each. Backward
// reads where y > 0 from a mask of bits that forward leaves, and y not at all: nobody keeps it for that.
#pragma once

#include "sd/device/batch_norm_backward.hpp"
#include "sd/device/relu_bits.hpp"

#include <algorithm>
#include <cstdint>

SD_NAMESPACE_BEGIN

namespace cuda {

template <class T, int width>
struct JoinForward {
    using A = accumulate_t<T>;
    SampleSweep sweep;
    Selection selection;
    PendingView<T> shortcut, branch;
    A branch_scale;
    bool relu;
    T* y;
    std::uint8_t* bits;  ///< of ReluBits, or nullptr

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const Index own_first = sweep.first(sweep.sample(thread));
        const Index sample = selection(sweep.sample(thread));
        const PendingChannels<T, width> s(shortcut, at.channel);
        const PendingChannels<T, width> f(branch, at.channel);
        BitWriter<width> writer(bits, BitPlace<width>(sweep, sweep.sample(thread), at));
        sweep.pixels.for_each_row(at, [&](Index, Index element) {
            const Pack<T, width> own = load<width>(shortcut.raw + own_first + element);
            Pack<T, width> other;
            if (sample >= 0) other = load<width>(branch.raw + sweep.first(sample) + element);
            Pack<T, width> result;
            for (int i = 0; i < width; ++i) {
                A value = s.apply(own.value[i], i);
                if (sample >= 0) value += branch_scale * f.apply(other.value[i], i);
                result.value[i] = T(relu ? activate(Activation::relu, value) : value);
            }
            store<width>(result, y + own_first + element);
            if (bits != nullptr) writer.put(positive(result));
        });
        if (bits != nullptr) writer.finish();
    }

private:
    /// Bit i says whether element i is above 0.
    [[nodiscard]] static SD_HOST_DEVICE unsigned positive(const Pack<T, width>& values) {
        unsigned result = 0;
        for (int i = 0; i < width; ++i) result |= (A(values.value[i]) > A(0) ? 1U : 0U) << i;
        return result;
    }
};

/// What both directions of the join's backward have: the gradient before the ReLU, to the shortcut and to the branch.
template <class T, int width>
struct JoinGradient {
    using A = accumulate_t<T>;
    SampleSweep sweep;
    Selection selection;
    const T* dy;
    const std::uint8_t* bits;  ///< of ReluBits; nullptr if there was no ReLU
    A branch_scale;
    T* dshortcut;  ///< nullptr if it is dy itself
    T* dbranch;    ///< nullptr if it is dshortcut itself

    /// Writes the gradients of a thread's elements and calls use(element of the branch, gradient by it) for those of a
    /// sample that joined one of the branch.
    template <class Use>
    SD_HOST_DEVICE void run(Thread thread, const SweepPlace& at, const Use& use) const {
        const Index own_first = sweep.first(sweep.sample(thread));
        const Index sample = selection(sweep.sample(thread));
        if (!at.active || (sample < 0 && dshortcut == nullptr)) return;
        BitReader<width> reader(bits, BitPlace<width>(sweep, sweep.sample(thread), at));
        sweep.pixels.for_each_row(at, [&](Index, Index element) {
            const Index own = own_first + element;
            Pack<T, width> g = load<width>(dy + own);
            if (bits != nullptr) {
                const unsigned passing = reader.get();
                for (int i = 0; i < width; ++i) {
                    if ((passing >> i & 1U) == 0) g.value[i] = T(A(0));
                }
            }
            if (dshortcut != nullptr) store<width>(g, dshortcut + own);
            if (sample < 0) return;
            for (int i = 0; i < width; ++i) g.value[i] = T(A(branch_scale * A(g.value[i])));
            const Index other = sweep.first(sample) + element;
            if (dbranch != nullptr) store<width>(g, dbranch + other);
            use(other, g);
        });
    }
};

template <class T, int width>
struct JoinBackward {
    JoinGradient<T, width> join;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        join.run(thread, join.sweep.place(thread), [](Index, const Pack<T, width>&) {});
    }
};

/// The same, and the sums of the backward of the batch norm that the branch ends in: partial (N row_blocks, 2, C).
template <class T, int width>
struct JoinBackwardWithSums {
    using A = accumulate_t<T>;
    using Sums = ChannelSums<T, width>;
    using Shared = typename Sums::Shared;
    static constexpr int phases = 2;
    JoinGradient<T, width> join;
    PendingView<T> output;  ///< of the batch norm
    const A* mean;
    A* partial;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const SweepPlace at = join.sweep.place(thread);
        if (!at.active) return;
        Sums sums(output, mean, at.channel);
        join.run(thread, at, [&](Index element, const Pack<T, width>& g) {
            const Pack<T, width> z = load<width>(output.raw + element);
            for (int i = 0; i < width; ++i) sums.add(A(g.value[i]), z.value[i], i);
        });
        sums.share(thread.index, shared);
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const Sweep& pixels = join.sweep.pixels;
        const SweepPlace at = join.sweep.place(thread);
        if (!at.active || at.row_thread != 0) return;
        const Index part = join.sweep.sample(thread) * pixels.row_blocks + at.row_block;
        Sums::merge(pixels, at, thread.index, shared, partial + part * 2 * pixels.channels);
    }
};

/// Zeros in the samples of the branch that joined none. Where the branch has all samples, the kernel is the same for
/// any selection, as a graph needs.
template <class T, Accelerator Device>
void clear_unjoined(BranchSamples branch_sample, Tensor<T, Device>& dbranch) {
    if (branch_sample.empty()) return;
    PooledVector<char> joined(static_cast<std::size_t>(dbranch.extent(0)), 0);
    for (const Index sample : branch_sample) {
        if (sample >= 0) joined[static_cast<std::size_t>(sample)] = 1;
    }
    const bool has_all_samples = static_cast<std::size_t>(dbranch.extent(0)) == branch_sample.size();
    PooledVector<Index> unjoined;
    for (Index sample = 0; sample < dbranch.extent(0); ++sample) {
        const bool is_joined = joined[static_cast<std::size_t>(sample)] != 0;
        if (!is_joined || has_all_samples) unjoined.push_back(is_joined ? -1 : sample);
    }
    const Tensor<Index, Device> list = uploaded<Device>(unjoined);
    launch_sample_sweep<Device, T, ClearSamples>(Samples(with_samples(dbranch.shape(), list.size())), list.data(),
                                                 dbranch.data());
}

}  // namespace cuda

/// A device keeps a bit an element of the join's output.
template <class T, cuda::Accelerator Device>
struct JoinOutput<T, Device> {
    using type = cuda::ReluBits<Device>;  ///< where y > 0
};

/// y_n = act(S_n + branch_scale F_{branch_sample[n]}), as on the CPU, in one pass. If `output` is given it
/// receives what the backward pass takes of y. Throws std::invalid_argument if shapes or indices do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> residual_join_forward(const Pending<T, Device>& shortcut,
                                                      const Pending<T, Device>& branch, BranchSamples branch_sample,
                                                      const accumulate_t<T>& branch_scale, bool relu,
                                                      cuda::ReluBits<Device>* output = nullptr) {
    if (shortcut.gate || branch.gate) {
        return residual_join_forward<T>(ungated(shortcut), ungated(branch), branch_sample, branch_scale, relu, output);
    }
    detail::expect_joinable("residual_join_forward", "the branch", branch.shape(), shortcut.shape(), branch_sample);
    const auto selection = cuda::uploaded<Device>(branch_sample);
    auto y = Tensor<T, Device>::empty(shortcut.shape());
    const cuda::Samples samples(shortcut.shape());
    Tensor<std::uint8_t, Device> bits;
    if (output != nullptr) {
        if (relu) bits = cuda::empty_relu_bits<T, Device>(samples);
        *output = {y.shape(), bits};
    }
    cuda::launch_sample_sweep<Device, T, cuda::JoinForward>(
        samples, cuda::Selection{selection.data()}, cuda::PendingView<T>(shortcut), cuda::PendingView<T>(branch),
        branch_scale, relu, y.data(), bits.data());
    return y;
}

/// The gradients of residual_join_forward by the values of its inputs, as on the CPU; y is what the forward pass
/// left of its output. Throws std::invalid_argument if shapes or indices do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] ResidualJoinGradient<T, Device> residual_join_backward(
    const Tensor<T, Device>& dy, const cuda::ReluBits<Device>& y, BranchSamples branch_sample, Index branch_samples,
    const accumulate_t<T>& branch_scale, bool relu, const BatchNormPass<T, Device>* before = nullptr,
    BatchNormSums<accumulate_t<T>, Device>* sums = nullptr) {
    using A = accumulate_t<T>;
    detail::expect_join_gradient(dy.shape(), y.shape, branch_sample, branch_samples, before, sums);
    if (relu != static_cast<bool>(y.bytes)) {
        refuse("residual_join_backward", "bits of a ReLU", relu ? "none" : "some",
               relu ? "those that its forward pass left" : "none");
    }
    const cuda::Samples samples(y.shape);
    const bool same = branch_sample.empty() && branch_scale == A(1);
    ResidualJoinGradient<T, Device> gradient{relu ? Tensor<T, Device>::empty(y.shape) : dy, {}};
    gradient.dbranch = same ? gradient.dshortcut : Tensor<T, Device>::empty(with_samples(y.shape, branch_samples));
    cuda::clear_unjoined(branch_sample, gradient.dbranch);

    const auto selection = cuda::uploaded<Device>(branch_sample);
    cuda::with_width<T>(samples.channels, [&](auto width) {
        // Sums are kept by block and sample, so samples are cut no further than the reduction needs.
        const Index most = std::max<Index>(1, 2 * cuda::reduction_blocks / std::max<Index>(1, samples.count));
        const cuda::SampleSweep sweep =
            before == nullptr ? cuda::SampleSweep(samples, width) : cuda::SampleSweep(samples, width, most);
        const cuda::JoinGradient<T, width()> join{sweep,
                                                  {selection.data()},
                                                  dy.data(),
                                                  y.bytes.data(),
                                                  branch_scale,
                                                  relu ? gradient.dshortcut.data() : nullptr,
                                                  same ? nullptr : gradient.dbranch.data()};
        if (before == nullptr) {
            cuda::launch<Device>(cuda::JoinBackward<T, width()>{join}, sweep.blocks());
            return;
        }
        auto partial = Tensor<A, Device>::empty({samples.count * sweep.pixels.row_blocks, 2, samples.channels});
        cuda::launch<Device>(cuda::JoinBackwardWithSums<T, width()>{join, cuda::PendingView<T>(before->y),
                                                                    before->mean.data(), partial.data()},
                             sweep.blocks());
        *sums = cuda::merged_sums<Device>(partial, before->inverse_std);
    });
    return gradient;
}

SD_NAMESPACE_END
