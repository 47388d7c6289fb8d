// Two-dimensional convolution as its definition says it; shapes and formula in Conv2dGeometry.
#pragma once

#include "sd/core/kept_weights.hpp"
#include "sd/core/window.hpp"
#include "sd/reference/batch_norm.hpp"
#include "sd/reference/pending.hpp"
#include "sd/reference/residual_join.hpp"

SD_NAMESPACE_BEGIN

namespace reference {

/// Calls term(n, oh, ow, o, h, w, c, i, kh, kw) for every product that a convolution sums, leaving out those with
/// padding: weight(o, i, kh, kw) meets x(n, h, w, c) in y(n, oh, ow, o), and c is input channel i of o's group.
template <class Term>
void for_each_product(const Conv2dGeometry& g, const Term& term) {
    for (Index n = 0; n < g.batch; ++n) {
        for (Index oh = 0; oh < g.out_height; ++oh) {
            for (Index ow = 0; ow < g.out_width; ++ow) {
                for (Index o = 0; o < g.out_channels; ++o) {
                    for (Index kh = 0; kh < g.kernel_height; ++kh) {
                        for (Index kw = 0; kw < g.kernel_width; ++kw) {
                            const Index h = oh * g.options.stride - g.options.padding + kh * g.options.dilation;
                            const Index w = ow * g.options.stride - g.options.padding + kw * g.options.dilation;
                            if (h < 0 || h >= g.in_height || w < 0 || w >= g.in_width) continue;
                            for (Index i = 0; i < g.group_in; ++i) {
                                term(n, oh, ow, o, h, w, o / g.group_out * g.group_in + i, i, kh, kw);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The sums, each rounded once to the type that is stored.
template <class T>
[[nodiscard]] Tensor<T> rounded(const Tensor<accumulate_t<T>>& sums) {
    Tensor<T> result(sums.shape());
    for (Index i = 0; i < sums.size(); ++i) result.data()[i] = T(sums.data()[i]);
    return result;
}

/// y += weight x over all products. If `moments` is given it receives the statistics of y's channels.
/// Throws std::invalid_argument if settings or shapes do not fit.
template <class T>
[[nodiscard]] Tensor<T> conv2d_forward(const Pending<T>& x, const Tensor<accumulate_t<T>>& weight,
                                       const Conv2dOptions& options, Moments<accumulate_t<T>>* moments = nullptr) {
    using A = accumulate_t<T>;
    const Conv2dGeometry geometry(x.shape(), weight.shape(), options);
    const Tensor<T> values = materialize(x);
    Tensor<A> sums(geometry.output_shape());
    for_each_product(geometry,
                     [&](Index n, Index oh, Index ow, Index o, Index h, Index w, Index c, Index i, Index kh, Index kw) {
                         sums(n, oh, ow, o) = sums(n, oh, ow, o) + weight(o, i, kh, kw) * A(values(n, h, w, c));
                     });
    const Tensor<T> y = rounded<T>(sums);
    if (moments != nullptr) *moments = reference::batch_moments(y);
    return y;
}

/// The convolution, then batch norm with constants: y = act(scale (x * weight) + shift). The reference keeps nothing.
/// Throws std::invalid_argument if settings or shapes do not fit.
template <class T>
[[nodiscard]] Tensor<T> conv2d_batch_norm_forward(const Pending<T>& x, const Tensor<accumulate_t<T>>& weight,
                                                  const Conv2dOptions& options, const Tensor<accumulate_t<T>>& scale,
                                                  const Tensor<accumulate_t<T>>& shift, Activation activation,
                                                  KeptWeights* = nullptr) {
    return materialize(Pending<T>(reference::conv2d_forward(x, weight, options), scale, shift, activation));
}

/// The convolution, then batch norm with constants, then the residual join: y = act(S + c (scale (x * weight) + shift)).
/// Throws std::invalid_argument if settings or shapes do not fit.
template <class T>
[[nodiscard]] Tensor<T> conv2d_join_forward(const Pending<T>& x, const Tensor<accumulate_t<T>>& weight,
                                            const Conv2dOptions& options, const Tensor<accumulate_t<T>>& scale,
                                            const Tensor<accumulate_t<T>>& shift, const ResidualJoin<T>& join,
                                            KeptWeights* = nullptr) {
    const Pending<T> branch(reference::conv2d_forward(x, weight, options), scale, shift, Activation::none);
    return reference::residual_join_forward(join.shortcut, branch, {}, join.branch_scale, join.relu);
}

/// dx += weight dy over all products: the gradient by the value of x, after its pending scale, shift and activation.
/// x_shape is the shape of x. If x came from a batch norm, `before` is its forward pass and `sums` receives the sums of
/// its backward. A kernel may then write the gradient before the activation of `before`, if it says so in the sums; these
/// loops do not. Throws std::invalid_argument if settings or shapes do not fit.
template <class T>
[[nodiscard]] Tensor<T> conv2d_by_input(const PendingGradient<T>& dy, const Tensor<accumulate_t<T>>& weight,
                                        const Conv2dOptions& options, const Shape& x_shape,
                                        const BatchNormPass<T>* before = nullptr,
                                        BatchNormSums<accumulate_t<T>>* sums = nullptr) {
    using A = accumulate_t<T>;
    const Conv2dGeometry geometry(x_shape, weight.shape(), options);
    expect_shape("conv2d_by_input", "dy", dy.shape(), geometry.output_shape());
    detail::expect_pass_and_sums("conv2d_by_input", before, sums);
    const Tensor<T> values = materialize(dy);
    Tensor<A> products(x_shape);
    for_each_product(geometry,
                     [&](Index n, Index oh, Index ow, Index o, Index h, Index w, Index c, Index i, Index kh, Index kw) {
                         products(n, h, w, c) = products(n, h, w, c) + weight(o, i, kh, kw) * A(values(n, oh, ow, o));
                     });
    const Tensor<T> dx = rounded<T>(products);
    if (sums != nullptr) *sums = reference::batch_norm_sums(dx, *before);
    return dx;
}

/// dx = dshortcut + conv2d_by_input(dy, weight, options): the gradient by the input of a residual block whose branch
/// begins with this convolution. Throws std::invalid_argument if settings or shapes do not fit.
template <class T>
[[nodiscard]] Tensor<T> conv2d_join_by_input(const PendingGradient<T>& dy, const Tensor<accumulate_t<T>>& weight,
                                             const Conv2dOptions& options, const Tensor<T>& dshortcut) {
    return reference::add_selected(dshortcut, reference::conv2d_by_input(dy, weight, options, dshortcut.shape()), {});
}

/// dweight += dy x over all products. Throws std::invalid_argument if settings or shapes do not fit.
template <class T>
[[nodiscard]] Tensor<accumulate_t<T>> conv2d_by_weight(const Pending<T>& x, const PendingGradient<T>& dy,
                                                       const Conv2dOptions& options, const Shape& weight_shape) {
    using A = accumulate_t<T>;
    const Conv2dGeometry geometry(x.shape(), weight_shape, options);
    expect_shape("conv2d_by_weight", "dy", dy.shape(), geometry.output_shape());
    const Tensor<T> inputs = materialize(x);
    const Tensor<T> values = materialize(dy);
    Tensor<A> dweight(weight_shape);
    for_each_product(
        geometry, [&](Index n, Index oh, Index ow, Index o, Index h, Index w, Index c, Index i, Index kh, Index kw) {
            dweight(o, i, kh, kw) = dweight(o, i, kh, kw) + A(values(n, oh, ow, o)) * A(inputs(n, h, w, c));
        });
    return dweight;
}

}  // namespace reference

SD_NAMESPACE_END
