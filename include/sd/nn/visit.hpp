// How parameters and buffers of a layer are found and named.
//
// A layer has a member function
//
//     template <class Visitor> void visit(Visitor&& visitor) { visitor("conv1", conv1_); visitor("weight", weight_); }
//
// that names its parameters (ParameterPtr), its buffers (Tensor or std::int64_t) and its layers, in any order that
// stays, and may have the same as const. Full names join the names on the way with dots, as in PyTorch's state dicts:
// "layer1.0.conv1.weight".
#pragma once

#include "sd/core/parameter.hpp"
#include "sd/cpu/elementwise.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

SD_NAMESPACE_BEGIN

namespace detail {

template <class X>
inline constexpr bool is_parameter = false;
template <class T, class Device>
inline constexpr bool is_parameter<ParameterPtr<T, Device>> = true;
template <class X>
inline constexpr bool is_parameter<const X> = is_parameter<X>;

template <class X>
inline constexpr bool is_buffer = std::is_same_v<X, std::int64_t>;
template <class T, class Device>
inline constexpr bool is_buffer<Tensor<T, Device>> = true;
template <class X>
inline constexpr bool is_buffer<const X> = is_buffer<X>;

/// Whether a member that a layer names is a layer itself.
template <class X>
inline constexpr bool is_layer_member = !is_parameter<X> && !is_buffer<X>;

/// Lets a layer name its members.
template <class Layer, class Visitor>
void visit_layer(Layer& layer, Visitor&& visitor) {
    layer.visit(visitor);
}
/// The same, read only. A layer that has no const visit() is not changed by the other one, which only names its members.
template <class Layer, class Visitor>
void visit_layer(const Layer& layer, Visitor&& visitor) {
    if constexpr (requires { layer.visit(visitor); }) {
        layer.visit(visitor);
    } else {
        const_cast<Layer&>(layer).visit(
            [&](std::string_view name, auto& member) { visitor(name, std::as_const(member)); });
    }
}

template <class Use>
class MemberWalk {
public:
    MemberWalk(std::string prefix, Use& use) : prefix_(std::move(prefix)), use_(use) {}

    template <class X>
    void operator()(std::string_view name, X& x) const {
        const std::string full = prefix_.empty() ? std::string(name) : text(prefix_, '.', name);
        use_(full, x);
        if constexpr (is_layer_member<X>) visit_layer(x, MemberWalk(full, use_));
    }

private:
    std::string prefix_;
    Use& use_;
};

template <class Use>
class UnnamedWalk {
public:
    explicit UnnamedWalk(Use& use) : use_(use) {}

    template <class X>
    void operator()(std::string_view, X& x) const {
        use_(x);
        if constexpr (is_layer_member<X>) visit_layer(x, *this);
    }

private:
    Use& use_;
};

}  // namespace detail

/// Calls use(full name, member) for all that is in a layer, in the order of its visits: parameters (ParameterPtr), buffers
/// (Tensor or std::int64_t), and layers, each followed by what is in it. Members of a const layer are const.
template <class Layer, class Use>
void for_each_member(Layer& layer, Use&& use) {
    detail::visit_layer(layer, detail::MemberWalk<std::remove_reference_t<Use>>("", use));
}

namespace detail {

/// Calls use(member) for the same. No names are made, so nothing is allocated.
template <class Layer, class Use>
void for_each_unnamed_member(Layer& layer, Use&& use) {
    detail::visit_layer(layer, detail::UnnamedWalk<std::remove_reference_t<Use>>(use));
}

}  // namespace detail

namespace detail {

/// Lets a member give back what its last forward pass left, if it is a layer that can.
struct Forget {
    template <class X>
    void operator()(X& x) const {
        if constexpr (requires { x.forget(); }) x.forget();
    }
};

}  // namespace detail

/// Lets a layer and all layers of it give back what their last forward pass left for backward, by their forget() if they
/// have one. A network does it before a pass that keeps gradients, so that the pass runs in the memory of the one before.
template <class Layer>
void forget_passes(Layer& layer) {
    const detail::Forget forget;
    forget(layer);
    detail::for_each_unnamed_member(layer, forget);
}

namespace detail {

/// Told what a walk finds of a layer's state. Its type does not depend on who asks, so that the walk through a network is
/// compiled once for all who do.
template <class Parameter, class Buffer, class Count>
class StateVisitor {
public:
    virtual void visit_parameter(const std::string& name, Parameter& parameter) = 0;
    virtual void visit_buffer(const std::string& name, Buffer& buffer) = 0;
    virtual void visit_count(const std::string& name, Count& count) = 0;

    /// For every member that a walk finds.
    template <class X>
    void operator()(const std::string& name, X& x) {
        if constexpr (std::is_same_v<X, Parameter>) {
            visit_parameter(name, x);
        } else if constexpr (std::is_same_v<X, Buffer>) {
            visit_buffer(name, x);
        } else if constexpr (std::is_same_v<X, Count>) {
            visit_count(name, x);
        } else {
            static_assert(
                is_layer_member<X>,
                "sd::for_each_state: a parameter or buffer of another scalar type or device than its layer's");
        }
    }

protected:
    ~StateVisitor() = default;
};

template <class Of, class X>
using const_as_t = std::conditional_t<std::is_const_v<Of>, const X, X>;

/// The visitor for the state of a layer that tells its types: of the type that its scalar type accumulates in, and read
/// only if the layer is.
template <class Layer, class A = accumulate_t<typename Layer::value_type>, class Device = typename Layer::device_type>
using state_visitor_t = StateVisitor<const_as_t<Layer, ParameterPtr<A, Device>>, const_as_t<Layer, Tensor<A, Device>>,
                                     const_as_t<Layer, std::int64_t>>;

/// A visitor that calls two functions.
template <class Visitor, class OnParameter, class OnBuffer>
class CallingVisitor;
template <class Parameter, class Buffer, class Count, class OnParameter, class OnBuffer>
class CallingVisitor<StateVisitor<Parameter, Buffer, Count>, OnParameter, OnBuffer> final
    : public StateVisitor<Parameter, Buffer, Count> {
public:
    CallingVisitor(OnParameter& on_parameter, OnBuffer& on_buffer)
        : on_parameter_(on_parameter), on_buffer_(on_buffer) {}

    void visit_parameter(const std::string& name, Parameter& parameter) override { on_parameter_(name, parameter); }
    void visit_buffer(const std::string& name, Buffer& buffer) override { on_buffer_(name, buffer); }
    void visit_count(const std::string& name, Count& count) override { on_buffer_(name, count); }

private:
    OnParameter& on_parameter_;
    OnBuffer& on_buffer_;
};

/// Told the parameters that a walk without names finds, in the way of StateVisitor.
template <class Parameter>
class ParameterVisitor {
public:
    using Told = Parameter;  ///< what it is told

    virtual void visit_parameter(Parameter& parameter) = 0;

    /// For every member that a walk finds.
    template <class X>
    void operator()(X& x) {
        if constexpr (std::is_same_v<X, Parameter>) {
            visit_parameter(x);
        } else {
            static_assert(
                !is_parameter<X>,
                "sd::for_each_unnamed_parameter: a parameter of another scalar type or device than its layer's");
        }
    }

protected:
    ~ParameterVisitor() = default;
};

/// The visitor for the parameters of a layer that tells its types.
template <class Layer, class A = accumulate_t<typename Layer::value_type>, class Device = typename Layer::device_type>
using parameter_visitor_t = ParameterVisitor<const_as_t<Layer, ParameterPtr<A, Device>>>;

/// A visitor that calls a function.
template <class Parameter, class OnParameter>
class CallingParameterVisitor final : public ParameterVisitor<Parameter> {
public:
    explicit CallingParameterVisitor(OnParameter& on_parameter) : on_parameter_(on_parameter) {}

    void visit_parameter(Parameter& parameter) override { on_parameter_(parameter); }

private:
    OnParameter& on_parameter_;
};

}  // namespace detail

/// Calls on_parameter(full name, ParameterPtr&) and on_buffer(full name, Tensor& or std::int64_t&) for all that the
/// layer and its layers own, in the order of their visits.
template <class Layer, class OnParameter, class OnBuffer>
void for_each_state(Layer& layer, OnParameter&& on_parameter, OnBuffer&& on_buffer) {
    if constexpr (requires { typename detail::state_visitor_t<Layer>; }) {
        using Visitor = detail::state_visitor_t<Layer>;
        detail::CallingVisitor<Visitor, std::remove_reference_t<OnParameter>, std::remove_reference_t<OnBuffer>> call(
            on_parameter, on_buffer);
        for_each_member(layer, static_cast<Visitor&>(call));
    } else {  // a layer that has no members value_type and device_type
        for_each_member(layer, [&]<class Member>(const std::string& name, Member& member) {
            if constexpr (detail::is_parameter<Member>) on_parameter(name, member);
            if constexpr (detail::is_buffer<Member>) on_buffer(name, member);
        });
    }
}

/// Calls on_parameter(full name, ParameterPtr&) for every parameter.
template <class Layer, class OnParameter>
void for_each_parameter(Layer& layer, OnParameter&& on_parameter) {
    for_each_state(layer, on_parameter, [](const std::string&, auto&) {});
}

/// Calls on_parameter(ParameterPtr&) for every parameter. No names are made, so nothing is allocated.
template <class Layer, class OnParameter>
void for_each_unnamed_parameter(Layer& layer, OnParameter&& on_parameter) {
    if constexpr (requires { typename detail::parameter_visitor_t<Layer>; }) {
        using Visitor = detail::parameter_visitor_t<Layer>;
        detail::CallingParameterVisitor<typename Visitor::Told, std::remove_reference_t<OnParameter>> call(
            on_parameter);
        detail::for_each_unnamed_member(layer, static_cast<Visitor&>(call));
    } else {  // a layer that has no members value_type and device_type
        detail::for_each_unnamed_member(layer, [&]<class Member>(Member& member) {
            if constexpr (detail::is_parameter<Member>) on_parameter(member);
        });
    }
}

/// Gives every parameter its full name.
template <class Layer>
void name_parameters(Layer& layer) {
    for_each_parameter(layer, [](const std::string& name, auto& parameter) { parameter->name = name; });
}

SD_NAMESPACE_END
