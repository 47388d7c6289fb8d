// Gradients over ranks: which are summed, that they are, and what is refused.
#include <doctest/doctest.h>

#include "random.hpp"
#include "ranks.hpp"

#include "sd/train/gradient_sum.hpp"

namespace test_gradient_sum {

namespace {

using sd::Index;
using Parameters = sd::ParameterList<float>;

const std::vector<Index> sizes{3, 1, 700, 12, 64, 5};

Parameters make_parameters() {
    Parameters parameters;
    for (const Index size : sizes) {
        parameters.push_back(std::make_shared<sd::Parameter<float>>(sd::Tensor<float>(sd::Shape{size})));
        parameters.back()->name = sd::text("parameter ", parameters.size() - 1);
    }
    return parameters;
}

sd::Tensor<float> gradient_of(Index rank, std::size_t i) {
    return sd_test::random_tensor<float>({sizes[i]}, 1000 + 10 * i + static_cast<std::size_t>(rank));
}

/// A backward pass: from the last parameter to the first, none for number 2, zeros from odd ranks for number 3.
void backward(const Parameters& parameters) {
    const Index rank = sd_test::ranks().rank();
    for (std::size_t i = parameters.size(); i-- > 0;) {
        if (i == 2) {
            parameters[i]->skip_grad();
        } else {
            parameters[i]->add_grad(i == 3 && rank % 2 == 1 ? sd::Tensor<float>(sd::Shape{sizes[i]})
                                                            : gradient_of(rank, i));
        }
    }
}

TEST_CASE("gradients become their sums, with the same bits for any bucket size, with overlap and without") {
    sd::Communicator& ranks = sd_test::ranks();
    for (const Index bucket_bytes : {1, 20, 300, 1 << 20}) {
        for (const bool overlap : {false, true}) {
            const Parameters parameters = make_parameters();
            sd::GradientSum<float> sum(parameters, ranks, {.bucket_bytes = bucket_bytes, .overlap = overlap});
            for (int step = 0; step < 2; ++step) {
                for (const auto& parameter : parameters) parameter->zero_grad();
                sum.run([&] { backward(parameters); });
                for (std::size_t i = 0; i < parameters.size(); ++i) {
                    CAPTURE(i);
                    CHECK(parameters[i]->has_grad == (i != 2));
                    if (i == 2) continue;
                    sd::Tensor<float> expected = gradient_of(0, i);
                    for (Index rank = 1; rank < ranks.size(); ++rank) {
                        if (i == 3 && rank % 2 == 1) continue;
                        const sd::Tensor<float> term = gradient_of(rank, i);
                        for (Index k = 0; k < expected.size(); ++k) expected(k) += term(k);
                    }
                    CHECK(std::equal(expected.begin(), expected.end(), parameters[i]->grad.begin()));
                }
            }
        }
    }
}

TEST_CASE("microbatches add up before the last backward pass sends their gradients") {
    sd::Communicator& ranks = sd_test::ranks();
    const Parameters parameters = make_parameters();
    sd::GradientSum<float> sum(parameters, ranks);
    backward(parameters);
    sum.run([&] { backward(parameters); });
    float expected = 0;
    for (Index rank = 0; rank < ranks.size(); ++rank) expected += 2 * gradient_of(rank, 1)(0);
    CHECK(parameters[1]->grad(0) == doctest::Approx(expected));
}

TEST_CASE("a gradient that changes after it was sent is refused, and taken without overlap") {
    sd::Communicator& ranks = sd_test::ranks();
    for (const bool overlap : {false, true}) {
        const Parameters parameters = make_parameters();
        sd::GradientSum<float> sum(parameters, ranks, {.bucket_bytes = 1, .overlap = overlap});
        bool refused = false;
        sum.run([&] {
            backward(parameters);
            try {
                parameters[5]->add_grad(gradient_of(ranks.rank(), 5));
            } catch (const std::logic_error&) {
                refused = true;
            }
        });
        CHECK(refused == (overlap && ranks.size() > 1));
    }
    CHECK_THROWS_AS(sd::GradientSum<float>(make_parameters(), ranks, {.bucket_bytes = 0}), std::invalid_argument);
}

TEST_CASE("an exception in backward comes out") {
    const Parameters parameters = make_parameters();
    sd::GradientSum<float> sum(parameters, sd_test::ranks());
    CHECK_THROWS_AS(sum.run([] { throw std::runtime_error("backward"); }), std::runtime_error);
}

TEST_CASE("parameters are let go") {
    const Parameters parameters = make_parameters();
    { const sd::GradientSum<float> sum(parameters, sd_test::ranks()); }
    for (const auto& parameter : parameters) CHECK(!parameter->on_backward);
}

}  // namespace

}  // namespace test_gradient_sum
