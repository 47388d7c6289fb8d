// Two-dimensional convolution on a device, taken apart: what is pending is applied in a pass of its own, a library's
// product or the direct one follows, and statistics are gathered in another pass.
#pragma once

#include "sd/cuda/batch_norm_backward.hpp"
#include "sd/cuda/direct_conv2d.hpp"
#include "sd/cuda/moments.hpp"

SD_NAMESPACE_BEGIN

/// y = x * weight, as on the processor. Throws std::invalid_argument if settings or shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> conv2d_forward(const Pending<T, Device>& x,
                                               const Tensor<accumulate_t<T>, Device>& weight,
                                               const Conv2dOptions& options,
                                               Moments<accumulate_t<T>, Device>* moments = nullptr) {
    const Conv2dGeometry geometry(x.shape(), weight.shape(), options);
    auto y = Tensor<T, Device>::empty(geometry.output_shape());
    if (y.size() > 0) cuda::Conv2dEngine<T, Device>::forward(geometry, materialize(x), weight, y);
    if (moments != nullptr) *moments = batch_moments(y);
    return y;
}

/// A convolution with the batch norm of evaluation behind it, as on the processor.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> conv2d_batch_norm_forward(const Pending<T, Device>& x,
                                                          const Tensor<accumulate_t<T>, Device>& weight,
                                                          const Conv2dOptions& options,
                                                          const Tensor<accumulate_t<T>, Device>& scale,
                                                          const Tensor<accumulate_t<T>, Device>& shift, bool relu) {
    return materialize(Pending<T, Device>(conv2d_forward<T>(x, weight, options), scale, shift, relu));
}

/// The gradient by the value of x, as on the processor.
/// Throws std::invalid_argument if settings or shapes do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> conv2d_by_input(const PendingGradient<T, Device>& dy,
                                                const Tensor<accumulate_t<T>, Device>& weight,
                                                const Conv2dOptions& options, const Shape& x_shape,
                                                const BatchNormPass<T, Device>* before = nullptr,
                                                BatchNormSums<accumulate_t<T>, Device>* sums = nullptr) {
    const Conv2dGeometry geometry(x_shape, weight.shape(), options);
    expect_shape("conv2d_by_input", "dy", dy.shape(), geometry.output_shape());
    expect_pass_and_sums("conv2d_by_input", before, sums);
    auto dx = Tensor<T, Device>::empty(x_shape);
    if (dx.size() > 0) cuda::Conv2dEngine<T, Device>::by_input(geometry, materialize(dy), weight, dx);
    if (sums != nullptr) *sums = batch_norm_sums(dx, *before);
    return dx;
}

/// The gradient by the weights, as on the processor. Throws std::invalid_argument if settings or shapes do not fit.
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
    } else {
        cuda::Conv2dEngine<T, Device>::by_weight(geometry, materialize(x), materialize(dy), dweight);
    }
    return dweight;
}

SD_NAMESPACE_END
