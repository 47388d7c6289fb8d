// The reference kernels against numbers worked out by hand, and every backward against its forward in two ways: central
// differences, and dual numbers that carry the derivative through the same plain loops.
#include "random.hpp"

#include "sd/reference/batch_norm.hpp"
#include "sd/reference/conv2d.hpp"
#include "sd/reference/cross_entropy.hpp"
#include "sd/reference/linear.hpp"
#include "sd/reference/pending.hpp"
#include "sd/reference/pooling.hpp"
#include "sd/reference/relu.hpp"
#include "sd/reference/residual_join.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <span>
#include <stdexcept>
#include <vector>

namespace reference = sd::reference;
using sd::Index;
using sd::Pending;
using sd::Shape;
using sd::Tensor;
using sd_test::random_tensor;
using sd_test::relative_error;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

// value + slope e with e^2 = 0: arithmetic on it computes a function and its derivative together.
struct Dual {
    double value = 0;
    double slope = 0;

    Dual() = default;
    explicit Dual(double number, double derivative = 0) : value(number), slope(derivative) {}

    friend Dual operator+(Dual a, Dual b) { return Dual(a.value + b.value, a.slope + b.slope); }
    friend Dual operator-(Dual a, Dual b) { return Dual(a.value - b.value, a.slope - b.slope); }
    friend Dual operator*(Dual a, Dual b) { return Dual(a.value * b.value, a.slope * b.value + a.value * b.slope); }
    friend Dual operator/(Dual a, Dual b) {
        return Dual(a.value / b.value, (a.slope * b.value - a.value * b.slope) / (b.value * b.value));
    }
    friend bool operator<(Dual a, Dual b) { return a.value < b.value; }
    friend bool operator>(Dual a, Dual b) { return a.value > b.value; }
    friend bool operator==(Dual a, Dual b) { return a.value == b.value; }

    friend Dual exp(Dual a) { return Dual(std::exp(a.value), std::exp(a.value) * a.slope); }
    friend Dual log(Dual a) { return Dual(std::log(a.value), a.slope / a.value); }
    friend Dual sqrt(Dual a) { return Dual(std::sqrt(a.value), a.slope / (2 * std::sqrt(a.value))); }
};

// The same numbers in another type.
template <class N>
Tensor<N> in(const Tensor<double>& x) {
    Tensor<N> result(x.shape());
    for (Index i = 0; i < x.size(); ++i) result.data()[i] = N(x.data()[i]);
    return result;
}

double dot(const Tensor<double>& a, const Tensor<double>& b) {
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
        at.data()[i].slope = 1;
        const Tensor<Dual> y = f(at);
        at.data()[i].slope = 0;
        for (Index j = 0; j < y.size(); ++j) dx.data()[i] += dy.data()[j] * y.data()[j].slope;
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

void check_equal(const Tensor<double>& got, const Tensor<double>& expected) {
    CHECK(relative_error(got, expected) < 1e-14);
}

Tensor<double> counting(const Shape& shape) {
    Tensor<double> x(shape);
    for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<double>(i + 1);
    return x;
}

// A one-element tensor, so that a loss is a function like the others.
template <class N>
Tensor<N> scalar(const N& value) {
    return Tensor<N>::full({1}, value);
}

// Batch norm as a layer has it, eps 1e-5.
template <class N>
struct BatchNormOutput {
    Tensor<N> mean, inverse_std;
    Pending<N> y;
};

template <class N>
BatchNormOutput<N> batch_norm(const Tensor<N>& z, const Tensor<N>& weight, const Tensor<N>& bias, bool relu) {
    using std::sqrt;
    const auto moments = reference::batch_moments(z);
    const Index channels = weight.size();
    Tensor<N> inverse_std(Shape{channels});
    Tensor<N> scale(Shape{channels});
    Tensor<N> shift(Shape{channels});
    for (Index c = 0; c < channels; ++c) {
        const N variance = moments.m2(c) / N(static_cast<double>(moments.count));
        inverse_std(c) = N(1.0) / sqrt(variance + N(1e-5));
        scale(c) = weight(c) * inverse_std(c);
        shift(c) = bias(c) - moments.mean(c) * scale(c);
    }
    return {moments.mean, inverse_std, Pending<N>(z, scale, shift, relu)};
}

template <class N>
Pending<N> pending_in(const Tensor<N>& raw, const Tensor<double>& scale, const Tensor<double>& shift, bool relu) {
    return Pending<N>(raw, in<N>(scale), in<N>(shift), relu);
}

}  // namespace

TEST_CASE("the check of gradients notices a planted error") {
    const auto x = random_tensor<double>({5}, 1);
    const auto square = []<class N>(const Tensor<N>& v) {
        Tensor<N> y(v.shape());
        for (Index i = 0; i < v.size(); ++i) y.data()[i] = v.data()[i] * v.data()[i];
        return y;
    };
    const auto dy = random_tensor<double>({5}, 2);
    auto dx = by_dual_numbers(square, x, dy);
    for (Index i = 0; i < 5; ++i) CHECK(std::abs(dx(i) - 2 * x(i) * dy(i)) < 1e-15);
    dx(3) *= 1.001;
    CHECK(relative_error(dx, by_differences(square, x, dy)) > 1e-6);
}

TEST_CASE("conv2d: by hand") {
    const Tensor<double> x = counting({1, 3, 3, 1});
    const Tensor<double> weight(Shape{1, 1, 2, 2}, {1, 2, 3, 4});
    const Tensor<double> ones = Tensor<double>::full({1, 1, 3, 3}, 1.0);

    sd::Moments<double> moments;
    check_equal(reference::conv2d_forward(Pending<double>(x), weight, {}, &moments),
                Tensor<double>(Shape{1, 2, 2, 1}, {37, 47, 67, 77}));
    CHECK(moments.count == 4);
    CHECK(moments.mean(0) == 57);
    CHECK(moments.m2(0) == 20 * 20 + 10 * 10 + 10 * 10 + 20 * 20);
    check_equal(reference::conv2d_forward(Pending<double>(x), weight, {.dilation = 2}),
                Tensor<double>(Shape{1, 1, 1, 1}, {1 * 1 + 2 * 3 + 3 * 7 + 4 * 9}));
    check_equal(reference::conv2d_forward(Pending<double>(x), ones, {.stride = 2, .padding = 1}),
                Tensor<double>(Shape{1, 2, 2, 1}, {12, 16, 24, 28}));

    const Tensor<double> dy = Tensor<double>::full({1, 2, 2, 1}, 1.0);
    check_equal(reference::conv2d_by_input(dy, weight, {}, x.shape()),
                Tensor<double>(Shape{1, 3, 3, 1}, {1, 3, 2, 4, 10, 6, 3, 7, 4}));
    check_equal(reference::conv2d_by_weight(Pending<double>(x), dy, {}, weight.shape()),
                Tensor<double>(Shape{1, 1, 2, 2}, {12, 16, 24, 28}));
}

TEST_CASE("conv2d: groups see their own channels, weights are OIHW") {
    const Tensor<double> x(Shape{1, 1, 1, 4}, {1, 2, 3, 4});
    const Tensor<double> weight(Shape{2, 2, 1, 1}, {10, 100, 1000, 10000});
    check_equal(reference::conv2d_forward(Pending<double>(x), weight, {.groups = 2}),
                Tensor<double>(Shape{1, 1, 1, 2}, {210, 43000}));
    const Tensor<double> row(Shape{1, 1, 3, 1}, {1, 10, 100});
    check_equal(reference::conv2d_forward(Pending<double>(row), Tensor<double>(Shape{1, 1, 1, 3}, {3, 2, 1}), {}),
                Tensor<double>(Shape{1, 1, 1, 1}, {123}));
}

TEST_CASE("conv2d: padding is zero after the pending shift") {
    const Pending<double> x(Tensor<double>(Shape{1, 1, 1, 1}, {-2}), Tensor<double>(Shape{1}, {1}),
                            Tensor<double>(Shape{1}, {7}), false);
    const Tensor<double> ones = Tensor<double>::full({1, 1, 3, 3}, 1.0);
    check_equal(reference::conv2d_forward(x, ones, {.padding = 1}), Tensor<double>(Shape{1, 1, 1, 1}, {5}));
}

TEST_CASE("conv2d: gradients") {
    struct Case {
        Shape x, weight;
        sd::Conv2dOptions options;
    };
    const std::vector<Case> cases = {
        {{2, 4, 5, 3}, {4, 3, 3, 3}, {1, 1, 1, 1}},
        {{2, 5, 4, 4}, {6, 2, 3, 2}, {2, 1, 1, 2}},
        {{1, 6, 7, 2}, {2, 1, 2, 3}, {3, 2, 2, 2}},
        {{3, 1, 1, 2}, {3, 2, 1, 1}, {1, 0, 1, 1}},
    };
    for (const Case& one : cases) {
        const Shape& x_shape = one.x;
        const Shape& weight_shape = one.weight;
        const sd::Conv2dOptions& options = one.options;
        CAPTURE(x_shape);
        const auto x = random_tensor<double>(x_shape, 1);
        const auto weight = random_tensor<double>(weight_shape, 2);
        const auto scale = random_tensor<double>({x_shape[3]}, 3, 0.5, 2);
        const auto shift = random_tensor<double>({x_shape[3]}, 4);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::conv2d_forward(Pending<N>(v), in<N>(weight), options);
            },
            [&](const Tensor<double>& dy) { return reference::conv2d_by_input(dy, weight, options, x_shape); }, x);
        check_gradient(
            [&]<class N>(const Tensor<N>& w) {
                return reference::conv2d_forward(pending_in(in<N>(x), scale, shift, true), w, options);
            },
            [&](const Tensor<double>& dy) {
                return reference::conv2d_by_weight(pending_in(x, scale, shift, true), dy, options, weight_shape);
            },
            weight);
    }
}

TEST_CASE("conv2d: no samples, refused shapes") {
    const Tensor<double> weight(Shape{3, 2, 3, 3});
    const Pending<double> none(Tensor<double>(Shape{0, 5, 5, 2}));
    sd::Moments<double> moments;
    const auto y = reference::conv2d_forward(none, weight, {}, &moments);
    CHECK(y.shape() == Shape{0, 3, 3, 3});
    CHECK(moments.count == 0);
    CHECK(moments.mean.shape() == Shape{3});
    check_equal(reference::conv2d_by_weight(none, y, {}, weight.shape()), Tensor<double>(weight.shape()));

    const Pending<double> x(Tensor<double>(Shape{1, 5, 5, 2}));
    const auto forward = [&](const Tensor<double>& w, const sd::Conv2dOptions& options) {
        (void)reference::conv2d_forward(x, w, options);
    };
    CHECK_THROWS_AS(forward(Tensor<double>(Shape{3, 1, 3, 3}), {}), std::invalid_argument);
    CHECK_THROWS_AS(forward(Tensor<double>(Shape{3, 2, 3}), {}), std::invalid_argument);
    CHECK_THROWS_AS(forward(Tensor<double>(Shape{3, 2, 6, 3}), {}), std::invalid_argument);
    CHECK_THROWS_AS(forward(Tensor<double>(Shape{3, 1, 3, 3}), {.groups = 2}), std::invalid_argument);
    CHECK_THROWS_AS(forward(weight, {.stride = 0}), std::invalid_argument);
    CHECK_THROWS_AS(forward(weight, {.padding = -1}), std::invalid_argument);
    CHECK_THROWS_AS(forward(weight, {.dilation = 0}), std::invalid_argument);
    CHECK_THROWS_AS(forward(weight, {.groups = 0}), std::invalid_argument);
    const Tensor<double> bad_dy(Shape{1, 4, 3, 3});
    CHECK_THROWS_AS((void)reference::conv2d_by_input(bad_dy, weight, {}, {1, 5, 5, 2}), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::conv2d_by_weight(x, bad_dy, {}, weight.shape()), std::invalid_argument);
}

TEST_CASE("batch_moments: by hand, far from zero, empty") {
    const Tensor<double> x(Shape{2, 1, 2, 2}, {1, 10, 2, 10, 3, 10, 4, 14});
    const auto moments = reference::batch_moments(x);
    CHECK(moments.count == 4);
    check_equal(moments.mean, Tensor<double>(Shape{2}, {2.5, 11}));
    check_equal(moments.m2, Tensor<double>(Shape{2}, {5, 12}));

    const Tensor<float> far(Shape{4, 1}, {1000000, 1000001, 1000002, 1000003});
    const auto far_moments = reference::batch_moments(far);
    CHECK(far_moments.mean(0) == 1000001.5F);
    CHECK(far_moments.m2(0) == 5);

    const auto none = reference::batch_moments(Tensor<double>(Shape{0, 2, 2, 3}));
    CHECK(none.count == 0);
    check_equal(none.mean, Tensor<double>(Shape{3}));
    check_equal(none.m2, Tensor<double>(Shape{3}));
}

TEST_CASE("batch norm: gradients through the batch's own statistics") {
    for (const bool relu : {false, true}) {
        CAPTURE(relu);
        const auto z = random_tensor<double>({3, 2, 2, 4}, 1, -2, 3);
        const auto weight = random_tensor<double>({4}, 2, 0.5, 2);
        const auto bias = random_tensor<double>({4}, 3);
        const auto out = batch_norm(z, weight, bias, relu);
        const auto sums = [&](const Tensor<double>& dy) {
            return reference::batch_norm_sums(dy, out.y, out.mean, out.inverse_std);
        };
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::materialize(batch_norm(v, in<N>(weight), in<N>(bias), relu).y);
            },
            [&](const Tensor<double>& dy) {
                const auto both = sums(dy);
                return reference::batch_norm_by_input(dy, out.y, out.mean, out.inverse_std, &both);
            },
            z);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::materialize(batch_norm(in<N>(z), v, in<N>(bias), relu).y);
            },
            [&](const Tensor<double>& dy) { return sums(dy).dweight; }, weight);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::materialize(batch_norm(in<N>(z), in<N>(weight), v, relu).y);
            },
            [&](const Tensor<double>& dy) { return sums(dy).dbias; }, bias);
    }
}

TEST_CASE("batch norm: constant statistics, the gradient is scale times dy") {
    const auto z = random_tensor<double>({2, 3, 1, 2}, 1);
    const Tensor<double> mean(Shape{2}, {0.1, -0.2});
    const Tensor<double> inverse_std(Shape{2}, {2, 0.5});
    const Tensor<double> scale(Shape{2}, {3, -1});
    const Tensor<double> shift(Shape{2}, {0.3, 0.4});
    check_gradient(
        [&]<class N>(const Tensor<N>& v) { return reference::materialize(pending_in(v, scale, shift, true)); },
        [&](const Tensor<double>& dy) {
            return reference::batch_norm_by_input(dy, pending_in(z, scale, shift, true), mean, inverse_std,
                                                  static_cast<const sd::BatchNormSums<double>*>(nullptr));
        },
        z);
}

TEST_CASE("batch norm: one value a channel becomes the bias and passes no gradient") {
    const Tensor<double> z(Shape{1, 1, 1, 2}, {5, -3});
    const Tensor<double> bias(Shape{2}, {0.5, -0.5});
    const auto out = batch_norm(z, Tensor<double>::full({2}, 2.0), bias, false);
    CHECK(relative_error(reference::materialize(out.y), bias.reshape({1, 1, 1, 2})) < 1e-12);
    const Tensor<double> dy(Shape{1, 1, 1, 2}, {7, 11});
    const auto sums = reference::batch_norm_sums(dy, out.y, out.mean, out.inverse_std);
    check_equal(sums.dbias, Tensor<double>(Shape{2}, {7, 11}));
    check_equal(sums.dweight, Tensor<double>(Shape{2}));
    check_equal(reference::batch_norm_by_input(dy, out.y, out.mean, out.inverse_std, &sums), Tensor<double>(z.shape()));
}

TEST_CASE("batch norm: refused shapes") {
    const auto z = random_tensor<double>({2, 2, 2, 3}, 1);
    const Tensor<double> three = Tensor<double>::full({3}, 1.0);
    const Tensor<double> two = Tensor<double>::full({2}, 1.0);
    const Pending<double> y(z, three, three, false);
    CHECK_THROWS_AS((void)reference::batch_norm_sums(two, y, three, three), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::batch_norm_sums(z, y, two, three), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::batch_norm_sums(z, y, three, two), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::batch_norm_sums(z, Pending<double>(z), three, three), std::invalid_argument);
    const sd::BatchNormSums<double> wrong{two, three};
    CHECK_THROWS_AS((void)reference::batch_norm_by_input(z, y, three, three, &wrong), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::batch_norm_by_input(z, y, two, three, nullptr), std::invalid_argument);
}

TEST_CASE("materialize and relu") {
    const Tensor<double> x(Shape{1, 4}, {-2, 0, 3, not_a_number});
    CHECK(reference::materialize(Pending<double>(x)).shares_storage_with(x));
    const auto y = reference::relu_forward(x);
    CHECK(y(0, 0) == 0);
    CHECK(y(0, 1) == 0);
    CHECK(y(0, 2) == 3);
    CHECK(std::isnan(y(0, 3)));
    const Tensor<double> dy(Shape{1, 4}, {1, 2, 4, 8});
    check_equal(reference::relu_by_input(dy, Tensor<double>(Shape{1, 4}, {0, 0, 3, 1})),
                Tensor<double>(Shape{1, 4}, {0, 0, 4, 8}));
    CHECK_THROWS_AS((void)reference::relu_by_input(dy, Tensor<double>(Shape{4})), std::invalid_argument);
    const auto smooth = random_tensor<double>({3, 7}, 1);
    check_gradient(
        []<class N>(const Tensor<N>& v) { return reference::relu_forward(v); },
        [&](const Tensor<double>& d) { return reference::relu_by_input(d, reference::relu_forward(smooth)); }, smooth);
    const auto pending = reference::materialize(Pending<double>(Tensor<double>(Shape{2, 2}, {1, 2, 3, 4}),
                                                                Tensor<double>(Shape{2}, {1, -1}),
                                                                Tensor<double>(Shape{2}, {-2, 3}), true));
    check_equal(pending, Tensor<double>(Shape{2, 2}, {0, 1, 1, 0}));
}

TEST_CASE("residual join: a selection, not a product") {
    const Pending<double> shortcut(Tensor<double>(Shape{3, 1, 1, 1}, {1, -2, 3}));
    const Pending<double> branch(Tensor<double>(Shape{3, 1, 1, 1}, {10, not_a_number, infinity}));
    const std::vector<Index> first_only = {0, -1, -1};
    check_equal(reference::residual_join_forward(shortcut, branch, first_only, 0.5, true),
                Tensor<double>(Shape{3, 1, 1, 1}, {6, 0, 3}));
    check_equal(reference::residual_join_forward(shortcut, branch, first_only, 0.5, false),
                Tensor<double>(Shape{3, 1, 1, 1}, {6, -2, 3}));

    // A branch that ran for two samples, in another order.
    const Pending<double> survivors(Tensor<double>(Shape{2, 1, 1, 1}, {100, 200}));
    const std::vector<Index> swapped = {1, -1, 0};
    check_equal(reference::residual_join_forward(shortcut, survivors, swapped, 1.0, false),
                Tensor<double>(Shape{3, 1, 1, 1}, {201, -2, 103}));

    // A branch that ran for none.
    const Pending<double> nobody(Tensor<double>(Shape{0, 1, 1, 1}));
    const std::vector<Index> dropped = {-1, -1, -1};
    check_equal(reference::residual_join_forward(shortcut, nobody, dropped, 1.0, false), shortcut.raw);

    const Tensor<double> dy(Shape{3, 1, 1, 1}, {1, 2, 4});
    const Tensor<double> y(Shape{3, 1, 1, 1}, {5, 0, 3});
    const auto gradient = reference::residual_join_backward(dy, y, swapped, 3, 0.5, true);
    check_equal(gradient.dshortcut, Tensor<double>(Shape{3, 1, 1, 1}, {1, 0, 4}));
    check_equal(gradient.dbranch, Tensor<double>(Shape{3, 1, 1, 1}, {2, 0.5, 0}));
    const auto linear = reference::residual_join_backward(dy, y, {}, 3, 0.5, false);
    check_equal(linear.dshortcut, dy);
    check_equal(linear.dbranch, Tensor<double>(Shape{3, 1, 1, 1}, {0.5, 1, 2}));
    const auto none = reference::residual_join_backward(dy, y, dropped, 0, 0.5, false);
    CHECK(none.dbranch.shape() == Shape{0, 1, 1, 1});
}

TEST_CASE("residual join: gradients") {
    const auto shortcut = random_tensor<double>({4, 2, 3, 2}, 1);
    const auto branch = random_tensor<double>({3, 2, 3, 2}, 2);
    const auto scale = random_tensor<double>({2}, 3, 0.5, 2);
    const auto shift = random_tensor<double>({2}, 4);
    const std::vector<Index> mask = {2, -1, 0, -1};
    for (const bool relu : {false, true}) {
        CAPTURE(relu);
        const auto y =
            reference::residual_join_forward(Pending<double>(shortcut), Pending<double>(branch), mask, 0.7, relu);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::residual_join_forward(Pending<N>(v), Pending<N>(in<N>(branch)), mask, N(0.7), relu);
            },
            [&](const Tensor<double>& dy) {
                return reference::residual_join_backward(dy, y, mask, 3, 0.7, relu).dshortcut;
            },
            shortcut);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::residual_join_forward(Pending<N>(in<N>(shortcut)), Pending<N>(v), mask, N(0.7), relu);
            },
            [&](const Tensor<double>& dy) {
                return reference::residual_join_backward(dy, y, mask, 3, 0.7, relu).dbranch;
            },
            branch);
        // Pending inputs are what their plain values are.
        const auto pending_shortcut = pending_in(shortcut, scale, shift, true);
        const auto pending_branch = pending_in(branch, shift, scale, false);
        check_equal(
            reference::residual_join_forward(pending_shortcut, pending_branch, mask, 0.7, relu),
            reference::residual_join_forward(Pending<double>(reference::materialize(pending_shortcut)),
                                             Pending<double>(reference::materialize(pending_branch)), mask, 0.7, relu));
    }
}

TEST_CASE("residual join: refused shapes and samples") {
    const Pending<double> shortcut(Tensor<double>(Shape{2, 2, 2, 3}));
    const Pending<double> other_channels(Tensor<double>(Shape{2, 2, 2, 4}));
    const Pending<double> three(Tensor<double>(Shape{3, 2, 2, 3}));
    const std::vector<Index> outside = {0, 3};
    const std::vector<Index> short_list = {0};
    const auto join = [&](const Pending<double>& branch, std::span<const Index> samples) {
        (void)reference::residual_join_forward(shortcut, branch, samples, 1.0, true);
    };
    CHECK_THROWS_AS(join(other_channels, {}), std::invalid_argument);
    CHECK_THROWS_AS(join(three, {}), std::invalid_argument);
    CHECK_THROWS_AS(join(three, outside), std::invalid_argument);
    CHECK_THROWS_AS(join(three, short_list), std::invalid_argument);
    const Tensor<double> y(Shape{2, 2, 2, 3});
    CHECK_THROWS_AS((void)reference::residual_join_backward(three.raw, y, {}, 2, 1.0, true), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::residual_join_backward(y, y, outside, 3, 1.0, true), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::gather_samples(y, outside), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::add_selected(y, three.raw, outside), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::add_selected(y, other_channels.raw, {}), std::invalid_argument);
}

TEST_CASE("gather_samples and add_selected") {
    const Tensor<double> x(Shape{3, 2}, {1, 2, 3, 4, 5, 6});
    const std::vector<Index> kept = {2, 0};
    const auto gathered = reference::gather_samples(x, kept);
    check_equal(gathered, Tensor<double>(Shape{2, 2}, {5, 6, 1, 2}));
    CHECK(reference::gather_samples(x, std::span<const Index>{}).shape() == Shape{0, 2});
    const std::vector<Index> back = {1, -1, 0};
    check_equal(reference::add_selected(x, gathered, back), Tensor<double>(Shape{3, 2}, {2, 4, 3, 4, 10, 12}));
    check_equal(reference::add_selected(x, x, {}), Tensor<double>(Shape{3, 2}, {2, 4, 6, 8, 10, 12}));
    CHECK(x(0, 0) == 1);
}

TEST_CASE("max pooling: by hand, padding is never chosen, ties, NaN") {
    const Tensor<double> x = counting({1, 3, 3, 1});
    const sd::Pool2dOptions options{3, 2, 1};
    check_equal(reference::max_pool2d_forward(Pending<double>(x), options),
                Tensor<double>(Shape{1, 2, 2, 1}, {5, 6, 8, 9}));
    const Tensor<double> negative = Tensor<double>::full({1, 3, 3, 1}, -7.0);
    check_equal(reference::max_pool2d_forward(Pending<double>(negative), options),
                Tensor<double>::full({1, 2, 2, 1}, -7.0));

    const Tensor<double> dy(Shape{1, 2, 2, 1}, {1, 2, 4, 8});
    check_equal(reference::max_pool2d_by_input(dy, Pending<double>(x), options),
                Tensor<double>(Shape{1, 3, 3, 1}, {0, 0, 0, 0, 1, 2, 0, 4, 8}));
    // All equal: the first pixel inside each window.
    check_equal(reference::max_pool2d_by_input(dy, Pending<double>(negative), options),
                Tensor<double>(Shape{1, 3, 3, 1}, {1, 2, 0, 4, 8, 0, 0, 0, 0}));
    // The same pixel in several windows collects from all of them.
    Tensor<double> peak(Shape{1, 3, 3, 1});
    peak(0, 1, 1, 0) = 1;
    check_equal(reference::max_pool2d_by_input(dy, Pending<double>(peak), {2, 1, 0}),
                Tensor<double>(Shape{1, 3, 3, 1}, {0, 0, 0, 0, 15, 0, 0, 0, 0}));

    Tensor<double> poisoned = x.clone();
    poisoned(0, 0, 0, 0) = not_a_number;
    const auto y = reference::max_pool2d_forward(Pending<double>(poisoned), options);
    CHECK(std::isnan(y(0, 0, 0, 0)));
    CHECK(y(0, 0, 1, 0) == 6);
    const Tensor<double> low = Tensor<double>::full({1, 2, 2, 1}, -infinity);
    CHECK(reference::max_pool2d_forward(Pending<double>(low), {2, 2, 0})(0, 0, 0, 0) == -infinity);
}

TEST_CASE("pooling: gradients") {
    const auto x = random_tensor<double>({2, 5, 4, 3}, 1);
    const auto scale = random_tensor<double>({3}, 2, 0.5, 2);
    const auto shift = random_tensor<double>({3}, 3, 2, 3);  // positive: the ReLU makes no ties
    for (const sd::Pool2dOptions options : {sd::Pool2dOptions{2, 2, 0}, {3, 2, 1}, {3, 1, 1}, {2, 3, 1}, {1, 1, 0}}) {
        CAPTURE(options.kernel);
        CAPTURE(options.stride);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::max_pool2d_forward(pending_in(v, scale, shift, true), options);
            },
            [&](const Tensor<double>& dy) {  // by the value, so times the value's derivative by x
                auto dx = reference::max_pool2d_by_input(dy, pending_in(x, scale, shift, true), options);
                for (Index i = 0; i < dx.size(); ++i) dx.data()[i] *= scale(i % 3);
                return dx;
            },
            x);
        check_gradient([&]<class N>(const Tensor<N>& v) { return reference::avg_pool2d_forward(v, options); },
                       [&](const Tensor<double>& dy) { return reference::avg_pool2d_by_input(dy, options, x.shape()); },
                       x);
    }
    check_gradient([&]<class N>(const Tensor<N>& v) { return reference::global_avg_pool_forward(v); },
                   [&](const Tensor<double>& dy) { return reference::global_avg_pool_by_input(dy, x.shape()); }, x);
}

TEST_CASE("average pooling: by hand, padding counts") {
    const Tensor<double> x = counting({1, 3, 3, 1});
    check_equal(reference::avg_pool2d_forward(x, {3, 2, 1}),
                Tensor<double>(Shape{1, 2, 2, 1}, {12 / 9.0, 16 / 9.0, 24 / 9.0, 28 / 9.0}));
    check_equal(reference::avg_pool2d_forward(x, {2, 2, 0}), Tensor<double>(Shape{1, 1, 1, 1}, {3}));
    check_equal(reference::avg_pool2d_by_input(Tensor<double>(Shape{1, 1, 1, 1}, {8}), {2, 2, 0}, x.shape()),
                Tensor<double>(Shape{1, 3, 3, 1}, {2, 2, 0, 2, 2, 0, 0, 0, 0}));
    check_equal(reference::global_avg_pool_forward(counting({1, 2, 2, 2})), Tensor<double>(Shape{1, 2}, {4, 5}));
    check_equal(reference::global_avg_pool_by_input(Tensor<double>(Shape{1, 2}, {4, 8}), {1, 2, 2, 2}),
                Tensor<double>(Shape{1, 2, 2, 2}, {1, 2, 1, 2, 1, 2, 1, 2}));
}

TEST_CASE("pooling: refused shapes") {
    const Tensor<double> x(Shape{1, 4, 4, 2});
    const Tensor<double> bad(Shape{1, 1, 1, 2});
    CHECK_THROWS_AS((void)reference::max_pool2d_forward(Pending<double>(x), {5, 1, 0}), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::max_pool2d_forward(Pending<double>(x), {2, 2, 2}), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::max_pool2d_by_input(bad, Pending<double>(x), {2, 2, 0}), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::max_pool2d_forward(Pending<double>(Tensor<double>(Shape{1, 0, 4, 2})), {2, 2, 1}),
                    std::invalid_argument);
    CHECK_THROWS_AS((void)reference::avg_pool2d_forward(bad, {2, 2, 0}), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::avg_pool2d_by_input(bad, {2, 2, 0}, x.shape()), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::global_avg_pool_forward(Tensor<double>(Shape{2, 2})), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::global_avg_pool_forward(Tensor<double>(Shape{2, 0, 3, 2})), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::global_avg_pool_by_input(Tensor<double>(Shape{1, 3}), x.shape()),
                    std::invalid_argument);
}

TEST_CASE("linear: by hand, gradients, refused shapes") {
    const Tensor<double> x(Shape{2, 3}, {1, 2, 3, 4, 5, 6});
    const Tensor<double> weight(Shape{2, 3}, {1, 0, -1, 2, 2, 2});
    const Tensor<double> bias(Shape{2}, {10, 20});
    check_equal(reference::linear_forward(x, weight, bias), Tensor<double>(Shape{2, 2}, {8, 32, 8, 50}));
    check_gradient(
        [&]<class N>(const Tensor<N>& v) { return reference::linear_forward(v, in<N>(weight), in<N>(bias)); },
        [&](const Tensor<double>& dy) { return reference::linear_by_input(dy, weight); }, x);
    check_gradient([&]<class N>(const Tensor<N>& v) { return reference::linear_forward(in<N>(x), v, in<N>(bias)); },
                   [&](const Tensor<double>& dy) { return reference::linear_by_weight(dy, x); }, weight);
    check_gradient([&]<class N>(const Tensor<N>& v) { return reference::linear_forward(in<N>(x), in<N>(weight), v); },
                   [&](const Tensor<double>& dy) { return reference::linear_by_bias(dy); }, bias);
    CHECK_THROWS_AS((void)reference::linear_forward(x, weight, Tensor<double>(Shape{3})), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::linear_forward(x, Tensor<double>(Shape{2, 4}), bias), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::linear_by_input(x, weight), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::linear_by_weight(Tensor<double>(Shape{3, 2}), x), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::linear_by_bias(bias), std::invalid_argument);
}

TEST_CASE("cross-entropy: by hand") {
    const std::vector<Index> label = {0};
    const Tensor<double> even(Shape{1, 2});
    CHECK(reference::cross_entropy_forward(even, label, 0.0) == doctest::Approx(std::log(2.0)).epsilon(1e-14));
    check_equal(reference::cross_entropy_by_input(even, label, 0.0), Tensor<double>(Shape{1, 2}, {-0.5, 0.5}));

    const Tensor<double> logits(Shape{1, 2}, {std::log(3.0), 0});  // softmax 3/4, 1/4
    CHECK(reference::cross_entropy_forward(logits, label, 0.2) ==
          doctest::Approx(-0.9 * std::log(0.75) - 0.1 * std::log(0.25)).epsilon(1e-14));
    check_equal(reference::cross_entropy_by_input(logits, label, 0.2), Tensor<double>(Shape{1, 2}, {-0.15, 0.15}));

    // The mean over samples, and probabilities that say what the labels say.
    const auto many = random_tensor<double>({3, 4}, 1, -2, 2);
    const std::vector<Index> labels = {3, 0, 2};
    Tensor<double> target(Shape{3, 4});
    double sum = 0;
    for (Index n = 0; n < 3; ++n) {
        const Index one = labels[static_cast<std::size_t>(n)];
        target(n, one) = 1;
        const std::vector<Index> span = {n};
        sum += reference::cross_entropy_forward(reference::gather_samples(many, span), std::span<const Index>(&one, 1),
                                                0.1);
    }
    CHECK(reference::cross_entropy_forward(many, labels, 0.1) == doctest::Approx(sum / 3).epsilon(1e-14));
    CHECK(reference::cross_entropy_forward(many, target, 0.1) ==
          doctest::Approx(reference::cross_entropy_forward(many, labels, 0.1)).epsilon(1e-14));
    check_equal(reference::cross_entropy_by_input(many, target, 0.1),
                reference::cross_entropy_by_input(many, labels, 0.1));
}

TEST_CASE("cross-entropy: gradients, also for targets that do not sum to one") {
    const auto logits = random_tensor<double>({3, 5}, 1, -3, 3);
    const auto target = random_tensor<double>({3, 5}, 2, 0, 1);
    const std::vector<Index> labels = {4, 1, 1};
    for (const double smoothing : {0.0, 0.1, 1.0}) {
        CAPTURE(smoothing);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return scalar(reference::cross_entropy_forward(v, std::span<const Index>(labels), smoothing));
            },
            [&](const Tensor<double>& dy) {
                auto dx = reference::cross_entropy_by_input(logits, labels, smoothing);
                for (double& value : dx) value *= dy(0);
                return dx;
            },
            logits);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return scalar(reference::cross_entropy_forward(v, in<N>(target), smoothing));
            },
            [&](const Tensor<double>& dy) {
                auto dx = reference::cross_entropy_by_input(logits, target, smoothing);
                for (double& value : dx) value *= dy(0);
                return dx;
            },
            logits);
    }
}

TEST_CASE("cross-entropy: large, excluded and refused") {
    const std::vector<Index> label = {1};
    const Tensor<float> large(Shape{1, 2}, {1000, 0});
    CHECK(reference::cross_entropy_forward(large, label, 0.0) == 1000.0F);
    CHECK(reference::cross_entropy_by_input(large, label, 0.0)(0, 0) == 1.0F);
    // A class that is ruled out by a logit of -infinity.
    const Tensor<double> excluded(Shape{1, 3}, {0, 0, -infinity});
    CHECK(reference::cross_entropy_forward(excluded, label, 0.0) == doctest::Approx(std::log(2.0)));
    check_equal(reference::cross_entropy_by_input(excluded, label, 0.0), Tensor<double>(Shape{1, 3}, {0.5, -0.5, 0}));

    const Tensor<double> logits(Shape{1, 3});
    const auto loss = [&](const std::vector<Index>& labels, double smoothing) {
        (void)reference::cross_entropy_forward(logits, labels, smoothing);
    };
    CHECK_NOTHROW(loss({2}, 0));
    CHECK_THROWS_WITH_AS(loss({3}, 0), "cross_entropy_forward: label: got 3, expected 0 to 2", std::invalid_argument);
    CHECK_THROWS_AS(loss({-1}, 0), std::invalid_argument);
    CHECK_THROWS_AS(loss({0, 0}, 0), std::invalid_argument);
    CHECK_THROWS_AS(loss({0}, -0.1), std::invalid_argument);
    CHECK_THROWS_AS(loss({0}, 1.1), std::invalid_argument);
    CHECK_THROWS_AS(loss({0}, not_a_number), std::invalid_argument);
    const std::vector<Index> no_labels;
    CHECK_THROWS_AS((void)reference::cross_entropy_forward(Tensor<double>(Shape{0, 3}), no_labels, 0.0),
                    std::invalid_argument);
    CHECK_THROWS_AS(
        (void)reference::cross_entropy_by_input(Tensor<double>(Shape{1, 3}), Tensor<double>(Shape{1, 2}), 0.0),
        std::invalid_argument);
}
