// The reference kernels of pooling: numbers worked out by hand, and every backward against its forward.
#include "kernel_gradient.hpp"

#include "sd/reference/pooling.hpp"

#include <cmath>
#include <span>
#include <stdexcept>
#include <vector>

namespace test_reference_pooling {

namespace reference = sd::reference;

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
                return reference::max_pool2d_forward(pending_in(v, scale, shift, sd::Activation::relu), options);
            },
            [&](const Tensor<double>& dy) {  // by the value, so times the value's derivative by x
                auto dx =
                    reference::max_pool2d_by_input(dy, pending_in(x, scale, shift, sd::Activation::relu), options);
                for (Index i = 0; i < dx.size(); ++i) dx.data()[i] *= scale(i % 3);
                return dx;
            },
            x);
        check_gradient([&]<class N>(const Tensor<N>& v) { return reference::avg_pool2d_forward(v, options); },
                       [&](const Tensor<double>& dy) { return reference::avg_pool2d_by_input(dy, options, x.shape()); },
                       x);
    }
    check_gradient([&]<class N>(const Tensor<N>& v) { return reference::global_avg_pool_forward<N>(v); },
                   [&](const Tensor<double>& dy) { return reference::global_avg_pool_by_input(dy, x.shape()); }, x);
}

TEST_CASE("average pooling: by hand, padding counts") {
    const Tensor<double> x = counting({1, 3, 3, 1});
    check_equal(reference::avg_pool2d_forward(x, {3, 2, 1}),
                Tensor<double>(Shape{1, 2, 2, 1}, {12 / 9.0, 16 / 9.0, 24 / 9.0, 28 / 9.0}));
    check_equal(reference::avg_pool2d_forward(x, {2, 2, 0}), Tensor<double>(Shape{1, 1, 1, 1}, {3}));
    check_equal(reference::avg_pool2d_by_input(Tensor<double>(Shape{1, 1, 1, 1}, {8}), {2, 2, 0}, x.shape()),
                Tensor<double>(Shape{1, 3, 3, 1}, {2, 2, 0, 2, 2, 0, 0, 0, 0}));
    check_equal(reference::global_avg_pool_forward<double>(counting({1, 2, 2, 2})),
                Tensor<double>(Shape{1, 2}, {4, 5}));
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
    CHECK_THROWS_AS((void)reference::global_avg_pool_forward<double>(Tensor<double>(Shape{2, 2})),
                    std::invalid_argument);
    CHECK_THROWS_AS((void)reference::global_avg_pool_forward<double>(Tensor<double>(Shape{2, 0, 3, 2})),
                    std::invalid_argument);
    CHECK_THROWS_AS((void)reference::global_avg_pool_by_input(Tensor<double>(Shape{1, 3}), x.shape()),
                    std::invalid_argument);
}

}  // namespace test_reference_pooling
