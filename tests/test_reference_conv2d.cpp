// The reference kernels of convolution: numbers worked out by hand, and every backward against its forward.
#include "kernel_gradient.hpp"

#include "sd/reference/conv2d.hpp"

#include <cmath>
#include <span>
#include <stdexcept>
#include <vector>

namespace test_reference_conv2d {

namespace reference = sd::reference;

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
    check_equal(reference::conv2d_by_input<double>(dy, weight, {}, x.shape()),
                Tensor<double>(Shape{1, 3, 3, 1}, {1, 3, 2, 4, 10, 6, 3, 7, 4}));
    check_equal(reference::conv2d_by_weight<double>(Pending<double>(x), dy, {}, weight.shape()),
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
                            Tensor<double>(Shape{1}, {7}), sd::Activation::none);
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
            [&](const Tensor<double>& dy) { return reference::conv2d_by_input<double>(dy, weight, options, x_shape); },
            x);
        check_gradient(
            [&]<class N>(const Tensor<N>& w) {
                return reference::conv2d_forward(pending_in(in<N>(x), scale, shift, sd::Activation::relu), w, options);
            },
            [&](const Tensor<double>& dy) {
                return reference::conv2d_by_weight<double>(pending_in(x, scale, shift, sd::Activation::relu), dy,
                                                           options, weight_shape);
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
    check_equal(reference::conv2d_by_weight<double>(none, y, {}, weight.shape()), Tensor<double>(weight.shape()));

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
    CHECK_THROWS_AS((void)reference::conv2d_by_input<double>(bad_dy, weight, {}, {1, 5, 5, 2}), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::conv2d_by_weight<double>(x, bad_dy, {}, weight.shape()), std::invalid_argument);
}

}  // namespace test_reference_conv2d
