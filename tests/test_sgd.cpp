// The optimizer, against its formula worked out by hand.
#include "largest_difference.hpp"
#include "random.hpp"

#include "sd/optim/sgd.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace test_sgd {

using sd::Tensor;

namespace {

sd::ParameterPtr<double> parameter(double value) {
    return std::make_shared<sd::Parameter<double>>(Tensor<double>(sd::Shape{1}, {value}));
}

void give(const sd::ParameterPtr<double>& p, double gradient) {
    p->zero_grad();
    p->add_grad(Tensor<double>(sd::Shape{1}, {gradient}));
}

}  // namespace

TEST_CASE("plain, momentum, dampening, Nesterov and weight decay") {
    SUBCASE("plain") {
        const auto w = parameter(1);
        sd::Sgd<double> optimizer({w}, {.learning_rate = 0.5, .weight_decay = 0.1});
        give(w, 2);
        optimizer.step();
        CHECK(w->value(0) == doctest::Approx(1 - 0.5 * 2.1).epsilon(1e-15));
    }
    SUBCASE("momentum and dampening; the first step is not dampened") {
        const auto w = parameter(1);
        sd::Sgd<double> optimizer({w}, {.learning_rate = 0.5, .momentum = 0.9, .dampening = 0.25});
        give(w, 2);
        optimizer.step();
        CHECK(w->value(0) == doctest::Approx(0).epsilon(1e-15));
        give(w, 4);
        optimizer.step();  // v = 0.9 * 2 + 0.75 * 4
        CHECK(w->value(0) == doctest::Approx(-0.5 * 4.8).epsilon(1e-15));
    }
    SUBCASE("Nesterov") {
        const auto w = parameter(1);
        sd::Sgd<double> optimizer({w}, {.learning_rate = 0.5, .momentum = 0.5, .nesterov = true});
        give(w, 2);
        optimizer.step();  // v = 2, direction 2 + 0.5 * 2
        CHECK(w->value(0) == doctest::Approx(-0.5).epsilon(1e-15));
        give(w, 2);
        optimizer.step();  // v = 3, direction 2 + 0.5 * 3
        CHECK(w->value(0) == doctest::Approx(-0.5 - 0.5 * 3.5).epsilon(1e-15));
    }
}

TEST_CASE("every element of a tensor that several threads update, in whole vectors and the rest of one") {
    const sd::Index size = 40003;
    const auto initial = sd_test::random_tensor<double>({size}, 1);
    const auto w = std::make_shared<sd::Parameter<double>>(initial.clone());
    sd::Sgd<double> optimizer({w}, {.learning_rate = 0.5, .momentum = 0.75, .dampening = 0.25, .weight_decay = 0.125});
    std::vector<double> expected(initial.begin(), initial.end());
    std::vector<double> v(expected.size(), 0);
    for (const std::uint64_t step : {0, 1}) {
        const auto dw = sd_test::random_tensor<double>({size}, 2 + step);
        w->zero_grad();
        w->add_grad(dw);
        optimizer.step();
        for (std::size_t i = 0; i < expected.size(); ++i) {
            const double g = dw.data()[i] + 0.125 * expected[i];
            v[i] = step == 0 ? g : 0.75 * v[i] + 0.75 * g;
            expected[i] -= 0.5 * v[i];
        }
    }
    CHECK(sd_test::largest_difference({w->value.begin(), w->value.end()}, expected) < 1e-15);
}

TEST_CASE("a parameter without a gradient is skipped, momentum and weight decay included") {
    const auto w = parameter(1);
    const auto idle = parameter(3);
    sd::Sgd<double> optimizer({w, idle}, {.learning_rate = 0.5, .momentum = 0.5, .weight_decay = 0.1});
    give(w, 2);
    optimizer.step();
    CHECK(idle->value(0) == 3);

    // With momentum built up, a step without a gradient must not move the parameter; afterwards it goes on from there.
    const double after_first = w->value(0);
    optimizer.zero_grad();
    optimizer.step();
    CHECK(w->value(0) == after_first);
    give(w, 0);
    optimizer.step();
    CHECK(w->value(0) == doctest::Approx(after_first - 0.5 * (0.5 * 2.1 + 0.1 * after_first)).epsilon(1e-15));
}

TEST_CASE("gradients add up until they are forgotten") {
    const auto w = parameter(1);
    w->add_grad(Tensor<double>(sd::Shape{1}, {2}));
    w->add_grad(Tensor<double>(sd::Shape{1}, {3}));
    CHECK(w->grad(0) == 5);
    CHECK_THROWS_AS(w->add_grad(Tensor<double>(sd::Shape{2})), std::invalid_argument);
    w->zero_grad();
    CHECK_FALSE(w->has_grad);
}

TEST_CASE("settings outside their ranges are refused and change nothing") {
    const auto w = parameter(1);
    sd::Sgd<double> optimizer({w}, {.learning_rate = 0.5});
    CHECK_THROWS_AS(optimizer.set_learning_rate(-1), std::invalid_argument);
    CHECK_THROWS_AS(optimizer.set_learning_rate(std::numeric_limits<double>::quiet_NaN()), std::invalid_argument);
    CHECK(optimizer.options().learning_rate == 0.5);
    CHECK_THROWS_AS(sd::Sgd<double>({w}, {.momentum = -0.1}), std::invalid_argument);
    CHECK_THROWS_AS(sd::Sgd<double>({w}, {.weight_decay = -0.1}), std::invalid_argument);
    CHECK_THROWS_AS(sd::Sgd<double>({w}, {.nesterov = true}), std::invalid_argument);
    CHECK_THROWS_AS(sd::Sgd<double>({w}, {.momentum = 0.9, .dampening = 0.1, .nesterov = true}), std::invalid_argument);
    CHECK_THROWS_AS(sd::Sgd<double>({nullptr}), std::invalid_argument);
    CHECK(optimizer.holds(w.get()));
    CHECK_FALSE(optimizer.holds(parameter(1).get()));
}

TEST_CASE("an optimizer that loads another's state goes on as the other does") {
    const auto named = [](const std::string& name, double value) {
        auto result = parameter(value);
        result->name = name;
        return result;
    };
    const sd::SgdOptions options{.learning_rate = 0.5, .momentum = 0.9, .dampening = 0.25};
    const auto w = named("w", 1);
    const auto idle = named("idle", 3);
    sd::Sgd<double> optimizer({w, idle}, options);
    CHECK(optimizer.state_dict().empty());
    give(w, 2);
    optimizer.step();
    const sd::OptimizerState<double> state = optimizer.state_dict();
    REQUIRE(state.size() == 1);  // idle took no step
    CHECK(state.at("w.momentum_buffer")(0) == 2);

    const auto other_w = named("w", w->value(0));
    const auto other_idle = named("idle", 3);
    sd::Sgd<double> other({other_idle, other_w}, options);
    give(other_idle, 7);
    other.step();
    other_idle->value.data()[0] = 3;
    other.load_state_dict(state);
    CHECK(other.state_dict().size() == 1);  // idle is before its first step again, which is not dampened
    for (const auto& [own, copy] : {std::pair(w, other_w), std::pair(idle, other_idle)}) {
        give(own, 4);
        give(copy, 4);
    }
    optimizer.step();
    other.step();
    CHECK(w->value(0) == doctest::Approx(-0.5 * 4.8).epsilon(1e-15));
    CHECK(other_w->value(0) == w->value(0));
    CHECK(idle->value(0) == doctest::Approx(3 - 0.5 * 4).epsilon(1e-15));
    CHECK(other_idle->value(0) == idle->value(0));

    SUBCASE("state that does not fit changes nothing") {
        sd::OptimizerState<double> unfit{{"idle.momentum_buffer", Tensor<double>(sd::Shape{1}, {9})},
                                         {"w.momentum_buffer", Tensor<double>(sd::Shape{2})}};
        CHECK_THROWS_WITH_AS(optimizer.load_state_dict(unfit, "file"),
                             "file: w.momentum_buffer: shape: got (2), expected (1)", std::runtime_error);
        unfit = {{"idle.momentum_buffer", Tensor<double>(sd::Shape{1}, {9})}, {"v", Tensor<double>(sd::Shape{1})}};
        CHECK_THROWS_WITH_AS(optimizer.load_state_dict(unfit, "file"), doctest::Contains("got v,"), std::runtime_error);
        CHECK(optimizer.state_dict().at("idle.momentum_buffer")(0) == 4);
    }
    SUBCASE("state needs names, each once") {
        CHECK_THROWS_AS((void)sd::Sgd<double>({parameter(1)}).state_dict(), std::invalid_argument);
        CHECK_THROWS_AS((void)sd::Sgd<double>({w, named("w", 2)}).state_dict(), std::invalid_argument);
    }
}

}  // namespace test_sgd
