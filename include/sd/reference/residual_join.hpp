// The residual join, sample after sample, and the moves of samples around it.
#pragma once

#include "sd/core/join.hpp"
#include "sd/core/pending.hpp"
#include "sd/reference/batch_norm.hpp"

SD_NAMESPACE_BEGIN

namespace reference {

/// y_n = act(S_n + branch_scale F_{branch_sample[n]}), or act(S_n) where branch_sample[n] is -1: a selection, not a
/// product: nothing of F is read for a dropped sample, so F may hold NaN there. act is ReLU or nothing.
/// The branch may have fewer samples than the shortcut. If `output` is given it receives what the backward pass takes of
/// y. Throws std::invalid_argument if shapes or indices do not fit.
template <class T>
[[nodiscard]] Tensor<T> residual_join_forward(const Pending<T>& shortcut, const Pending<T>& branch,
                                              BranchSamples branch_sample, const accumulate_t<T>& branch_scale,
                                              bool relu, join_output_t<T>* output = nullptr) {
    detail::expect_joinable("residual_join_forward", "the branch", branch.shape(), shortcut.shape(), branch_sample);
    const Index samples = shortcut.shape()[0];
    Tensor<T> y(shortcut.shape());
    const Index slab = samples == 0 ? 0 : y.size() / samples;
    for (Index n = 0; n < samples; ++n) {
        const Index sample = detail::branch_sample_of(branch_sample, n);
        for (Index i = 0; i < slab; ++i) {
            T value = shortcut.value(n * slab + i);
            if (sample >= 0) {
                value = T(value + branch_scale * branch.value(sample * slab + i));
            }
            y.data()[n * slab + i] = relu && value < T(0) ? T(0) : value;
        }
    }
    if (output != nullptr) *output = y;
    return y;
}

/// With g = dy where no ReLU was applied or y > 0, else 0:
///
///     dshortcut = g,    dbranch_{branch_sample[n]} = branch_scale g_n
///
/// and zeros for a sample of the branch that joined none.
///
/// If the branch ends in a batch norm, `before` is that one's forward pass and `sums` receives the sums of its
/// backward. No two samples may share a sample of the branch. Throws std::invalid_argument if shapes or indices do not
/// fit.
template <class T>
[[nodiscard]] ResidualJoinGradient<T> residual_join_backward(const Tensor<T>& dy, const Tensor<T>& y,
                                                             BranchSamples branch_sample, Index branch_samples,
                                                             const accumulate_t<T>& branch_scale, bool relu,
                                                             const BatchNormPass<T>* before = nullptr,
                                                             BatchNormSums<accumulate_t<T>>* sums = nullptr) {
    detail::expect_join_gradient(dy.shape(), y.shape(), branch_sample, branch_samples, before, sums);
    const Index samples = y.extent(0);
    ResidualJoinGradient<T> gradient{Tensor<T>(y.shape()), Tensor<T>(with_samples(y.shape(), branch_samples))};
    const Index slab = samples == 0 ? 0 : y.size() / samples;
    for (Index n = 0; n < samples; ++n) {
        const Index sample = detail::branch_sample_of(branch_sample, n);
        for (Index i = 0; i < slab; ++i) {
            const T g = !relu || y.data()[n * slab + i] > T(0) ? dy.data()[n * slab + i] : T(0);
            gradient.dshortcut.data()[n * slab + i] = g;
            if (sample >= 0) gradient.dbranch.data()[sample * slab + i] = T(branch_scale * g);
        }
    }
    if (sums != nullptr) *sums = reference::batch_norm_sums(gradient.dbranch, *before);
    return gradient;
}

/// The named samples of x, in the given order. Throws std::invalid_argument for an index outside x.
template <class T>
[[nodiscard]] Tensor<T> gather_samples(const Tensor<T>& x, std::span<const Index> samples) {
    detail::expect_gathered(samples, x.extent(0));
    Tensor<T> y(with_samples(x.shape(), static_cast<Index>(samples.size())));
    const Index slab = x.extent(0) == 0 ? 0 : x.size() / x.extent(0);
    for (Index n = 0; n < y.extent(0); ++n) {
        const Index sample = samples[static_cast<std::size_t>(n)];
        for (Index i = 0; i < slab; ++i) y.data()[n * slab + i] = x.data()[sample * slab + i];
    }
    return y;
}

/// y_n = a_n + b_{b_sample[n]}, or a_n where b_sample[n] is -1.
/// Throws std::invalid_argument if shapes or indices do not fit.
template <class T>
[[nodiscard]] Tensor<T> add_selected(const Tensor<T>& a, const Tensor<T>& b, BranchSamples b_sample) {
    detail::expect_joinable("add_selected", "b", b.shape(), a.shape(), b_sample);
    const Index samples = a.extent(0);
    Tensor<T> y = a.clone();
    const Index slab = samples == 0 ? 0 : a.size() / samples;
    for (Index n = 0; n < samples; ++n) {
        const Index sample = detail::branch_sample_of(b_sample, n);
        if (sample < 0) continue;
        for (Index i = 0; i < slab; ++i) {
            y.data()[n * slab + i] = T(y.data()[n * slab + i] + b.data()[sample * slab + i]);
        }
    }
    return y;
}

}  // namespace reference

SD_NAMESPACE_END
