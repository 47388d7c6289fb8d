// What a residual branch must offer.
#pragma once

#include "sd/core/pending.hpp"
#include "sd/nn/context.hpp"
#include "sd/nn/conv_bn.hpp"

#include <concepts>
#include <string_view>

SD_NAMESPACE_BEGIN

namespace detail {

// The scalar type and the device of a branch: its members value_type and device_type, or else the first argument of the
// class template it is made from, on the processor.
template <class Branch>
struct BranchTypes {};
template <template <class, class...> class Template, class T, class... Rest>
struct BranchTypes<Template<T, Rest...>> {
    using Value = T;
};
template <class Branch>
requires requires { typename Branch::value_type; }
struct BranchTypes<Branch> {
    using Value = typename Branch::value_type;
};

template <class Branch>
struct BranchDevice {
    using type = Cpu;
};
template <class Branch>
requires requires { typename Branch::device_type; }
struct BranchDevice<Branch> {
    using type = typename Branch::device_type;
};

struct IgnoreState {
    template <class X>
    void operator()(std::string_view, X&) const {}
};

}  // namespace detail

/// The scalar type of a branch.
template <class Branch>
using branch_value_t = typename detail::BranchTypes<Branch>::Value;
/// The device of a branch: its member device_type, or else the processor.
template <class Branch>
using branch_device_t = typename detail::BranchDevice<Branch>::type;

/// A residual branch F: forward(x, context) gives F(x) as a Tensor or a Pending, backward(dF) gives dx and adds to the
/// gradients of its parameters, visit(visitor) names its parameters and buffers. Its scalar type is the member
/// value_type or the first argument of its class template. The last layer that visit() names is taken for the one that
/// F ends in, into which save_weights() folds a factor; where that is not so, visit_output(visitor) names, in the same
/// way, the parameters that F is proportional to. If it or a layer that it names has forget(), a network calls
/// it before each forward pass: what the last pass left for backward may go.
template <class Branch>
concept ResidualBranch = requires {
    typename branch_value_t<Branch>;
}
&&requires(Branch branch, const Tensor<branch_value_t<Branch>, branch_device_t<Branch>>& tensor, const Context& context,
           detail::IgnoreState& visitor) {
    {
        branch.forward(tensor, context)
        } -> std::convertible_to<Pending<branch_value_t<Branch>, branch_device_t<Branch>>>;
    { branch.backward(tensor) } -> std::convertible_to<Tensor<branch_value_t<Branch>, branch_device_t<Branch>>>;
    branch.visit(visitor);
};

/// A branch that ends in a batch norm of the library's and takes the sums of its backward with the gradient; the
/// residual join then gathers them in its own pass.
template <class Branch>
concept EndsInBatchNorm = requires(Branch branch,
                                   const GradientWithSums<branch_value_t<Branch>, branch_device_t<Branch>>& dy) {
    { branch.output_pass() } -> std::same_as<const BatchNormPass<branch_value_t<Branch>, branch_device_t<Branch>>&>;
    { branch.backward(dy) } -> std::convertible_to<Tensor<branch_value_t<Branch>, branch_device_t<Branch>>>;
};

SD_NAMESPACE_END
