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

SD_NAMESPACE_BEGIN

using reference::conv2d_batch_norm_forward;
using reference::conv2d_by_input;
using reference::conv2d_forward;
using reference::conv2d_join_forward;

namespace cpu {

/// Writes the points of a lattice by whichever product suits, one for each group's epilogue. Group g reads the source from
/// channel first_depth(g) on by weights_of(g) and writes the target from channel first_column(g) on. T is
/// what is computed in; source and epilogue know what is stored.
template <class T, class Source, class Epilogue, class FirstDepth, class FirstColumn, class WeightsOf>
void run_groups(const Source& source, const Lattice& lattice, const FirstDepth& first_depth,
                const FirstColumn& first_column, const PanelSource<T>& panels, const WeightsOf& weights_of,
                const Shape& target, PooledVector<Epilogue>& epilogues) {
    const auto run = [&]<class SomeProduct>(PooledVector<SomeProduct> products) {
        products.reserve(epilogues.size());
        for (Epilogue& epilogue : epilogues) {
            const Index group = static_cast<Index>(products.size());
            products.emplace_back(source, lattice, first_depth(group), first_column(group),
                                  panels.of_group(group, first_column(group)), weights_of(group), target, epilogue);
        }
        run_products(products);
    };
    const bool winograd = suits_winograd(lattice, weights_of(0), least_winograd_channels);
    if constexpr (std::is_same_v<typename Source::Stored, bfloat16>) {
        if (multiplies_pairs(winograd)) return run(PooledVector<PairProduct<Source, Epilogue>>());
    }
    if (winograd) {
        run(PooledVector<WinogradProduct<T, Source, Epilogue>>());
    } else {
        run(PooledVector<Product<T, Source, Epilogue>>());
    }
}

/// The epilogues of all groups, made by epilogue_of(group). Products refer to them, so they stay where they are made.
template <class EpilogueOf>
[[nodiscard]] auto epilogues_of(Index groups, const EpilogueOf& epilogue_of) {
    PooledVector<decltype(epilogue_of(groups))> epilogues;
    epilogues.reserve(static_cast<std::size_t>(groups));
    for (Index group = 0; group < groups; ++group) epilogues.push_back(epilogue_of(group));
    return epilogues;
}

/// Runs a forward pass, with each output channel times its factor if factors are given. epilogue_of(target, first channel,
/// channels) makes a group's epilogue, finish(epilogue, first channel) takes what it gathered.
template <class T, class EpilogueOf, class Finish>
[[nodiscard]] Tensor<T> forward(const Pending<T>& x, const Tensor<accumulate_t<T>>& weight,
                                const Conv2dGeometry& geometry, const accumulate_t<T>* factors, KeptWeights* kept,
                                const EpilogueOf& epilogue_of, const Finish& finish) {
    Tensor<T> y = Tensor<T>::empty(geometry.output_shape());
    if (y.size() == 0) return y;
    if (is_depthwise(geometry.weight_shape(), geometry.options)) {
        auto epilogue = epilogue_of(y, Index{0}, geometry.out_channels);
        const Lattice lattice = read_lattice(geometry);
        run_depthwise(PendingSource<T>(x), std::span(&lattice, 1), weight, factors, y.shape(), epilogue);
        finish(epilogue, Index{0});
        return y;
    }
    const ForwardSide<T> side(x, geometry);
    const GroupPlan& plan = side.plan;
    auto epilogues =
        epilogues_of(plan.count, [&](Index group) { return epilogue_of(y, plan.first_out(group), plan.out()); });
    run_groups<accumulate_t<T>>(
        PendingSource<T>(side.x, side.x_view), side.lattice, [&](Index group) { return plan.first_in(group); },
        [&](Index group) { return plan.first_out(group); },
        PanelSource<accumulate_t<T>>(kept, weight, factors, geometry.out_channels),
        [&](Index group) { return side.weights(group); }, side.y_shape, epilogues);
    for (Index group = 0; group < plan.count; ++group) {
        finish(epilogues[static_cast<std::size_t>(group)], plan.first_out(group));
    }
    return y;
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
/// What is made of weight and scale is kept in `kept`, if that is given, for the next call. Throws std::invalid_argument if settings or shapes do not fit.
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
/// dx is written. What is written then is the gradient before the activation of `before`, which the sums are of. Throws std::invalid_argument if settings or shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] Tensor<T> conv2d_by_input(const PendingGradient<T>& dy, const Tensor<accumulate_t<T>>& weight,
                                        const Conv2dOptions& options, const Shape& x_shape,
                                        const BatchNormPass<T>* before = nullptr,
                                        BatchNormSums<accumulate_t<T>>* sums = nullptr) {
    using A = accumulate_t<T>;
    const Conv2dGeometry geometry(x_shape, weight.shape(), options);
    expect_shape("conv2d_by_input", "dy", dy.shape(), geometry.output_shape());
    detail::expect_pass_and_sums("conv2d_by_input", before, sums);
    if (before != nullptr) {
        detail::expect_batch_norm_pass("conv2d_by_input", *before, x_shape);
        const Shape channels{geometry.in_channels};
        *sums = {Tensor<A>(channels), Tensor<A>(channels), true};
    }
    Tensor<T> dx = Tensor<T>::empty(x_shape);
    if (dx.size() == 0) return dx;
    PooledVector<cpu::Lattice> lattices = cpu::by_input_lattices(geometry);
    if (is_depthwise(geometry.weight_shape(), geometry.options)) {
        const auto run = [&](auto epilogue) {
            cpu::run_depthwise(cpu::GradientSource<T>(dy), std::span<const cpu::Lattice>(lattices), weight,
                               static_cast<const A*>(nullptr), x_shape, epilogue);
            return epilogue;
        };
        if (before != nullptr) {
            run(cpu::StoreWithSums<T>(dx, *before, 0, geometry.in_channels)).merge(0, 0, *sums);
        } else {
            run(cpu::Store<T>(dx, geometry.in_channels));
        }
        return dx;
    }
    const cpu::GroupPlan plan(geometry, cpu::group_lanes<T>());
    PendingGradient<T> gradient = dy;
    Shape target = x_shape;
    if (cpu::is_pointwise(geometry)) {
        gradient = cpu::reshaped(dy, cpu::as_one_row(dy.shape()));
        target = cpu::as_one_row(x_shape);
        lattices.front().height = 1;
        lattices.front().width = target[2];
    }
    const cpu::GradientSource<T> source(gradient);
    const cpu::PanelSource<A> panels(nullptr, weight, nullptr, 0);
    for (const cpu::Lattice& lattice : lattices) {
        const auto weights_of = [&](Index group) {
            return cpu::WeightMap{plan.out_indices(group), plan.in_indices(), cpu::tap_positions(lattice),
                                  plan.positions};
        };
        const auto run = [&](auto epilogues) {
            cpu::run_groups<A>(
                source, lattice, [&](Index group) { return plan.first_out(group); },
                [&](Index group) { return plan.first_in(group); }, panels, weights_of, target, epilogues);
            return epilogues;
        };
        if (before != nullptr) {
            auto epilogues = run(cpu::epilogues_of(plan.count, [&](Index group) {
                return cpu::StoreWithSums<T>(dx, *before, plan.first_in(group), plan.in());
            }));
            for (Index group = 0; group < plan.count; ++group) {
                epilogues[static_cast<std::size_t>(group)].merge(plan.first_in(group), group * plan.in(), *sums);
            }
        } else {
            run(cpu::epilogues_of(plan.count, [&](Index) { return cpu::Store<T>(dx, plan.in()); }));
        }
    }
    return dx;
}

SD_NAMESPACE_END
