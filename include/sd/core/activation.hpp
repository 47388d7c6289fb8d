// The activations that are applied element by element: a closed choice, with the formula and the derivative of each.
#pragma once

#include "sd/core/config.hpp"
#include "sd/core/enum_names.hpp"

#include <cmath>
#include <string_view>

SD_NAMESPACE_BEGIN

/// An activation act(v).
enum class Activation {
    none,        ///< v
    relu,        ///< max(v, 0)
    relu6,       ///< min(max(v, 0), 6)
    silu,        ///< v / (1 + exp(-v))
    hardswish,   ///< v min(max(v + 3, 0), 6) / 6
    gelu,        ///< v (1 + erf(v / sqrt 2)) / 2
    sigmoid,     ///< 1 / (1 + exp(-v))
    hardsigmoid  ///< min(max(v + 3, 0), 6) / 6
};

namespace detail {

template <>
struct EnumNames<Activation> {
    static constexpr std::string_view setting = "activation";
    static constexpr EnumName<Activation> names[]{
        {Activation::none, "none"},           {Activation::relu, "relu"},
        {Activation::relu6, "relu6"},         {Activation::silu, "silu"},
        {Activation::hardswish, "hardswish"}, {Activation::gelu, "gelu"},
        {Activation::sigmoid, "sigmoid"},     {Activation::hardsigmoid, "hardsigmoid"}};
};

/// One of two numbers. Types of number whose comparisons give more than a bool have an overload of their own.
template <class A>
[[nodiscard]] SD_HOST_DEVICE A select(bool condition, const A& if_true, const A& if_false) {
    return condition ? if_true : if_false;
}

/// 1 / (1 + exp(-v)).
template <class A>
[[nodiscard]] SD_HOST_DEVICE A logistic(const A& v) {
    using std::exp;
    return A(1) / (A(1) + exp(A(0) - v));
}

/// The derivative of v s with s = logistic(v).
template <class A>
[[nodiscard]] SD_HOST_DEVICE A silu_derivative(const A& v, const A& s) {
    return s * (A(1) + v * (A(1) - s));
}

/// The distribution function of the normal distribution, Phi(v) = (1 + erf(v / sqrt 2)) / 2, exact in its tails too.
template <class A>
[[nodiscard]] SD_HOST_DEVICE A normal_distribution(const A& v) {
    using std::erfc;
    return A(0.5) * erfc(v * A(-0.70710678118654752440));
}

/// The normal distribution, its function Phi and its density phi(v) = exp(-v^2 / 2) / sqrt(2 pi).
template <class A>
struct Normal {
    A distribution, density;
};

/// Both at v. Types of number for which both have something in common have an overload of their own.
template <class A>
[[nodiscard]] SD_HOST_DEVICE Normal<A> normal(const A& v) {
    using std::exp;
    return {normal_distribution(v), A(0.39894228040143267794) * exp(A(-0.5) * v * v)};
}

/// The derivative of v Phi(v).
template <class A>
[[nodiscard]] SD_HOST_DEVICE A gelu_derivative(const A& v, const Normal<A>& at_v) {
    return at_v.distribution + v * at_v.density;
}

}  // namespace detail

/// act(v), for any type of number that has exp and erfc. NaN stays NaN. As in PyTorch, whose GELU is this one unless it
/// is told to approximate.
template <class A>
[[nodiscard]] SD_HOST_DEVICE A activate(Activation activation, const A& v) {
    using detail::select;
    switch (activation) {
        case Activation::none:
            return v;
        case Activation::relu:
            return select(v < A(0), A(0), v);
        case Activation::relu6:
            return select(v < A(0), A(0), select(v > A(6), A(6), v));
        case Activation::silu:
            return v * detail::logistic(v);
        case Activation::hardswish:
            return select(v < A(-3), A(0), select(v > A(3), v, A(v * (v + A(3)) / A(6))));
        case Activation::gelu:
            return v * detail::normal_distribution(v);
        case Activation::sigmoid:
            return detail::logistic(v);
        case Activation::hardsigmoid:
            return select(v < A(-3), A(0), select(v > A(3), A(1), A((v + A(3)) / A(6))));
    }
    return v;
}

/// act'(v). At a kink as in PyTorch: 0 for relu at 0 and relu6 at 0 and 6; 0 for hardswish at -3 and 1 at 3 (up to
/// PyTorch 2.6 -0.5 and 1.5), 0 for hardsigmoid at both. For NaN, relu, relu6 and hardsigmoid have 0, the others NaN.
template <class A>
[[nodiscard]] SD_HOST_DEVICE A activation_derivative(Activation activation, const A& v) {
    using detail::normal;
    using detail::select;
    switch (activation) {
        case Activation::none:
            return A(1);
        case Activation::relu:
            return select(v > A(0), A(1), A(0));
        case Activation::relu6:
            return select(v > A(0), select(v < A(6), A(1), A(0)), A(0));
        case Activation::silu:
            return detail::silu_derivative(v, detail::logistic(v));
        case Activation::hardswish:
            return select(v <= A(-3), A(0), select(v >= A(3), A(1), A(v / A(3) + A(0.5))));
        case Activation::gelu:
            return detail::gelu_derivative(v, normal(v));
        case Activation::sigmoid: {
            const A s = detail::logistic(v);
            return s * (A(1) - s);
        }
        case Activation::hardsigmoid:
            return select(v > A(-3), select(v < A(3), A(1.0 / 6), A(0)), A(0));
    }
    return A(1);
}

/// act(v) and act'(v).
template <class A>
struct ValueAndDerivative {
    A value;       ///< act(v)
    A derivative;  ///< act'(v)
};

/// act(v) and act'(v), with what they have in common computed once.
template <class A>
[[nodiscard]] SD_HOST_DEVICE ValueAndDerivative<A> activate_with_derivative(Activation activation, const A& v) {
    if (activation == Activation::silu) {
        const A s = detail::logistic(v);
        return {v * s, detail::silu_derivative(v, s)};
    }
    if (activation == Activation::gelu) {
        using detail::normal;
        const detail::Normal<A> at_v = normal(v);
        return {v * at_v.distribution, detail::gelu_derivative(v, at_v)};
    }
    return {activate(activation, v), activation_derivative(activation, v)};
}

/// The gradient by v of act(v) whose own gradient is dy: dy act'(v). Where act'(v) is 0 it is 0, even if dy is infinite
/// or NaN.
template <class A>
[[nodiscard]] SD_HOST_DEVICE A activation_gradient(Activation activation, const A& dy, const A& v) {
    using detail::select;
    const A derivative = activation_derivative(activation, v);
    return select(derivative == A(0), A(0), A(dy * derivative));
}

SD_NAMESPACE_END
