// The residual join, y = act(S + select(mask, scale F)), and the moves of whole samples around it.
//
// A batch is N slabs of H * W * C elements. Work is cut into (slab, range of pixels); a dropped sample's branch is
// never read, so what it holds, NaN included, cannot reach the output.
#pragma once

#include "sd/core/join.hpp"
#include "sd/core/parallel.hpp"
#include "sd/core/pending.hpp"
#include "sd/cpu/batch_norm.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/cpu/slabs.hpp"
#include "sd/cpu/target.hpp"
#include "sd/cpu/vector_activation.hpp"
#include "sd/reference/residual_join.hpp"

#include <optional>

SD_NAMESPACE_BEGIN

using reference::add_selected;
using reference::gather_samples;
using reference::residual_join_backward;
using reference::residual_join_forward;

namespace cpu {

/// The values of a pending tensor whose rows are pixels, a vector of channels at a time.
template <class T>
class Rows {
    using A = accumulate_t<T>;

public:
    explicit Rows(const Pending<T>& x)
        : raw_(x.raw.data()), scale_(x.scale.data()), shift_(x.shift.data()), activation_(x.activation) {}

    /// The values of `count` channels from c on; `any` if the activation may be one without a path of its own.
    template <bool any>
    [[nodiscard, gnu::always_inline]] Vector<T> at(Index row, Index c, Index count) const {
        Vector<T> value = load_some(raw_ + row + c, count);
        if (scale_ != nullptr) value = load_some(scale_ + c, count) * value + load_some(shift_ + c, count);
        if constexpr (any) {
            if (!has_own_path(activation_)) return activated<A>(activation_, value);
        }
        return activation_ == Activation::relu ? rectified<T>(value) : value;
    }

private:
    const T* raw_;
    const A* scale_;
    const A* shift_;
    Activation activation_;
};

}  // namespace cpu

/// y_n = act(S_n + branch_scale F_{branch_sample[n]}), or act(S_n) where branch_sample[n] is -1; act is ReLU or
/// nothing. Batch norm's scale and shift of the branch and of a projected shortcut are applied in the same pass. The
/// branch may have fewer samples than the shortcut. If `output` is given it receives what the backward pass takes of y.
/// Throws std::invalid_argument if shapes or indices do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> residual_join_forward(const Pending<T>& shortcut, const Pending<T>& branch,
                                              BranchSamples branch_sample, const accumulate_t<T>& branch_scale,
                                              bool relu, join_output_t<T>* output = nullptr) {
    if (shortcut.gate || branch.gate) {
        return residual_join_forward<T>(ungated(shortcut), ungated(branch), branch_sample, branch_scale, relu, output);
    }
    detail::expect_joinable("residual_join_forward", "the branch", branch.shape(), shortcut.shape(), branch_sample);
    const cpu::Slabs slabs(shortcut.shape());
    const Index channels = slabs.channels;

    // scale (a z + b) = (scale a) z + scale b: the pass then knows one factor and one term a channel
    using A = accumulate_t<T>;
    Tensor<A> factor = Tensor<A>::full(Shape{channels}, branch_scale);
    Tensor<A> term(Shape{channels});
    if (branch.scale) {
        for (Index c = 0; c < channels; ++c) {
            factor.data()[c] *= branch.scale.data()[c];
            term.data()[c] = branch_scale * branch.shift.data()[c];
        }
    }
    // An activation at the end of the branch does not commute with its scale.
    const bool any_activation = branch.activation != Activation::none || !cpu::has_own_path(shortcut.activation);
    const cpu::Rows<T> s_values(shortcut);
    const cpu::Rows<T> f_values(branch);

    Tensor<T> y = Tensor<T>::empty(shortcut.shape());
    const cpu::Target<T> target(y);
    const auto join = [&]<bool joins, bool any, bool act>(Index n, Index sample, Index first, Index last,
                                                          cpu::Constants<joins, any, act>) {
        for (Index pixel = first; pixel < last; ++pixel) {
            const Index row = (n * slabs.pixels + pixel) * channels;
            const Index branch_row = (sample * slabs.pixels + pixel) * channels;
            cpu::for_each_vector<T>(channels, [&](Index c, auto count) {
                cpu::Vector<T> value = s_values.template at<any>(row, c, count);
                if constexpr (joins && any) {
                    value += branch_scale * f_values.template at<any>(branch_row, c, count);
                } else if constexpr (joins) {
                    const cpu::Vector<T> z = cpu::load_some(branch.raw.data() + branch_row + c, count);
                    value += cpu::load_some(factor.data() + c, count) * z + cpu::load_some(term.data() + c, count);
                }
                target.put(act ? cpu::rectified<T>(value) : value, row + c, count);
            });
        }
    };
    slabs.for_each_piece([&](Index n, Index first, Index last) {
        const Index sample = detail::branch_sample_of(branch_sample, n);
        cpu::with_constants([&](auto constants) { join(n, sample, first, last, constants); }, sample >= 0,
                            any_activation, relu);
    });
    if (output != nullptr) *output = y;
    return y;
}

namespace cpu {

/// Zeros in the samples of the branch that joined none.
template <class T>
void clear_unjoined(BranchSamples branch_sample, const Slabs& slabs, Tensor<T>& dbranch) {
    PooledVector<char> joined(static_cast<std::size_t>(dbranch.extent(0)), branch_sample.empty() ? 1 : 0);
    for (const Index sample : branch_sample) {
        if (sample >= 0) joined[static_cast<std::size_t>(sample)] = 1;
    }
    parallel_for(dbranch.extent(0), [&](Index sample) {
        if (joined[static_cast<std::size_t>(sample)]) return;
        T* slab = dbranch.data() + sample * slabs.size();
        std::fill(slab, slab + slabs.size(), T(0));
    });
}

}  // namespace cpu

/// The gradients of residual_join_forward by the values of its inputs:
///
///     g = dy where no ReLU was applied or y > 0, else 0
///     dshortcut = g,    dbranch_{branch_sample[n]} = branch_scale g_n
///
/// A sample of the branch that joined nothing gets zeros. The branch has branch_samples samples. If it ends in a batch
/// norm, `before` is that one's forward pass and `sums` receives the sums of its backward, gathered in the same pass
/// over memory; a sample that joined nothing has no part in them and is not read.
/// Where both gradients are equal they are one tensor.
template <cpu::Vectorized T>
[[nodiscard]] ResidualJoinGradient<T> residual_join_backward(const Tensor<T>& dy, const Tensor<T>& y,
                                                             BranchSamples branch_sample, Index branch_samples,
                                                             const accumulate_t<T>& branch_scale, bool relu,
                                                             const BatchNormPass<T>* before = nullptr,
                                                             BatchNormSums<accumulate_t<T>>* sums = nullptr) {
    using A = accumulate_t<T>;
    detail::expect_join_gradient(dy.shape(), y.shape(), branch_sample, branch_samples, before, sums);
    const cpu::Slabs slabs(y.shape());
    const Index channels = slabs.channels;
    const bool same = branch_sample.empty() && branch_scale == A(1);
    ResidualJoinGradient<T> gradient{relu ? Tensor<T>::empty(y.shape()) : dy, {}};
    gradient.dbranch = same ? gradient.dshortcut : Tensor<T>::empty(with_samples(y.shape(), branch_samples));
    cpu::clear_unjoined(branch_sample, slabs, gradient.dbranch);

    Tensor<A> partial = Tensor<A>(Shape{before == nullptr ? 0 : slabs.pieces(), 2, channels});
    const T* z = before == nullptr ? nullptr : before->y.raw.data();
    const cpu::Target<T> dshortcut(gradient.dshortcut);
    const cpu::Target<T> dbranch(gradient.dbranch);
    const auto run = [&]<bool joins, bool one_tensor, bool act>(Index n, Index sample, Index first, Index last,
                                                                cpu::RowSums<T>* row_sums,
                                                                cpu::Constants<joins, one_tensor, act>) {
        for (Index pixel = first; pixel < last; ++pixel) {
            const Index row = (n * slabs.pixels + pixel) * channels;
            const Index branch_row = (sample * slabs.pixels + pixel) * channels;
            cpu::for_each_vector<T>(channels, [&](Index c, auto count) {
                cpu::Vector<T> g = cpu::load_some(dy.data() + row + c, count);
                if constexpr (act) {
                    g = cpu::load_some(y.data() + row + c, count) > cpu::Vector<T>{} ? g : cpu::Vector<T>{};
                    dshortcut.put(g, row + c, count);
                }
                if constexpr (joins) {
                    const cpu::Vector<T> scaled = branch_scale * g;
                    if constexpr (!one_tensor) dbranch.put(scaled, branch_row + c, count);
                    if (row_sums != nullptr) {
                        row_sums->add(cpu::as_stored<T>(scaled), cpu::load_some(z + branch_row + c, count), c, count);
                    }
                }
            });
        }
    };
    slabs.for_each_piece([&](Index n, Index first, Index last) {
        const Index sample = detail::branch_sample_of(branch_sample, n);
        const bool joins = sample >= 0;
        std::optional<cpu::RowSums<T>> row_sums;
        if (before != nullptr && joins) {
            A* part = partial.data() + slabs.piece(n, first) * 2 * channels;
            row_sums.emplace(before->y, before->mean, part, part + channels);
        }
        cpu::with_constants(
            [&](auto constants) { run(n, sample, first, last, row_sums ? &*row_sums : nullptr, constants); }, joins,
            same, relu);
    });
    if (sums != nullptr) *sums = cpu::merge_row_sums(partial, before->inverse_std);
    return gradient;
}

/// The named samples of x, in the given order. Throws std::invalid_argument for an index outside x.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> gather_samples(const Tensor<T>& x, std::span<const Index> samples) {
    detail::expect_gathered(samples, x.extent(0));
    Tensor<T> y = Tensor<T>::empty(with_samples(x.shape(), static_cast<Index>(samples.size())));
    const Index slab = cpu::Slabs(x.shape()).size();
    parallel_for(y.extent(0), [&](Index n) {
        const T* source = x.data() + samples[static_cast<std::size_t>(n)] * slab;
        std::copy(source, source + slab, y.data() + n * slab);
    });
    return y;
}

/// y_n = a_n + b_{b_sample[n]}, or a_n where b_sample[n] is -1: adds the gradient by a branch's input to the
/// shortcut's.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> add_selected(const Tensor<T>& a, const Tensor<T>& b, BranchSamples b_sample) {
    detail::expect_joinable("add_selected", "b", b.shape(), a.shape(), b_sample);
    Tensor<T> y = Tensor<T>::empty(a.shape());
    const cpu::Target<T> target(y);
    const cpu::Slabs slabs(a.shape());
    slabs.for_each_piece([&](Index n, Index first, Index last) {
        const Index sample = detail::branch_sample_of(b_sample, n);
        const Index from = n * slabs.size() + first * slabs.channels;
        const Index count = (last - first) * slabs.channels;
        const Index b_from = sample * slabs.size() + first * slabs.channels;
        cpu::for_each_vector<T>(count, [&](Index i, auto some) {
            cpu::Vector<T> value = cpu::load_some(a.data() + from + i, some);
            if (sample >= 0) value += cpu::load_some(b.data() + b_from + i, some);
            target.put(value, from + i, some);
        });
    });
    return y;
}

SD_NAMESPACE_END
