// Schedules, policies and the stochastic residual block. Masks have test_masks.cpp.
#include "messages.hpp"
#include "model_state.hpp"
#include "random.hpp"
#include "toy_branches.hpp"
#include "use_tile_machine.hpp"

#include "sd/models/resnet_variants.hpp"
#include "sd/stochastic_depth/surgery.hpp"
#include "sd/optim/sgd.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

namespace test_stochastic_depth {

using sd::Index;
using sd::Tensor;
using sd_test::contains;
using sd_test::message_of;
using sd_test::random_tensor;
using sd_test::ScaleBranch;
using sd_test::state_of;

namespace {

template <class Policy>
using ScaleBlock = sd::StochasticResidual<ScaleBranch<double>, Policy>;

sd::Context train(std::uint64_t step) { return sd::Context::train({.step = step, .seed = sd_test::seed}); }

// What is not a branch is told so at once.
struct WithoutBackward {
    using value_type = double;
    Tensor<double> forward(const Tensor<double>& x, const sd::Context&) { return x; }
    template <class Visitor>
    void visit(Visitor&&) {}
};
static_assert(sd::ResidualBranch<ScaleBranch<double>>);
static_assert(!sd::ResidualBranch<WithoutBackward>);
static_assert(!sd::ResidualBranch<int>);

// y_n = relu(x_n + m_n c w x_n), from the formula.
Tensor<double> expected_join(const Tensor<double>& x, const sd::Mask& mask, double factor) {
    Tensor<double> y(x.shape());
    const Index slab = x.size() / x.extent(0);
    for (Index i = 0; i < x.size(); ++i) {
        const double branch = mask[static_cast<std::size_t>(i / slab)] ? factor * x.data()[i] : 0;
        y.data()[i] = std::max(0.0, x.data()[i] + branch);
    }
    return y;
}

// Sends back a gradient with a row too many.
struct TooLargeGradient {
    using value_type = double;
    Tensor<double> forward(const Tensor<double>& x, const sd::Context&) { return x; }
    Tensor<double> backward(const Tensor<double>& dy) {
        return Tensor<double>({dy.extent(0), dy.extent(1) + 1, dy.extent(2), dy.extent(3)});
    }
    template <class Visitor>
    void visit(Visitor&&) {}
};

template <class T>
auto pointwise_branch(Index channels) {
    sd::Initializer initializer(3);
    return sd::Sequential{sd::named("conv", sd::Conv2d<T>(channels, channels, 1, {}, initializer))};
}

}  // namespace

TEST_CASE("drop rates follow the distribution's formula") {
    using enum sd::DropDistribution;
    CHECK(sd::drop_rate_of_block(uniform, 0.3, 2, 5) == 0.3);
    CHECK(sd::drop_rate_of_block(linear, 0.4, 0, 5) == 0.0);
    CHECK(sd::drop_rate_of_block(linear, 0.4, 1, 5) == doctest::Approx(0.1).epsilon(1e-15));
    CHECK(sd::drop_rate_of_block(linear, 0.4, 4, 5) == 0.4);
    CHECK(sd::drop_rate_of_block(linear, 0.4, 0, 1) == 0.4);
    CHECK(sd::drop_rate_of_block(linear_huang, 0.5, 0, 5) == doctest::Approx(0.1).epsilon(1e-15));
    CHECK(sd::drop_rate_of_block(linear_huang, 0.5, 4, 5) == 0.5);
    // i/L with the product first: torchvision's bits, which r (i/L) has not
    const auto efficientnet = sd::DropDistribution::linear_efficientnet;
    CHECK(sd::drop_rate_of_block(efficientnet, 0.2, 0, 16) == 0);
    CHECK(sd::drop_rate_of_block(efficientnet, 0.2, 14, 16) == 0.2 * 14 / 16);
    CHECK(sd::drop_rate_of_block(efficientnet, 0.2, 3, 40) == 0.015000000000000003);
    CHECK(sd::drop_rate_of_block(efficientnet, 0.2, 0, 1) == 0);
    CHECK_THROWS_AS((void)sd::drop_rate_of_block(linear, 1.1, 0, 5), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::drop_rate_of_block(linear, 0.5, 5, 5), std::invalid_argument);
}

TEST_CASE("sample-wise training selects the kept samples") {
    const double weight = 0.75;
    for (const auto scaling : {sd::Scaling::inference, sd::Scaling::train}) {
        ScaleBlock<sd::SamplePolicy> block(ScaleBranch<double>(weight), {.drop_rate = 0.5, .scaling = scaling});
        const Tensor<double> x = random_tensor<double>({16, 2, 2, 3}, 1);
        const Tensor<double> y = block.forward(x, train(0));
        const Index kept = std::count(block.mask().begin(), block.mask().end(), 1);
        REQUIRE(kept > 0);
        REQUIRE(kept < 16);
        const double factor = weight * (scaling == sd::Scaling::train ? 2.0 : 1.0);
        CHECK(sd_test::relative_error(y, expected_join(x, block.mask(), factor)) < 1e-14);

        const Tensor<double> evaluated = block.forward(x, sd::Context::eval());
        const double survival = weight * (scaling == sd::Scaling::train ? 1.0 : 0.5);
        CHECK(sd_test::relative_error(evaluated, expected_join(x, sd::Mask(16, 1), survival)) < 1e-14);
    }
}

TEST_CASE("survivors computes kept samples only and gives the same sum") {
    ScaleBlock<sd::SamplePolicy> block(ScaleBranch<double>(0.5), {.drop_rate = 0.5, .compute = sd::Compute::survivors});
    const Tensor<double> x = random_tensor<double>({12, 2, 2, 3}, 2);
    const Tensor<double> y = block.forward(x, train(1));
    const Index kept = std::count(block.mask().begin(), block.mask().end(), 1);
    REQUIRE(kept > 0);
    REQUIRE(kept < 12);
    CHECK(block.branch().seen().extent(0) == kept);
    CHECK(sd_test::relative_error(y, expected_join(x, block.mask(), 0.5)) < 1e-14);

    // dx_n = g_n (1 + m_n w): through the shortcut and, where kept, through the branch
    const Tensor<double> dy = random_tensor<double>(x.shape(), 3);
    const Tensor<double> dx = block.backward(dy);
    Tensor<double> expected(x.shape());
    double dweight = 0;
    for (Index i = 0; i < x.size(); ++i) {
        const double g = y.data()[i] > 0 ? dy.data()[i] : 0;
        const double m = block.mask()[static_cast<std::size_t>(i / 12)];
        expected.data()[i] = g * (1 + 0.5 * m);
        dweight += m * g * x.data()[i];
    }
    CHECK(sd_test::relative_error(dx, expected) < 1e-14);
    CHECK(block.branch().weight()->grad(0) == doctest::Approx(dweight).epsilon(1e-13));
}

TEST_CASE("with no survivor the branch does not run and its parameters get no gradient") {
    for (const auto skipped : {sd::SkippedGradient::none, sd::SkippedGradient::zero}) {
        ScaleBlock<sd::SamplePolicy> block(
            ScaleBranch<double>(0.5), {.drop_rate = 1, .compute = sd::Compute::survivors, .skipped_gradient = skipped});
        const Tensor<double> x = random_tensor<double>({4, 2, 2, 3}, 4);
        const Tensor<double> y = block.forward(x, train(0));
        CHECK(block.branch().runs == 0);
        CHECK(sd_test::relative_error(y, expected_join(x, sd::Mask(4, 0), 0)) == 0);
        (void)block.backward(y);
        CHECK(block.branch().weight()->has_grad == (skipped == sd::SkippedGradient::zero));
        if (skipped == sd::SkippedGradient::zero) CHECK(block.branch().weight()->grad(0) == 0);
    }
}

TEST_CASE("a dropped block is its input, the same elements") {
    ScaleBlock<sd::BlockPolicy> block(ScaleBranch<double>(0.5), {.drop_rate = 1});
    const Tensor<double> x = random_tensor<double>({4, 2, 2, 3}, 5);
    const Tensor<double> y = block.forward(x, train(0));
    CHECK(y.shares_storage_with(x));
    CHECK(block.branch().runs == 0);
    const Tensor<double> dy = random_tensor<double>(x.shape(), 6);
    CHECK(block.backward(dy).shares_storage_with(dy));
    CHECK_FALSE(block.branch().weight()->has_grad);
}

TEST_CASE("a branch that did not run keeps its statistics and its parameters, through momentum and weight decay too") {
    for (const auto skipped : {sd::SkippedGradient::none, sd::SkippedGradient::zero}) {
        for (const bool is_block : {true, false}) {
            sd::Initializer initializer(3);
            sd::AnyPolicy policy = sd::BlockPolicy{.drop_rate = 0.5, .skipped_gradient = skipped};
            if (!is_block) {
                policy =
                    sd::SamplePolicy{.drop_rate = 0.5, .compute = sd::Compute::survivors, .skipped_gradient = skipped};
            }
            sd::StochasticResidual<sd::BasicBlock<double>> block(
                sd::BasicBlock<double>({.in_channels = 3, .planes = 3}, initializer), policy);
            sd::ParameterList<double> parameters;
            sd::for_each_parameter(block, [&](const std::string&, auto& one) { parameters.push_back(one); });
            sd::Sgd<double> optimizer(parameters, {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.1});
            const Tensor<double> x = random_tensor<double>({2, 4, 4, 3}, 11);
            const auto step = [&](const sd::Mask& mask) {
                block.set_mask(mask);
                optimizer.zero_grad();
                (void)block.forward(x, train(0));
                (void)block.backward(x);
                optimizer.step();
            };
            const auto start = state_of(block);
            step({1, 1});  // fills momentum
            const auto trained = state_of(block);
            CHECK(trained != start);
            step({0, 0});
            CHECK((state_of(block) == trained) == (skipped == sd::SkippedGradient::none));
        }
    }
}

TEST_CASE("a kept block is not its input") {
    ScaleBlock<sd::BlockPolicy> block(ScaleBranch<double>(0.5), {.drop_rate = 0});
    const Tensor<double> x = random_tensor<double>({4, 2, 2, 3}, 5);
    const Tensor<double> y = block.forward(x, train(0));
    CHECK_FALSE(y.shares_storage_with(x));
    CHECK(sd_test::relative_error(y, expected_join(x, sd::Mask(4, 1), 0.5)) < 1e-14);
}

TEST_CASE("sample-wise p = 1 returns a rectified input exactly, with either scaling") {
    for (const auto scaling : {sd::Scaling::inference, sd::Scaling::train}) {
        ScaleBlock<sd::SamplePolicy> block(ScaleBranch<double>(std::numeric_limits<double>::quiet_NaN()),
                                           {.drop_rate = 1, .scaling = scaling});
        const Tensor<double> x = random_tensor<double>({4, 2, 2, 3}, 7, 0, 1);
        const Tensor<double> y = block.forward(x, train(0));
        CHECK(std::equal(x.begin(), x.end(), y.begin()));  // NaN in a dropped branch does not matter
    }
}

TEST_CASE("masks can be given") {
    ScaleBlock<sd::SamplePolicy> block(ScaleBranch<double>(0.5), {.drop_rate = 0.5});
    const Tensor<double> x = random_tensor<double>({4, 2, 2, 3}, 8);
    block.set_mask(sd::Mask{1, 0, 0, 1});
    const Tensor<double> y = block.forward(x, train(0));
    CHECK(sd_test::relative_error(y, expected_join(x, {1, 0, 0, 1}, 0.5)) < 1e-14);
    CHECK_THROWS_AS(block.set_mask(sd::Mask{2, 0, 0, 1}), std::invalid_argument);
    block.set_mask(sd::Mask{1, 0});
    CHECK(contains(message_of([&] { (void)block.forward(x, train(0)); }), "given mask"));
    block.set_mask(std::nullopt);
    (void)block.forward(x, train(0));
    CHECK(block.mask() == block.policy().draw(train(0), 0, 4));

    ScaleBlock<sd::BlockPolicy> whole(ScaleBranch<double>(0.5), {.drop_rate = 0.5});
    CHECK_THROWS_AS(whole.set_mask(sd::Mask{1, 0, 1, 1}), std::invalid_argument);
}

TEST_CASE("the activation is a parameter of the block") {
    struct Negate {
        Tensor<double> forward(const Tensor<double>& x, const sd::Context&) {
            Tensor<double> y = x.clone();
            for (double& value : y) value = -value;
            return y;
        }
        Tensor<double> backward(const Tensor<double>& dy) { return forward(dy, sd::Context::eval()); }
    };
    const Tensor<double> x = random_tensor<double>({2, 2, 2, 3}, 9);
    Tensor<double> sum = x.clone();
    for (double& value : sum) value *= 1.5;

    sd::StochasticResidual<ScaleBranch<double>, sd::KeepAllPolicy, sd::NoActivation> none(ScaleBranch<double>(0.5));
    CHECK(sd_test::relative_error(none.forward(x, train(0)), sum) < 1e-15);
    CHECK(sd_test::relative_error(none.backward(x), sum) < 1e-15);

    sd::StochasticResidual<ScaleBranch<double>, sd::KeepAllPolicy, Negate> user(ScaleBranch<double>(0.5));
    for (double& value : sum) value = -value;
    CHECK(sd_test::relative_error(user.forward(x, train(0)), sum) < 1e-15);
    CHECK(sd_test::relative_error(user.backward(x), sum) < 1e-15);
}

TEST_CASE("the two gradients by a block's input are added before either is rounded") {
    const sd_test::UseTileMachine floats(nullptr);
    using T = sd::bfloat16;
    constexpr Index channels = 24;
    sd::StochasticResidual<decltype(pointwise_branch<T>(channels)), sd::SamplePolicy, sd::NoActivation> block(
        pointwise_branch<T>(channels), {.drop_rate = 0.5});
    const auto x = random_tensor<T>({4, 9, 8, channels}, 4);
    const auto dy = random_tensor<T>(x.shape(), 5);
    block.set_mask(sd::Mask{1, 0, 1, 1});
    (void)block.forward(x, train(0));
    const Tensor<T> dx = block.backward(dy);
    const Tensor<float> weight = block.branch().layer<0>().weight()->value;
    for (Index pixel = 0; pixel < x.size() / channels; ++pixel) {
        const bool kept = pixel / (x.size() / channels / 4) != 1;
        for (Index i = 0; i < channels; ++i) {
            double expected = static_cast<double>(float(dy.data()[pixel * channels + i]));
            for (Index o = 0; kept && o < channels; ++o) {
                expected += static_cast<double>(weight(o, i, 0, 0)) *
                            static_cast<double>(float(dy.data()[pixel * channels + o]));
            }
            const auto got = static_cast<double>(float(dx.data()[pixel * channels + i]));
            CHECK(std::abs(got - expected) <= std::abs(expected) / 256 + 1e-6);  // 8 bits
        }
    }
}

TEST_CASE("a shortcut's gradient of another shape than the block's input is refused") {
    sd::StochasticResidual<decltype(pointwise_branch<double>(3)), sd::KeepAllPolicy, sd::NoActivation, TooLargeGradient>
        block(pointwise_branch<double>(3));
    const auto x = random_tensor<double>({2, 4, 4, 3}, 4);
    (void)block.forward(x, train(0));
    CHECK(contains(message_of([&] { (void)block.backward(x); }), "the shortcut's gradient: got (2, 5, 4, 3)"));
}

TEST_CASE("a block without a forward pass that keeps gradients refuses backward") {
    ScaleBlock<sd::SamplePolicy> block(ScaleBranch<double>(0.5), {.drop_rate = 0.5});
    const Tensor<double> x = random_tensor<double>({2, 2, 2, 3}, 10);
    CHECK_THROWS_AS((void)block.backward(x), std::logic_error);
    (void)block.forward(x, sd::Context::eval());
    CHECK_THROWS_AS((void)block.backward(x), std::logic_error);
}

TEST_CASE("rates outside [0, 1] are refused, naming setting, value and range") {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (const double rate : {-0.5, 1.7, nan, std::numeric_limits<double>::infinity()}) {
        const auto message =
            message_of([&] { ScaleBlock<sd::SamplePolicy>(ScaleBranch<double>(1), {.drop_rate = rate}); });
        CHECK(contains(message, "drop_rate"));
        CHECK(contains(message, "from 0 to 1"));
        auto model = sd::cifar_bottleneck_resnet<float>(11);
        CHECK_THROWS_AS(sd::apply_stochastic_depth(model, {.drop_rate = rate}), std::invalid_argument);
        CHECK_FALSE(model.blocks()[0].policy().is_stochastic());
    }
    CHECK(
        contains(message_of([] { ScaleBlock<sd::SamplePolicy>(ScaleBranch<double>(1), {.drop_rate = 1.7}); }), "1.7"));
}

}  // namespace test_stochastic_depth
