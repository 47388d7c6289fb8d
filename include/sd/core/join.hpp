// What the residual join and its backends share, and what they refuse alike.
#pragma once

#include "sd/core/pending_gradient.hpp"
#include "sd/core/storage.hpp"
#include "sd/core/tensor.hpp"

#include <cstddef>
#include <span>

SD_NAMESPACE_BEGIN

/// What a branch F of the whole batch is joined with: y = act(S + branch_scale F), act ReLU or nothing.
template <class T, class Device = Cpu>
struct ResidualJoin {
    Pending<T, Device> shortcut;   ///< S, of the branch's shape
    accumulate_t<T> branch_scale;  ///< in evaluation the policy's, 1 - p or 1
    bool relu;                     ///< act
};

/// Gradients of the residual join by its two inputs.
template <class T, class Device = Cpu>
struct ResidualJoinGradient {
    Tensor<T, Device> dshortcut;  ///< the shape of the output
    Tensor<T, Device> dbranch;    ///< as many samples as the branch has
};

/// What the join's forward pass leaves of its output y to the backward pass, which must know where y > 0: y itself, or
/// what a device keeps in its place.
template <class T, class Device>
struct JoinOutput {
    using type = Tensor<T, Device>;  ///< y
};
/// What residual_join_backward takes of the output of residual_join_forward.
template <class T, class Device = Cpu>
using join_output_t = typename JoinOutput<T, Device>::type;

/// For each sample of a batch, the sample of the branch that joins it, or -1 for none. An empty span stands for the
/// identity: sample n joins sample n.
using BranchSamples = std::span<const Index>;

namespace detail {

/// The branch's sample for sample n.
[[nodiscard]] inline Index branch_sample_of(BranchSamples branch_sample, Index n) {
    return branch_sample.empty() ? n : branch_sample[static_cast<std::size_t>(n)];
}

/// Refuses a selection that does not have one entry per sample, or names a sample that the branch does not have.
inline void expect_branch_samples(const char* where, BranchSamples branch_sample, Index samples, Index branch_samples) {
    if (branch_sample.empty()) {
        if (samples != branch_samples) refuse(where, "samples of the branch", branch_samples, samples);
        return;
    }
    if (static_cast<Index>(branch_sample.size()) != samples) {
        refuse(where, "entries of branch_sample", branch_sample.size(), text(samples, ", one a sample"));
    }
    for (const Index sample : branch_sample) {
        if (sample < -1 || sample >= branch_samples) {
            refuse(where, "branch_sample", sample, text("-1 to ", branch_samples - 1));
        }
    }
}

/// Refuses a selection in which two samples share a sample of the branch.
inline void expect_distinct(const char* where, BranchSamples branch_sample, Index branch_samples) {
    PooledVector<char> joined(static_cast<std::size_t>(branch_samples), 0);
    for (const Index sample : branch_sample) {
        if (sample < 0) continue;
        if (joined[static_cast<std::size_t>(sample)]++ != 0) {
            refuse(where, "branch_sample", text(sample, " twice"), "each sample of the branch once at most");
        }
    }
}

/// Refuses a branch, called `what`, that cannot join `shape` sample by sample: its samples are of another shape, or the
/// selection does not fit.
inline void expect_joinable(const char* where, const char* what, const Shape& branch, const Shape& shape,
                            BranchSamples branch_sample) {
    const bool same = branch.rank() > 0 && shape.rank() > 0 && with_samples(branch, shape[0]) == shape;
    if (!same) refuse(where, text("sample shape of ", what), branch, text("samples like those of ", shape));
    expect_branch_samples(where, branch_sample, shape[0], branch[0]);
}

/// Refuses what residual_join_backward cannot take: dy of another shape than the join's output, a selection that does
/// not fit or names a sample twice, a batch norm whose output is not the branch's.
template <class Pass, class Sums>
void expect_join_gradient(const Shape& dy, const Shape& y, BranchSamples branch_sample, Index branch_samples,
                          const Pass* before, const Sums* sums) {
    constexpr const char* where = "residual_join_backward";
    expect_pass_and_sums(where, before, sums);
    expect_shape(where, "dy", dy, y);
    expect_branch_samples(where, branch_sample, y[0], branch_samples);
    expect_distinct(where, branch_sample, branch_samples);
    if (before != nullptr) expect_batch_norm_pass(where, *before, with_samples(y, branch_samples));
}

/// Refuses samples to gather that are not among `count`.
inline void expect_gathered(std::span<const Index> samples, Index count) {
    for (const Index sample : samples) {
        if (sample < 0 || sample >= count) refuse("gather_samples", "sample", sample, text("0 to ", count - 1));
    }
}

}  // namespace detail

SD_NAMESPACE_END
