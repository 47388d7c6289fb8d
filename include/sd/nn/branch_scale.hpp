// Which parameters a factor on a branch can be folded into, so that a network without the factor computes the same.
//
//     c F(x) = F(x)  with the parameters of F's last layer, which is affine in them, multiplied by c
#pragma once

#include "sd/nn/activation.hpp"
#include "sd/nn/batch_norm2d.hpp"
#include "sd/nn/conv2d.hpp"
#include "sd/nn/layer_scale.hpp"
#include "sd/nn/linear.hpp"
#include "sd/nn/pixel_linear.hpp"
#include "sd/nn/pooling.hpp"
#include "sd/nn/visit.hpp"

#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// A layer that multiplies what its branch gives by a factor in evaluation.
template <class Layer>
concept ScalesBranch = requires(Layer& layer) {
    { layer.evaluation_scale() } -> std::convertible_to<double>;
    layer.branch();
};

namespace detail {

template <class X>
inline constexpr bool is_affine_layer = false;
template <class T, class Device>
inline constexpr bool is_affine_layer<BatchNorm2d<T, Device>> = true;
template <class T, class Device>
inline constexpr bool is_affine_layer<Conv2d<T, Device>> = true;
template <class T, class Device>
inline constexpr bool is_affine_layer<PixelLinear<T, Device>> = true;
template <class T, class Device>
inline constexpr bool is_affine_layer<Linear<T, Device>> = true;
template <class T, class Device>
inline constexpr bool is_affine_layer<LayerScale<T, Device>> = true;

/// Layers L without parameters for which L(c x) = c L(x) for c of 0 and more.
template <class X>
inline constexpr bool is_homogeneous_layer = false;
template <class T, class Device>
inline constexpr bool is_homogeneous_layer<Relu<T, Device>> = true;
template <class T, class Device>
inline constexpr bool is_homogeneous_layer<AvgPool2d<T, Device>> = true;
template <class T, class Device>
inline constexpr bool is_homogeneous_layer<MaxPool2d<T, Device>> = true;

/// The parameters of the last layer that a branch names, by their names in the branch; none if that layer is none of
/// those that are affine in their parameters.
class OutputWalk {
public:
    OutputWalk(std::string prefix, std::vector<std::string>& last) : prefix_(std::move(prefix)), last_(last) {}

    template <class X>
    void operator()(std::string_view name, X& x) const {
        const std::string full = prefix_.empty() ? std::string(name) : text(prefix_, '.', name);
        using Member = std::remove_const_t<X>;
        if constexpr (is_affine_layer<Member>) {
            last_.clear();
            for_each_parameter(x, [&](const std::string& own, auto&) { last_.push_back(text(full, '.', own)); });
        } else if constexpr (!is_homogeneous_layer<Member>) {
            last_.clear();
            if constexpr (is_layer_member<X> && !ScalesBranch<X>) visit_layer(x, OutputWalk(full, last_));
        }
    }

private:
    std::string prefix_;
    std::vector<std::string>& last_;
};

/// The names of the parameters, in the branch, that its output is proportional to: those that its visit_output() names,
/// or else those of the last layer that its visit() names. None: the branch does not tell.
template <class Branch>
std::vector<std::string> output_parameters(Branch& branch) {
    std::vector<std::string> names;
    const auto add = [&]<class Member>(const std::string& name, Member&) {
        if constexpr (is_parameter<Member>) names.push_back(name);
    };
    using Collect = MemberWalk<decltype(add)>;
    if constexpr (requires { branch.visit_output(std::declval<Collect>()); }) {
        branch.visit_output(Collect("", add));
    } else {
        visit_layer(branch, OutputWalk("", names));
    }
    return names;
}

/// A layer that scales a branch: its full name, its factor in evaluation, and the full names of the parameters that the
/// factor can be folded into.
struct ScaledBranch {
    std::string name;
    double factor;
    std::vector<std::string> parameters;
};

/// Collects those that a walk finds.
struct ScaledBranches {
    std::vector<ScaledBranch> found;

    /// For every member that a walk finds.
    template <class X>
    void operator()(const std::string& full, X& x) {
        if constexpr (ScalesBranch<X>) {
            std::vector<std::string> names = output_parameters(x.branch());
            if (!full.empty()) {
                for (std::string& name : names) name = text(full, '.', name);
            }
            found.push_back({full, static_cast<double>(x.evaluation_scale()), std::move(names)});
        }
    }
};

}  // namespace detail

/// Calls use(full name, factor, names) for every layer that scales a branch, the model itself included: its factor in
/// evaluation, and the full names of the parameters that it can be folded into, none if the branch does not tell.
template <class Model, class Use>
void for_each_scaled_branch(Model& model, Use&& use) {
    detail::ScaledBranches branches;
    branches(std::string(), model);
    for_each_member(model, branches);
    for (const auto& [name, factor, parameters] : branches.found) use(name, factor, parameters);
}

SD_NAMESPACE_END
