// Gradients of kernels, which are functions and not layers: by central differences and by dual numbers.
#pragma once

#include "random.hpp"

#include "sd/core/pending.hpp"
#include "sd/testing/dual.hpp"

#include <doctest/doctest.h>

#include <limits>

using sd::Index;
using sd::Pending;
using sd::Shape;
using sd::Tensor;
using sd::testing::Dual;
using sd_test::random_tensor;
using sd_test::relative_error;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

// The same numbers in another type.
template <class N>
Tensor<N> in(const Tensor<double>& x) {
    Tensor<N> result(x.shape());
    for (Index i = 0; i < x.size(); ++i) result.data()[i] = N(x.data()[i]);
    return result;
}

inline double dot(const Tensor<double>& a, const Tensor<double>& b) {
    double sum = 0;
    for (Index i = 0; i < a.size(); ++i) sum += a.data()[i] * b.data()[i];
    return sum;
}

// d(sum dy f(x)) / dx by central differences.
template <class Function>
Tensor<double> by_differences(const Function& f, const Tensor<double>& x, const Tensor<double>& dy) {
    constexpr double step = 1e-5;
    Tensor<double> dx(x.shape());
    for (Index i = 0; i < x.size(); ++i) {
        Tensor<double> above = x.clone();
        Tensor<double> below = x.clone();
        above.data()[i] += step;
        below.data()[i] -= step;
        dx.data()[i] = (dot(dy, f(above)) - dot(dy, f(below))) / (2 * step);
    }
    return dx;
}

// d(sum dy f(x)) / dx by dual numbers.
template <class Function>
Tensor<double> by_dual_numbers(const Function& f, const Tensor<double>& x, const Tensor<double>& dy) {
    Tensor<double> dx(x.shape());
    Tensor<Dual> at = in<Dual>(x);
    for (Index i = 0; i < x.size(); ++i) {
        at.data()[i].slope[0] = 1;
        const Tensor<Dual> y = f(at);
        at.data()[i].slope[0] = 0;
        for (Index j = 0; j < y.size(); ++j) dx.data()[i] += dy.data()[j] * y.data()[j].slope[0];
    }
    return dx;
}

// f: Tensor<N> -> Tensor<N> for N double and Dual; backward: dy -> dx.
template <class Function, class Backward>
void check_gradient(const Function& f, const Backward& backward, const Tensor<double>& x) {
    const Tensor<double> dy = random_tensor<double>(f(x).shape(), 900);
    const Tensor<double> dx = backward(dy);
    CHECK(relative_error(dx, by_differences(f, x, dy)) < 1e-7);
    CHECK(relative_error(dx, by_dual_numbers(f, x, dy)) < 1e-13);
}

inline void check_equal(const Tensor<double>& got, const Tensor<double>& expected) {
    CHECK(relative_error(got, expected) < 1e-14);
}

inline Tensor<double> counting(const Shape& shape) {
    Tensor<double> x(shape);
    for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<double>(i + 1);
    return x;
}

// A one-element tensor, so that a loss is a function like the others.
template <class N>
Tensor<N> scalar(const N& value) {
    return Tensor<N>::full({1}, value);
}

template <class N>
Pending<N> pending_in(const Tensor<N>& raw, const Tensor<double>& scale, const Tensor<double>& shift,
                      sd::Activation activation) {
    return Pending<N>(raw, in<N>(scale), in<N>(shift), activation);
}
