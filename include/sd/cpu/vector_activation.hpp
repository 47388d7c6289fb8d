// Activations of vectors.
//
// The loops of the kernels have a path of their own for none and for ReLU, which cost next to nothing, and one for all
// other activations: it calls a function for each vector, which then costs less than what it computes. nvcc takes the
// formulas for code of a device, which has no vectors: there the CPU's lanes are computed one by one.
#pragma once

#include "sd/core/activation.hpp"
#include "sd/cpu/vector_number.hpp"

SD_NAMESPACE_BEGIN

namespace cpu {

/// Whether loops have a path of their own for the activation: none and ReLU.
[[nodiscard]] constexpr bool has_own_path(Activation activation) {
    return activation == Activation::none || activation == Activation::relu;
}

/// act(v), any.
template <class T>
[[nodiscard, gnu::noinline, gnu::flatten]] Vector<T> activated(Activation activation, Vector<T> v) {
#if defined(__CUDACC__)
    for (Index i = 0; i < lanes<T>; ++i) v[i] = activate<T>(activation, v[i]);
    return v;
#else
    return activate(activation, VectorNumber<T>(v)).values;
#endif
}

/// act(v) and act'(v).
template <class T>
struct ValueAndSlope {
    Vector<T> value, slope;
};

/// act(v) and act'(v), any.
template <class T>
[[nodiscard, gnu::noinline, gnu::flatten]] ValueAndSlope<T> activated_with_slope(Activation activation, Vector<T> v) {
#if defined(__CUDACC__)
    ValueAndSlope<T> result;
    for (Index i = 0; i < lanes<T>; ++i) {
        const auto [value, slope] = activate_with_derivative<T>(activation, v[i]);
        result.value[i] = value;
        result.slope[i] = slope;
    }
    return result;
#else
    const auto [value, slope] = activate_with_derivative(activation, VectorNumber<T>(v));
    return {value.values, slope.values};
#endif
}

/// dy act'(v), any; 0 where act'(v) is 0.
template <class T>
[[nodiscard, gnu::noinline, gnu::flatten]] Vector<T> gradient_before(Activation activation, Vector<T> dy, Vector<T> v) {
#if defined(__CUDACC__)
    for (Index i = 0; i < lanes<T>; ++i) v[i] = activation_gradient<T>(activation, dy[i], v[i]);
    return v;
#else
    return activation_gradient(activation, VectorNumber<T>(dy), VectorNumber<T>(v)).values;
#endif
}

/// dy where v > 0, else 0: the gradient before a ReLU.
template <class T>
[[nodiscard, gnu::always_inline]] inline Vector<T> gradient_before_relu(const Vector<T>& dy, const Vector<T>& v) {
    return v > Vector<T>{} ? dy : Vector<T>{};
}

}  // namespace cpu

SD_NAMESPACE_END
