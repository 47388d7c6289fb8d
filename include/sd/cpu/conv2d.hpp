// Two-dimensional convolution, forward and by input, as one product over slabs (product.hpp), or over Winograd's tiles
// where they suit (winograd_product.hpp), or channel by channel (depthwise.hpp); by weight in a file of its own.
#pragma once

#include "sd/cpu/batch_norm.hpp"
#include "sd/cpu/conv2d_by_weight.hpp"
#include "sd/cpu/depthwise.hpp"
#include "sd/cpu/epilogue.hpp"
#include "sd/cpu/forward_side.hpp"
#include "sd/cpu/kept_panels.hpp"
#include "sd/cpu/pair_product.hpp"
#include "sd/cpu/product.hpp"
#include "sd/cpu/winograd_product.hpp"
#include "sd/reference/conv2d.hpp"

#include <cstddef>
#include <span>

SD_NAMESPACE_BEGIN

using reference::conv2d_batch_norm_forward;
using reference::conv2d_by_input;
using reference::conv2d_forward;
using reference::conv2d_join_by_input;
using reference::conv2d_join_forward;

namespace cpu {

/// A merged group's part of a product: it reads channels of the source from `first_depth` on and writes channels of the
/// target from `first_column` on.
template <class T>
struct GroupPart {
    Index first_depth, first_column;
    WeightMap weights;
    Epilogue<T>* epilogue;
};

/// Writes the points of a lattice by whichever product suits.
template <class T>
void run_groups(const SlabSource<T>& source, const Lattice& lattice, const PanelSource<accumulate_t<T>>& panels,
                const Shape& target, const PooledVector<GroupPart<T>>& groups) {
    const auto run = [&]<class SomeProduct>(PooledVector<SomeProduct> products) {
        products.reserve(groups.size());
        for (const GroupPart<T>& group : groups) {
            const Index number = static_cast<Index>(products.size());
            products.emplace_back(source, lattice, group.first_depth, group.first_column,
                                  panels.of_group(number, group.first_column), group.weights, target, *group.epilogue);
        }
        run_products(products);
    };
    const bool winograd = suits_winograd(lattice, groups.front().weights, least_winograd_channels);
    if constexpr (std::is_same_v<T, bfloat16>) {
        if (multiplies_pairs(winograd)) return run(PooledVector<PairProduct<T>>());
    }
    if (winograd) {
        run(PooledVector<WinogradProduct<T>>());
    } else {
        run(PooledVector<Product<T>>());
    }
}

/// Runs write(addresses of the epilogues), with an epilogue for each merged group, made by epilogue_of(group); and then
/// finish(epilogue, group), which takes what it gathered.
template <class T, class Write, class EpilogueOf, class Finish>
void with_epilogues(Index groups, const Write& write, const EpilogueOf& epilogue_of, const Finish& finish) {
    PooledVector<decltype(epilogue_of(groups))> epilogues;
    PooledVector<Epilogue<T>*> addresses;
    epilogues.reserve(static_cast<std::size_t>(groups));  // so they stay where they are made
    for (Index group = 0; group < groups; ++group) {
        addresses.push_back(&epilogues.emplace_back(epilogue_of(group)));
    }
    write(addresses);
    for (Index group = 0; group < groups; ++group) finish(epilogues[static_cast<std::size_t>(group)], group);
}

/// Writes y, with each output channel times its factor if factors are given.
template <class T>
void write_forward(const ForwardSide<T>& side, const PanelSource<accumulate_t<T>>& panels,
                   const PooledVector<Epilogue<T>*>& epilogues) {
    PooledVector<GroupPart<T>> groups;
    for (Epilogue<T>* epilogue : epilogues) {
        const Index group = static_cast<Index>(groups.size());
        groups.push_back({side.plan.first_in(group), side.plan.first_out(group), side.weights(group), epilogue});
    }
    const PendingSource<T> source(side.x, side.x_view);
    run_groups<T>(SlabSource<T>(source), side.lattice, panels, side.y_shape, groups);
}

/// Runs a forward pass, with each output channel times its factor if factors are given. epilogue_of(target, first channel,
/// channels) makes an epilogue, finish(epilogue, first channel) takes what it gathered.
template <class T, class EpilogueOf, class Finish>
[[nodiscard]] Tensor<T> forward(const Pending<T>& x, const Tensor<accumulate_t<T>>& weight,
                                const Conv2dGeometry& geometry, const accumulate_t<T>* factors, KeptWeights* kept,
                                const EpilogueOf& epilogue_of, const Finish& finish) {
    Tensor<T> y = Tensor<T>::empty(geometry.output_shape());
    if (y.size() == 0) return y;
    if (is_depthwise(geometry.weight_shape(), geometry.options)) {
        const PendingSource<T> source(x);
        const Lattice lattice = read_lattice(geometry);
        auto epilogue = epilogue_of(y, Index{0}, geometry.out_channels);
        DepthwiseProduct<T>(SlabSource<T>(source), std::span(&lattice, 1), weight, factors, y.shape()).run(epilogue);
        finish(epilogue, Index{0});
        return y;
    }
    const ForwardSide<T> side(x, geometry);
    const GroupPlan& plan = side.plan;
    const PanelSource<accumulate_t<T>> panels(kept, weight, factors, geometry.out_channels);
    with_epilogues<T>(
        plan.count, [&](const auto& epilogues) { write_forward(side, panels, epilogues); },
        [&](Index group) { return epilogue_of(y, plan.first_out(group), plan.out()); },
        [&](auto& epilogue, Index group) { finish(epilogue, plan.first_out(group)); });
    return y;
}

/// Writes the points of a lattice of an input's gradient, of shape x_shape.
template <class T>
void write_by_input(const PendingGradient<T>& dy, const Tensor<accumulate_t<T>>& weight, const Conv2dGeometry& geometry,
                    const GroupPlan& plan, Lattice lattice, const Shape& x_shape,
                    const PooledVector<Epilogue<T>*>& epilogues) {
    PendingGradient<T> gradient = dy;
    Shape target = x_shape;
    if (is_pointwise(geometry)) {
        gradient = reshaped(dy, as_one_row(dy.shape()));
        target = as_one_row(x_shape);
        lattice.height = 1;
        lattice.width = target[2];
    }
    PooledVector<GroupPart<T>> groups;
    for (Epilogue<T>* epilogue : epilogues) {
        const Index group = static_cast<Index>(groups.size());
        groups.push_back({plan.first_out(group),
                          plan.first_in(group),
                          {plan.out_indices(group), plan.in_indices(), tap_positions(lattice), plan.positions},
                          epilogue});
    }
    const GradientSource<T> source(gradient);
    run_groups<T>(SlabSource<T>(source), lattice, PanelSource<accumulate_t<T>>(nullptr, weight, nullptr, 0), target,
                  groups);
}

/// Runs a pass by input. epilogue_of(target, first channel, channels) makes an epilogue, finish(epilogue, first channel,
/// begin) takes what it gathered of channels from `begin` on; another one gathered those before.
template <class T, class EpilogueOf, class Finish>
[[nodiscard]] Tensor<T> by_input(const PendingGradient<T>& dy, const Tensor<accumulate_t<T>>& weight,
                                 const Conv2dGeometry& geometry, const EpilogueOf& epilogue_of, const Finish& finish) {
    expect_shape("conv2d_by_input", "dy", dy.shape(), geometry.output_shape());
    const Shape x_shape = geometry.input_shape();
    Tensor<T> dx = Tensor<T>::empty(x_shape);
    if (dx.size() == 0) return dx;
    const PooledVector<Lattice> lattices = by_input_lattices(geometry);
    if (is_depthwise(geometry.weight_shape(), geometry.options)) {
        const GradientSource<T> source(dy);
        auto epilogue = epilogue_of(dx, Index{0}, geometry.in_channels);
        DepthwiseProduct<T>(SlabSource<T>(source), lattices, weight, nullptr, x_shape).run(epilogue);
        finish(epilogue, Index{0}, Index{0});
        return dx;
    }
    const GroupPlan plan(geometry, group_lanes<T>());
    for (const Lattice& lattice : lattices) {
        with_epilogues<T>(
            plan.count,
            [&](const auto& epilogues) { write_by_input(dy, weight, geometry, plan, lattice, x_shape, epilogues); },
            [&](Index group) { return epilogue_of(dx, plan.first_in(group), plan.in()); },
            [&](auto& epilogue, Index group) { finish(epilogue, plan.first_in(group), group * plan.in()); });
    }
    return dx;
}

}  // namespace cpu

/// y = x * weight, x (N, H, W, C) pending, weight (O, C / groups, KH, KW), y (N, OH, OW, O); extents as in
/// Conv2dGeometry. If `moments` is given it receives the statistics of every channel of y, gathered as y is written,
/// for the batch norm that follows.
/// Throws std::invalid_argument if settings or shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> conv2d_forward(const Pending<T>& x, const Tensor<accumulate_t<T>>& weight,
                                       const Conv2dOptions& options, Moments<accumulate_t<T>>* moments = nullptr) {
    const Conv2dGeometry geometry(x.shape(), weight.shape(), options);
    if (moments == nullptr) {
        return cpu::forward<T>(
            x, weight, geometry, nullptr, nullptr,
            [](Tensor<T>& y, Index, Index count) { return cpu::Store<T>(y, count); }, [](const auto&, Index) {});
    }
    using A = accumulate_t<T>;
    const Shape channels{geometry.out_channels};
    *moments = {geometry.output_shape().size() / geometry.out_channels, Tensor<A>(channels), Tensor<A>(channels)};
    return cpu::forward<T>(
        x, weight, geometry, nullptr, nullptr,
        [](Tensor<T>& y, Index, Index count) { return cpu::StoreWithMoments<T>(y, count); },
        [&](auto& epilogue, Index first) { epilogue.merge(first, *moments); });
}

/// A convolution with the batch norm of evaluation, whose scale and shift (O) are constants, folded into it:
///
///     y = act(scale (x * weight) + shift) = act(x * (scale weight) + shift)
///
/// What is made of weight and scale is kept in `kept`, if that is given, for the next call. Throws std::invalid_argument if
/// settings or shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> conv2d_batch_norm_forward(const Pending<T>& x, const Tensor<accumulate_t<T>>& weight,
                                                  const Conv2dOptions& options, const Tensor<accumulate_t<T>>& scale,
                                                  const Tensor<accumulate_t<T>>& shift, Activation activation,
                                                  KeptWeights* kept = nullptr) {
    const Conv2dGeometry geometry(x.shape(), weight.shape(), options);
    expect_shape("conv2d_batch_norm_forward", "scale", scale.shape(), {geometry.out_channels});
    expect_shape("conv2d_batch_norm_forward", "shift", shift.shape(), {geometry.out_channels});
    return cpu::forward<T>(
        x, weight, geometry, scale.data(), kept,
        [&](Tensor<T>& y, Index first, Index count) {
            return cpu::StoreActivated<T>(y, shift.data() + first, count, activation);
        },
        [](const auto&, Index) {});
}

/// The convolution at the end of a residual branch, with the batch norm of evaluation, and the residual join: with c the
/// scale of the branch,
///
///     y = act(S + c (scale (x * weight) + shift)) = act(x * (c scale weight) + c shift + S)
///
/// written once; `kept` as for conv2d_batch_norm_forward. Throws std::invalid_argument if settings or shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> conv2d_join_forward(const Pending<T>& x, const Tensor<accumulate_t<T>>& weight,
                                            const Conv2dOptions& options, const Tensor<accumulate_t<T>>& scale,
                                            const Tensor<accumulate_t<T>>& shift, const ResidualJoin<T>& join,
                                            KeptWeights* kept = nullptr) {
    using A = accumulate_t<T>;
    const Conv2dGeometry geometry(x.shape(), weight.shape(), options);
    expect_shape("conv2d_join_forward", "scale", scale.shape(), {geometry.out_channels});
    expect_shape("conv2d_join_forward", "shift", shift.shape(), {geometry.out_channels});
    detail::expect_joinable("conv2d_join_forward", "the branch", geometry.output_shape(), join.shortcut.shape(), {});
    const auto scaled = [&](const Tensor<A>& values) {
        Tensor<A> result = values.clone();
        for (A& value : result) value *= join.branch_scale;
        return result;
    };
    const Tensor<A> factors = scaled(scale);
    const Tensor<A> terms = scaled(shift);
    const Tensor<T> shortcut = materialize(join.shortcut);  // plain in evaluation, but for a norm behind no convolution
    return cpu::forward<T>(
        x, weight, geometry, factors.data(), kept,
        [&](Tensor<T>& y, Index first, Index count) {
            return cpu::StoreJoined<T>(y, terms.data() + first, count, shortcut, join.relu);
        },
        [](const auto&, Index) {});
}

/// The gradient by the value of x (with its pending scale, shift and activation applied), of shape x_shape:
///
///     dx(n, h, w, i) = sum over o, kh, kw of weight(o, i, kh, kw) dy(n, oh, ow, o) where x(n, h, w, i) met it forward
///
/// If x came from a batch norm, `before` is its forward pass and `sums` receives the sums of its backward, gathered as
/// dx is written. What is written then is the gradient before the activation of `before`, which the sums are of. Throws
/// std::invalid_argument if settings or shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> conv2d_by_input(const PendingGradient<T>& dy, const Tensor<accumulate_t<T>>& weight,
                                        const Conv2dOptions& options, const Shape& x_shape,
                                        const BatchNormPass<T>* before = nullptr,
                                        BatchNormSums<accumulate_t<T>>* sums = nullptr) {
    using A = accumulate_t<T>;
    const Conv2dGeometry geometry(x_shape, weight.shape(), options);
    detail::expect_pass_and_sums("conv2d_by_input", before, sums);
    if (before == nullptr) {
        return cpu::by_input<T>(
            dy, weight, geometry, [](Tensor<T>& dx, Index, Index count) { return cpu::Store<T>(dx, count); },
            [](const auto&, Index, Index) {});
    }
    detail::expect_batch_norm_pass("conv2d_by_input", *before, x_shape);
    const Shape channels{geometry.in_channels};
    *sums = {Tensor<A>(channels), Tensor<A>(channels), true};
    return cpu::by_input<T>(
        dy, weight, geometry,
        [&](Tensor<T>& dx, Index first, Index count) { return cpu::StoreWithSums<T>(dx, *before, first, count); },
        [&](auto& epilogue, Index first, Index begin) { epilogue.merge(first, begin, *sums); });
}

/// The gradient by the input x of a residual block whose branch begins with this convolution, of a gradient dy by its
/// output and dshortcut, the shortcut's gradient by x:
///
///     dx = dshortcut + conv2d_by_input(dy, weight, options, shape of dshortcut)
///
/// written once. Throws std::invalid_argument if settings or shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> conv2d_join_by_input(const PendingGradient<T>& dy, const Tensor<accumulate_t<T>>& weight,
                                             const Conv2dOptions& options, const Tensor<T>& dshortcut) {
    const Conv2dGeometry geometry(dshortcut.shape(), weight.shape(), options);
    const Tensor<accumulate_t<T>> no_shift(Shape{geometry.in_channels});
    return cpu::by_input<T>(
        dy, weight, geometry,
        [&](Tensor<T>& dx, Index, Index count) {
            return cpu::StoreJoined<T>(dx, no_shift.data(), count, dshortcut, false);
        },
        [](const auto&, Index, Index) {});
}

SD_NAMESPACE_END
