// Two-dimensional convolution on a device. Depthwise ones are kernels of our own. Others are taken apart: what is pending
// is applied in a pass of its own, a library's product or the direct one follows, and statistics are gathered in another
// pass. The product is of all samples that its tensors have room for, see cuda/sample_room.hpp.
#pragma once

#include "sd/core/kept_weights.hpp"
#include "sd/device/batch_norm_backward.hpp"
#include "sd/device/depthwise_conv2d.hpp"
#include "sd/device/direct_conv2d.hpp"
#include "sd/device/moments.hpp"
#include "sd/device/residual_join.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cuda {

/// The same convolution of another number of samples.
[[nodiscard]] inline Conv2dGeometry of_samples(Conv2dGeometry geometry, Index samples) {
    geometry.batch = samples;
    return geometry;
}

}  // namespace cuda

/// y = x * weight, as on the CPU. Throws std::invalid_argument if settings or shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> conv2d_forward(const Pending<T, Device>& x,
                                               const Tensor<accumulate_t<T>, Device>& weight,
                                               const Conv2dOptions& options,
                                               Moments<accumulate_t<T>, Device>* moments = nullptr) {
    const Conv2dGeometry geometry(x.shape(), weight.shape(), options);
    if (is_depthwise(weight.shape(), options)) return cuda::depthwise_forward<T>(geometry, x, weight, moments);
    const Tensor<T, Device> plain = materialize(x);
    const Index samples = std::max(cuda::sample_room(plain), geometry.batch);
    auto y = cuda::empty_with_room<T, Device>(geometry.output_shape(), samples);
    if (y.size() > 0) {
        auto all = cuda::with_room(y, samples);
        cuda::Conv2dEngine<T, Device>::forward(cuda::of_samples(geometry, samples), cuda::with_room(plain, samples),
                                               weight, all);
    }
    if (moments != nullptr) *moments = batch_moments(y);
    return y;
}

/// A convolution with the batch norm of evaluation behind it, as on the CPU. Nothing is made of the weights, so nothing is
/// kept.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> conv2d_batch_norm_forward(const Pending<T, Device>& x,
                                                          const Tensor<accumulate_t<T>, Device>& weight,
                                                          const Conv2dOptions& options,
                                                          const Tensor<accumulate_t<T>, Device>& scale,
                                                          const Tensor<accumulate_t<T>, Device>& shift,
                                                          Activation activation, KeptWeights* = nullptr) {
    return materialize(Pending<T, Device>(conv2d_forward<T>(x, weight, options), scale, shift, activation));
}

/// The same with the residual join behind it, as on the CPU: the join applies scale and shift as it reads.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> conv2d_join_forward(const Pending<T, Device>& x,
                                                    const Tensor<accumulate_t<T>, Device>& weight,
                                                    const Conv2dOptions& options,
                                                    const Tensor<accumulate_t<T>, Device>& scale,
                                                    const Tensor<accumulate_t<T>, Device>& shift,
                                                    const ResidualJoin<T, Device>& join, KeptWeights* = nullptr) {
    const Pending<T, Device> branch(conv2d_forward<T>(x, weight, options), scale, shift, Activation::none);
    return residual_join_forward<T>(join.shortcut, branch, {}, join.branch_scale, join.relu);
}

/// The gradient by the value of x, as on the CPU.
/// Throws std::invalid_argument if settings or shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> conv2d_by_input(const PendingGradient<T, Device>& dy,
                                                const Tensor<accumulate_t<T>, Device>& weight,
                                                const Conv2dOptions& options, const Shape& x_shape,
                                                const BatchNormPass<T, Device>* before = nullptr,
                                                BatchNormSums<accumulate_t<T>, Device>* sums = nullptr) {
    const Conv2dGeometry geometry(x_shape, weight.shape(), options);
    expect_shape("conv2d_by_input", "dy", dy.shape(), geometry.output_shape());
    detail::expect_pass_and_sums("conv2d_by_input", before, sums);
    if (is_depthwise(weight.shape(), options)) return cuda::depthwise_by_input<T>(geometry, dy, weight, before, sums);
    const Tensor<T, Device> plain = materialize(dy);
    const Index samples = std::max(cuda::sample_room(plain), geometry.batch);
    auto dx = cuda::empty_with_room<T, Device>(x_shape, samples);
    if (dx.size() > 0) {
        auto all = cuda::with_room(dx, samples);
        cuda::Conv2dEngine<T, Device>::by_input(cuda::of_samples(geometry, samples), cuda::with_room(plain, samples),
                                                weight, all);
    }
    if (sums != nullptr) *sums = batch_norm_sums(dx, *before);
    return dx;
}

/// The gradient by the input of a residual block whose branch begins with this convolution, as on the CPU: the
/// shortcut's gradient is added in a pass of its own.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> conv2d_join_by_input(const PendingGradient<T, Device>& dy,
                                                     const Tensor<accumulate_t<T>, Device>& weight,
                                                     const Conv2dOptions& options, const Tensor<T, Device>& dshortcut) {
    return add_selected<T>(dshortcut, conv2d_by_input<T>(dy, weight, options, dshortcut.shape()), {});
}

/// The gradient by the weights, as on the CPU. Throws std::invalid_argument if settings or shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<accumulate_t<T>, Device> conv2d_by_weight(const Pending<T, Device>& x,
                                                               const PendingGradient<T, Device>& dy,
                                                               const Conv2dOptions& options,
                                                               const Shape& weight_shape) {
    const Conv2dGeometry geometry(x.shape(), weight_shape, options);
    expect_shape("conv2d_by_weight", "dy", dy.shape(), geometry.output_shape());
    auto dweight = Tensor<accumulate_t<T>, Device>::empty(weight_shape);
    if (dy.shape().size() == 0) {
        dweight.fill(accumulate_t<T>(0));
    } else if (is_depthwise(weight_shape, options)) {
        return cuda::depthwise_by_weight<T>(geometry, x, dy);
    } else {
        const Tensor<T, Device> input = materialize(x);
        const Tensor<T, Device> gradient = materialize(dy);
        const Index samples = std::min(cuda::sample_room(input), cuda::sample_room(gradient));
        cuda::Conv2dEngine<T, Device>::by_weight(cuda::of_samples(geometry, samples), cuda::with_room(input, samples),
                                                 cuda::with_room(gradient, samples), dweight);
    }
    return dweight;
}

SD_NAMESPACE_END
