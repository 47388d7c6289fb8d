// The reference kernels of the linear layer and cross-entropy: numbers worked out by hand, and every backward against
// its forward.
#include "kernel_gradient.hpp"

#include "sd/reference/cross_entropy.hpp"
#include "sd/reference/linear.hpp"
#include "sd/reference/residual_join.hpp"

#include <cmath>
#include <span>
#include <stdexcept>
#include <vector>

namespace test_reference_linear_and_loss {

namespace reference = sd::reference;

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

}  // namespace test_reference_linear_and_loss
