// What a residual branch must offer.
#pragma once

#include "sd/core/pending.hpp"
#include "sd/nn/context.hpp"
#include "sd/nn/conv_bn.hpp"
#include "sd/nn/layer.hpp"

#include <concepts>

SD_NAMESPACE_BEGIN

/// A residual branch F: forward(x, context) gives F(x) as a Tensor or a Pending, backward(dF) gives dx and adds to the
/// gradients of its parameters, visit(visitor) names its parameters and buffers. Its scalar type is the member
/// value_type or the first argument of its class template. The last layer that visit() names is taken for the one that
/// F ends in, into which save_weights() folds a factor; where that is not so, visit_output(visitor) names, in the same
/// way, the parameters that F is proportional to. If it or a layer that it names has forget(), a network calls
/// it before each forward pass: what the last pass left for backward may go.
template <class Branch>
concept ResidualBranch = requires {
    typename layer_value_t<Branch>;
}
&&requires(Branch branch, const Tensor<layer_value_t<Branch>, layer_device_t<Branch>>& tensor, const Context& context,
           detail::IgnoreMember& visitor) {
    { branch.forward(tensor, context) } -> std::convertible_to<Pending<layer_value_t<Branch>, layer_device_t<Branch>>>;
    { branch.backward(tensor) } -> std::convertible_to<Tensor<layer_value_t<Branch>, layer_device_t<Branch>>>;
    branch.visit(visitor);
};

/// A branch that ends in a batch norm of the library's and takes the sums of its backward with the gradient; the
/// residual join then gathers them in its own pass.
template <class Branch>
concept EndsInBatchNorm = requires(Branch branch,
                                   const GradientWithSums<layer_value_t<Branch>, layer_device_t<Branch>>& dy) {
    { branch.output_pass() } -> std::same_as<const BatchNormPass<layer_value_t<Branch>, layer_device_t<Branch>>&>;
    { branch.backward(dy) } -> std::convertible_to<Tensor<layer_value_t<Branch>, layer_device_t<Branch>>>;
};

SD_NAMESPACE_END
