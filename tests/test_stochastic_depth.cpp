// Schedules, masks, policies and the stochastic residual block.
#include "messages.hpp"
#include "random.hpp"

#include "sd/stochastic_depth/resnet_models.hpp"
#include "sd/stochastic_depth/surgery.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

using sd::Index;
using sd::Tensor;
using sd_test::contains;
using sd_test::message_of;
using sd_test::random_tensor;

namespace {

// F(x) = weight x: its gradients are known, and it tells how often and on what it ran.
template <class T>
class ScaleBranch {
public:
    explicit ScaleBranch(T weight) : weight_(std::make_shared<sd::Parameter<T>>(Tensor<T>(sd::Shape{1}, {weight}))) {}

    Tensor<T> forward(const Tensor<T>& x, const sd::Context&) {
        x_ = x.clone();
        ++runs;
        Tensor<T> y = x.clone();
        for (T& value : y) value *= weight_->value(0);
        return y;
    }
    Tensor<T> backward(const Tensor<T>& dy) {
        Tensor<T> dweight(sd::Shape{1});
        Tensor<T> dx = dy.clone();
        for (Index i = 0; i < dy.size(); ++i) dweight(0) += dy.data()[i] * x_.data()[i];
        for (T& value : dx) value *= weight_->value(0);
        weight_->add_grad(dweight);
        return dx;
    }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("weight", weight_);
    }

    const sd::ParameterPtr<T>& weight() const { return weight_; }
    const Tensor<T>& seen() const { return x_; }
    int runs = 0;

private:
    sd::ParameterPtr<T> weight_;
    Tensor<T> x_;
};

template <class Policy>
using ScaleBlock = sd::StochasticResidual<ScaleBranch<double>, Policy>;

sd::Context train(std::uint64_t step, std::uint64_t offset = 0, std::uint32_t rank = 0) {
    return sd::Context::train({.step = step, .seed = sd_test::seed, .sample_offset = offset, .rank = rank});
}

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

// P(|X - n p| >= |observed - n p|) for X ~ Binomial(n, p), by summing its probabilities.
double binomial_p_value(int trials, double p, int observed) {
    double log_choose = 0;
    double total = 0;
    const double distance = std::abs(observed - trials * p) - 1e-9;
    for (int k = 0; k <= trials; ++k) {
        if (k > 0) log_choose += std::log(trials - k + 1.0) - std::log(static_cast<double>(k));
        if (std::abs(k - trials * p) >= distance)
            total += std::exp(log_choose + k * std::log(p) + (trials - k) * std::log(1 - p));
    }
    return total;
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
    CHECK_THROWS_AS((void)sd::drop_rate_of_block(linear, 1.1, 0, 5), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::drop_rate_of_block(linear, 0.5, 5, 5), std::invalid_argument);
}

TEST_CASE("the drop threshold is the smallest integer that is not below p 2^24") {
    CHECK(sd::drop_threshold(0) == 0);
    CHECK(sd::drop_threshold(1) == (1U << 24));
    CHECK(sd::drop_threshold(0.5) == (1U << 23));
    CHECK(sd::drop_threshold(0x1p-24) == 1);
    CHECK(sd::drop_threshold(0x1p-25) == 1);
    CHECK(sd::drop_threshold(std::numeric_limits<double>::denorm_min()) == 1);
    CHECK(sd::drop_threshold(std::nextafter(1.0, 0.0)) == (1U << 24));
}

TEST_CASE("a mask is the binding function of seed, step, block and sample") {
    // key = (seed low, seed high), counter = (index, block, step low, step high << 8 | tag)
    const std::uint64_t seed = 0x123456789abcdef0ULL;
    const std::uint64_t step = 0x00c0ffee00000007ULL;
    const sd::PhiloxCounter words = sd::philox4x32_10({5, 3, 7U, 0x00c0ffeeU << 8}, {0x9abcdef0U, 0x12345678U});
    for (const double p : {0.1, 0.5, 0.9}) {
        const bool keep = (words[0] >> 8) >= static_cast<std::uint32_t>(std::ceil(p * 16777216.0));
        CHECK(sd::keeps_branch(p, seed, step, 3, 5) == keep);
    }
    const double at_the_word = (words[0] >> 8) * 0x1p-24;
    CHECK(sd::keeps_branch(at_the_word, seed, step, 3, 5));
    CHECK_FALSE(sd::keeps_branch(std::nextafter(at_the_word, 1.0), seed, step, 3, 5));
}

TEST_CASE("masks have the right rate for both policies") {
    for (const double p : {0.2, 0.5, 0.8}) {
        for (std::uint64_t seed = 0; seed < 10; ++seed) {
            int block_kept = 0;
            for (std::uint64_t step = 0; step < 250; ++step) {
                block_kept +=
                    sd::BlockPolicy{.drop_rate = p}.draw(sd::Context::train({.step = step, .seed = seed}), 0, 4)[0];
            }
            const sd::Mask mask =
                sd::SamplePolicy{.drop_rate = p}.draw(sd::Context::train({.step = 0, .seed = seed}), 0, 250);
            int sample_kept = 0;
            for (const auto kept : mask) sample_kept += kept;
            CAPTURE(p);
            CAPTURE(seed);
            CHECK(binomial_p_value(250, 1 - p, block_kept) > 0.01);
            CHECK(binomial_p_value(250, 1 - p, sample_kept) > 0.01);
        }
    }
    const sd::Context context = train(0);
    CHECK(sd::SamplePolicy{.drop_rate = 0}.draw(context, 0, 64) == sd::Mask(64, 1));
    CHECK(sd::SamplePolicy{.drop_rate = 1}.draw(context, 0, 64) == sd::Mask(64, 0));
    CHECK(sd::BlockPolicy{.drop_rate = 0}.draw(context, 0, 4) == sd::Mask(4, 1));
    CHECK(sd::BlockPolicy{.drop_rate = 1}.draw(context, 0, 4) == sd::Mask(4, 0));
}

TEST_CASE("masks differ where they must and agree where they must") {
    const sd::SamplePolicy sample{.drop_rate = 0.5};
    const sd::Mask mask = sample.draw(train(3), 2, 64);
    CHECK(mask == sample.draw(train(3), 2, 64));
    CHECK(mask != sample.draw(train(4), 2, 64));
    CHECK(mask != sample.draw(train(3), 1, 64));
    CHECK(mask != sample.draw(sd::Context::train({.step = 3, .seed = sd_test::seed + 1}), 2, 64));

    // Two ranks with half the batch each draw what one rank with the whole batch draws, whatever their rank number.
    sd::Mask halves = sample.draw(train(3, 0, 0), 2, 32);
    const sd::Mask second = sample.draw(train(3, 32, 1), 2, 32);
    halves.insert(halves.end(), second.begin(), second.end());
    CHECK(halves == mask);

    const auto block_bits = [](bool same, std::uint32_t rank) {
        sd::Mask bits;
        for (std::uint64_t step = 0; step < 64; ++step) {
            bits.push_back(
                sd::BlockPolicy{.drop_rate = 0.5, .use_same_gpu_seed = same}.draw(train(step, 0, rank), 2, 1)[0]);
        }
        return bits;
    };
    CHECK(block_bits(true, 0) == block_bits(true, 3));
    CHECK(block_bits(false, 0) != block_bits(false, 3));
    CHECK(block_bits(false, 0) == block_bits(true, 0));
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
