// The residual join on a device, y = act(S + select(mask, scale F)), and the moves of whole samples around it.
//
// A block of threads works on one sample, so one entry of the selection decides for all of it: a dropped sample's branch
// is never read, and costs no memory traffic.
#pragma once

#include "sd/core/join.hpp"
#include "sd/cuda/batch_norm.hpp"
#include "sd/cuda/elementwise.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// The extents of a batch of samples with channels last.
struct Samples {
    Index count, pixels, channels;

    explicit Samples(const Shape& shape)
        : count(shape[0]), pixels(1), channels(shape.rank() > 1 ? shape[shape.rank() - 1] : 1) {
        for (Index i = 1; i + 1 < shape.rank(); ++i) pixels *= shape[i];
    }
    /// Elements of a sample.
    [[nodiscard]] Index slab() const { return pixels * channels; }
};

/// Refuses samples of another shape; their number is free.
inline void expect_same_samples(const char* where, const char* what, const Shape& got, const Shape& expected) {
    expect_shape(where, what, with_samples(got, expected[0]), expected);
}

/// Numbers of samples on the device; undefined for none.
template <Accelerator Device>
[[nodiscard]] Tensor<Index, Device> uploaded(std::span<const Index> numbers) {
    if (numbers.empty()) return {};
    auto tensor = Tensor<Index, Device>::empty({static_cast<Index>(numbers.size())});
    tensor.write(numbers.data());
    return tensor;
}

/// Which sample of the branch joins sample n: the entry of a selection, or n itself without one.
struct Selection {
    const Index* samples;
    [[nodiscard]] SD_HOST_DEVICE Index operator()(Index n) const { return samples == nullptr ? n : samples[n]; }
};

template <class T, int width>
struct JoinForward {
    using A = accumulate_t<T>;
    Sweep sweep;  ///< over the pixels of one sample
    Selection selection;
    PendingView<T> shortcut, branch;
    A branch_scale;
    bool relu;
    T* y;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index blocks = sweep.row_blocks * sweep.groups;
        const SweepPlace at = sweep.place(thread.block % blocks, thread.index);
        if (!at.active) return;
        const Index n = thread.block / blocks;
        const Index sample = selection(n);
        const PendingChannels<T, width> s(shortcut, at.channel);
        const PendingChannels<T, width> f(branch, at.channel);
        for (Index row = at.row; row < at.last_row; row += sweep.rows_at_once) {
            const Index element = (n * sweep.rows + row) * sweep.channels + at.channel;
            const Index branch_element = (sample * sweep.rows + row) * sweep.channels + at.channel;
            const Pack<T, width> own = load<width>(shortcut.raw + element);
            Pack<T, width> other;
            if (sample >= 0) other = load<width>(branch.raw + branch_element);
            Pack<T, width> result;
            for (int i = 0; i < width; ++i) {
                A value = s.apply(own.value[i], i);
                if (sample >= 0) value += branch_scale * f.apply(other.value[i], i);
                result.value[i] = T(activated(relu, value));
            }
            store<width>(result, y + element);
        }
    }
};

/// What both directions of the join's backward have: the gradient before the ReLU, to the shortcut and to the branch.
template <class T, int width>
struct JoinGradient {
    using A = accumulate_t<T>;
    Sweep sweep;  ///< over the pixels of one sample
    Selection selection;
    const T *dy, *y;
    A branch_scale;
    bool relu;
    T* dshortcut;  ///< nullptr if it is dy itself
    T* dbranch;    ///< nullptr if it is dshortcut itself

    /// Writes the gradients of a thread's elements of sample n, which joined `sample` of the branch or none, and calls
    /// use(element of the branch, gradient by it, channel) for those that joined.
    template <class Use>
    SD_HOST_DEVICE void run(const SweepPlace& at, Index n, Index sample, const Use& use) const {
        if (!at.active || (sample < 0 && dshortcut == nullptr)) return;
        for (Index row = at.row; row < at.last_row; row += sweep.rows_at_once) {
            const Index element = (n * sweep.rows + row) * sweep.channels + at.channel;
            const Index branch_element = (sample * sweep.rows + row) * sweep.channels + at.channel;
            Pack<T, width> g = load<width>(dy + element);
            if (relu) {
                const Pack<T, width> output = load<width>(y + element);
                for (int i = 0; i < width; ++i) {
                    if (!passes(true, A(output.value[i]))) g.value[i] = T(A(0));
                }
            }
            if (dshortcut != nullptr) store<width>(g, dshortcut + element);
            if (sample < 0) continue;
            for (int i = 0; i < width; ++i) g.value[i] = T(A(branch_scale * A(g.value[i])));
            if (dbranch != nullptr) store<width>(g, dbranch + branch_element);
            use(branch_element, g);
        }
    }
};

template <class T, int width>
struct JoinBackward {
    JoinGradient<T, width> join;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index blocks = join.sweep.row_blocks * join.sweep.groups;
        const Index n = thread.block / blocks;
        join.run(join.sweep.place(thread.block % blocks, thread.index), n, join.selection(n),
                 [](Index, const Pack<T, width>&) {});
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
        const SweepPlace at = place(thread);
        if (!at.active) return;
        Sums sums(output, mean, at.channel);
        join.run(at, sample_of(thread), join.selection(sample_of(thread)), [&](Index element, const Pack<T, width>& g) {
            const Pack<T, width> z = load<width>(output.raw + element);
            for (int i = 0; i < width; ++i) sums.add(A(g.value[i]), z.value[i], i);
        });
        sums.share(thread.index, shared);
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        const SweepPlace at = place(thread);
        if (!at.active || at.row_thread != 0) return;
        const Index part = sample_of(thread) * join.sweep.row_blocks + at.row_block;
        Sums::merge(join.sweep, at, thread.index, shared, partial + part * 2 * join.sweep.channels);
    }

private:
    [[nodiscard]] SD_HOST_DEVICE Index sample_of(Thread thread) const {
        return thread.block / (join.sweep.row_blocks * join.sweep.groups);
    }
    [[nodiscard]] SD_HOST_DEVICE SweepPlace place(Thread thread) const {
        return join.sweep.place(thread.block % (join.sweep.row_blocks * join.sweep.groups), thread.index);
    }
};

/// Sets whole samples to zero; -1 stands for none.
template <class T, int width>
struct ClearSamples {
    Sweep sweep;  ///< over the pixels of one sample
    const Index* samples;
    T* x;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index blocks = sweep.row_blocks * sweep.groups;
        const SweepPlace at = sweep.place(thread.block % blocks, thread.index);
        if (!at.active) return;
        Pack<T, width> zeros;
        for (int i = 0; i < width; ++i) zeros.value[i] = T(accumulate_t<T>(0));
        const Index n = samples[thread.block / blocks];
        if (n < 0) return;
        for (Index row = at.row; row < at.last_row; row += sweep.rows_at_once) {
            store<width>(zeros, x + (n * sweep.rows + row) * sweep.channels + at.channel);
        }
    }
};

/// y_n = x_{samples[n]}, or a_n + x_{samples[n]} if there is an a, and a_n alone where samples[n] is -1.
template <class T, int width>
struct SelectSamples {
    using A = accumulate_t<T>;
    Sweep sweep;  ///< over the pixels of one sample
    Selection selection;
    const T* x;
    const T* a;  ///< or nullptr
    T* y;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index blocks = sweep.row_blocks * sweep.groups;
        const SweepPlace at = sweep.place(thread.block % blocks, thread.index);
        if (!at.active) return;
        const Index n = thread.block / blocks;
        const Index sample = selection(n);
        for (Index row = at.row; row < at.last_row; row += sweep.rows_at_once) {
            const Index element = (n * sweep.rows + row) * sweep.channels + at.channel;
            const Index other = (sample * sweep.rows + row) * sweep.channels + at.channel;
            Pack<T, width> result;
            if (sample >= 0) result = load<width>(x + other);
            if (a != nullptr) {
                const Pack<T, width> own = load<width>(a + element);
                for (int i = 0; i < width; ++i) {
                    result.value[i] = sample < 0 ? own.value[i] : T(A(A(own.value[i]) + A(result.value[i])));
                }
            }
            store<width>(result, y + element);
        }
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
    const Samples samples(dbranch.shape());
    with_width<T>(samples.channels, [&](auto width) {
        const Sweep sweep(samples.pixels, samples.channels, width);
        launch<Device>(ClearSamples<T, width()>{sweep, list.data(), dbranch.data()}, list.size() * sweep.blocks());
    });
}

}  // namespace cuda

/// y_n = act(S_n + branch_scale F_{branch_sample[n]}), as on the processor, in one pass.
/// Throws std::invalid_argument if shapes or indices do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> residual_join_forward(const Pending<T, Device>& shortcut,
                                                      const Pending<T, Device>& branch, BranchSamples branch_sample,
                                                      const accumulate_t<T>& branch_scale, bool relu) {
    constexpr const char* where = "residual_join_forward";
    cuda::expect_same_samples(where, "the branch's samples", branch.shape(), shortcut.shape());
    expect_branch_samples(where, branch_sample, shortcut.shape()[0], branch.shape()[0]);
    const cuda::Samples samples(shortcut.shape());
    const auto selection = cuda::uploaded<Device>(branch_sample);
    auto y = Tensor<T, Device>::empty(shortcut.shape());
    cuda::with_width<T>(samples.channels, [&](auto width) {
        const cuda::Sweep sweep(samples.pixels, samples.channels, width);
        cuda::launch<Device>(cuda::JoinForward<T, width()>{sweep,
                                                           {selection.data()},
                                                           cuda::PendingView<T>(shortcut),
                                                           cuda::PendingView<T>(branch),
                                                           branch_scale,
                                                           relu,
                                                           y.data()},
                             samples.count * sweep.blocks());
    });
    return y;
}

/// The gradients of residual_join_forward by the values of its inputs, as on the processor.
template <class T, cuda::Accelerator Device>
[[nodiscard]] ResidualJoinGradient<T, Device> residual_join_backward(
    const Tensor<T, Device>& dy, const Tensor<T, Device>& y, BranchSamples branch_sample, Index branch_samples,
    const accumulate_t<T>& branch_scale, bool relu, const BatchNormPass<T, Device>* before = nullptr,
    BatchNormSums<accumulate_t<T>, Device>* sums = nullptr) {
    using A = accumulate_t<T>;
    constexpr const char* where = "residual_join_backward";
    expect_pass_and_sums(where, before, sums);
    expect_shape(where, "dy", dy.shape(), y.shape());
    expect_branch_samples(where, branch_sample, y.extent(0), branch_samples);
    expect_distinct(where, branch_sample, branch_samples);
    const cuda::Samples samples(y.shape());
    const bool same = branch_sample.empty() && branch_scale == A(1);
    ResidualJoinGradient<T, Device> gradient{relu ? Tensor<T, Device>::empty(y.shape()) : dy, {}};
    gradient.dbranch = same ? gradient.dshortcut : Tensor<T, Device>::empty(with_samples(y.shape(), branch_samples));
    if (before != nullptr) expect_batch_norm_pass(where, *before, gradient.dbranch.shape());
    cuda::clear_unjoined(branch_sample, gradient.dbranch);

    const auto selection = cuda::uploaded<Device>(branch_sample);
    cuda::with_width<T>(samples.channels, [&](auto width) {
        // Sums are kept by block and sample, so samples are cut no further than the reduction needs.
        const Index most = std::max<Index>(1, 2 * cuda::reduction_blocks / std::max<Index>(1, samples.count));
        const cuda::Sweep sweep = before == nullptr ? cuda::Sweep(samples.pixels, samples.channels, width)
                                                    : cuda::Sweep(samples.pixels, samples.channels, width, 8, most);
        const cuda::JoinGradient<T, width()> join{sweep,
                                                  {selection.data()},
                                                  dy.data(),
                                                  y.data(),
                                                  branch_scale,
                                                  relu,
                                                  relu ? gradient.dshortcut.data() : nullptr,
                                                  same ? nullptr : gradient.dbranch.data()};
        const Index blocks = samples.count * sweep.blocks();
        if (before == nullptr) {
            cuda::launch<Device>(cuda::JoinBackward<T, width()>{join}, blocks);
            return;
        }
        auto partial = Tensor<A, Device>::empty({samples.count * sweep.row_blocks, 2, samples.channels});
        cuda::launch<Device>(cuda::JoinBackwardWithSums<T, width()>{join, cuda::PendingView<T>(before->y),
                                                                    before->mean.data(), partial.data()},
                             blocks);
        *sums = cuda::merged_sums<Device>(partial, before->inverse_std);
    });
    return gradient;
}

/// The named samples of x, in the given order. Throws std::invalid_argument for an index outside x.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> gather_samples(const Tensor<T, Device>& x, std::span<const Index> samples) {
    for (const Index sample : samples) {
        if (sample >= 0 && sample < x.extent(0)) continue;
        refuse("gather_samples", "sample", sample, text("0 to ", x.extent(0) - 1));
    }
    auto y = Tensor<T, Device>::empty(with_samples(x.shape(), static_cast<Index>(samples.size())));
    const auto selection = cuda::uploaded<Device>(samples);
    const cuda::Samples extents(y.shape());
    cuda::with_width<T>(extents.channels, [&](auto width) {
        const cuda::Sweep sweep(extents.pixels, extents.channels, width);
        cuda::launch<Device>(cuda::SelectSamples<T, width()>{sweep, {selection.data()}, x.data(), nullptr, y.data()},
                             extents.count * sweep.blocks());
    });
    return y;
}

/// y_n = a_n + b_{b_sample[n]}, or a_n where b_sample[n] is -1.
/// Throws std::invalid_argument if shapes or indices do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> add_selected(const Tensor<T, Device>& a, const Tensor<T, Device>& b,
                                             BranchSamples b_sample) {
    cuda::expect_same_samples("add_selected", "b's samples", b.shape(), a.shape());
    expect_branch_samples("add_selected", b_sample, a.extent(0), b.extent(0));
    auto y = Tensor<T, Device>::empty(a.shape());
    const auto selection = cuda::uploaded<Device>(b_sample);
    const cuda::Samples extents(a.shape());
    cuda::with_width<T>(extents.channels, [&](auto width) {
        const cuda::Sweep sweep(extents.pixels, extents.channels, width);
        cuda::launch<Device>(cuda::SelectSamples<T, width()>{sweep, {selection.data()}, b.data(), a.data(), y.data()},
                             extents.count * sweep.blocks());
    });
    return y;
}

SD_NAMESPACE_END
