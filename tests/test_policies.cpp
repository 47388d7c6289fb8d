// SubsetPolicy, and policies and shortcuts of a user's own, wherever the library's can go.
#include "messages.hpp"
#include "random.hpp"
#include "toy_branches.hpp"
#include "user_policy.hpp"

#include <sd/training.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace test_policies {

using sd::Context;
using sd::Index;
using sd::Mask;
using sd::SubsetPolicy;
using sd::Tensor;
using sd_test::AlternatePolicy;
using sd_test::contains;
using sd_test::GainShortcut;
using sd_test::message_of;
using sd_test::ScaleBranch;
using sd_test::Warnings;

namespace {

Context train(std::uint64_t step, std::uint64_t sample_offset = 0) {
    return Context::train({.step = step, .seed = sd_test::seed, .sample_offset = sample_offset});
}

/// A user's model: two blocks with a shortcut of the user's, the second with a fixed policy of the user's.
class UserModel {
public:
    using value_type = float;
    using Any = sd::StochasticResidual<ScaleBranch<float>, sd::AnyPolicy, sd::ReluActivation, GainShortcut<float>>;
    using Fixed = sd::StochasticResidual<ScaleBranch<float>, AlternatePolicy, sd::NoActivation, GainShortcut<float>>;

    Tensor<float> forward(const Tensor<float>& x, const Context& context) {
        return fixed.forward(any.forward(x, context), context);
    }
    Tensor<float> backward(const Tensor<float>& dy) { return any.backward(fixed.backward(dy)); }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("any", any);
        visitor("fixed", fixed);
    }

    Any any{ScaleBranch<float>(2), {}, GainShortcut<float>(3)};
    Fixed fixed{ScaleBranch<float>(4), {.flipped = true}, GainShortcut<float>(3)};
};

const bool is_registered = sd::register_policy<AlternatePolicy>();

/// Another policy of the same name.
struct Namesake : AlternatePolicy {};

}  // namespace

TEST_CASE("subset: the number of kept samples is max(floor(b (1 - p)), 1)") {
    // int(b * (1 - p)) and max, as Python computes them
    for (const auto& [samples, drop_rate, kept] : {std::tuple{10, 0.3, 7},
                                                   {10, 0.95, 1},
                                                   {4, 0.5, 2},
                                                   {3, 0.5, 1},
                                                   {5, 0.0, 5},
                                                   {1, 0.9, 1},
                                                   {8, 1.0, 1},
                                                   {64, 0.1, 57},
                                                   {7, 0.4, 4},
                                                   {0, 0.5, 0}}) {
        const SubsetPolicy policy{.drop_rate = drop_rate};
        INFO("drop rate ", policy.drop_rate);
        const Mask mask = policy.draw(train(5), 3, samples);
        CHECK(static_cast<int>(mask.size()) == samples);
        CHECK(std::count(mask.begin(), mask.end(), 1) == kept);
        CHECK(policy.kept_of(samples) == kept);
    }
}

TEST_CASE("subset: the samples of the smallest words keep the branch") {
    const SubsetPolicy policy{.drop_rate = 0.6};
    for (std::uint64_t step = 0; step < 20; ++step) {
        const Mask mask = policy.draw(train(step, 100), 2, 12);
        std::uint32_t largest_kept = 0;
        std::uint32_t smallest_dropped = 0xFFFFFFFFU;
        for (std::uint32_t n = 0; n < 12; ++n) {
            const std::uint32_t word = sd::random_words(sd_test::seed, sd::Stream::mask, step, 2, 100 + n)[0];
            if (mask[n] != 0) largest_kept = std::max(largest_kept, word);
            if (mask[n] == 0) smallest_dropped = std::min(smallest_dropped, word);
        }
        CHECK(largest_kept < smallest_dropped);
    }
}

TEST_CASE("subset: every sample is kept equally often, and blocks choose independently") {
    const SubsetPolicy policy{.drop_rate = 0.5};
    constexpr int steps = 4000;
    std::vector<int> kept(8, 0);
    int both = 0;
    for (std::uint64_t step = 0; step < steps; ++step) {
        const Mask first = policy.draw(train(step), 0, 8);
        const Mask second = policy.draw(train(step), 1, 8);
        for (std::size_t n = 0; n < 8; ++n) kept[n] += first[n];
        both += first[0] * second[0];
    }
    // five standard deviations of a binomial count
    for (const int count : kept) CHECK(std::abs(count - steps / 2) < 5 * std::sqrt(steps * 0.25));
    CHECK(std::abs(both - steps / 4) < 5 * std::sqrt(steps * 0.1875));
}

TEST_CASE("subset: y = relu(x + b/k F(x)) of kept samples in training, relu(x + F(x)) in evaluation") {
    sd::StochasticResidual<ScaleBranch<double>, SubsetPolicy> block(ScaleBranch<double>(3), {.drop_rate = 0.4});
    const auto x = sd_test::random_tensor<double>({5, 2, 2, 3}, 1);
    const auto y = block.forward(x, train(7));
    CHECK(block.branch().seen().extent(0) == 3);  // k of 5 at p = 0.4; the others are not computed
    const auto dy = sd_test::random_tensor<double>(x.shape(), 2);
    const auto dx = block.backward(dy);
    double dweight = 0;
    for (Index i = 0; i < x.size(); ++i) {
        const bool kept = block.mask()[static_cast<std::size_t>(i / 12)] != 0;
        const double factor = kept ? 3 * 5.0 / 3 : 0;
        const double value = x.data()[i] + factor * x.data()[i];
        CHECK(y.data()[i] == doctest::Approx(value > 0 ? value : 0).epsilon(1e-14));
        const double g = value > 0 ? dy.data()[i] : 0;
        CHECK(dx.data()[i] == doctest::Approx((1 + factor) * g).epsilon(1e-14));
        if (kept) dweight += 5.0 / 3 * g * x.data()[i];
    }
    CHECK(block.branch().weight()->grad(0) == doctest::Approx(dweight).epsilon(1e-13));
    CHECK(block.evaluation_scale() == 1);
    const auto evaluated = block.forward(x, Context::eval());
    for (Index i = 0; i < x.size(); ++i) {
        CHECK(evaluated.data()[i] == doctest::Approx(std::max(4 * x.data()[i], 0.0)).epsilon(1e-14));
    }
}

TEST_CASE("policies by name: surgery, description, text") {
    const Warnings fewer_than_8_blocks;
    auto model = sd::cifar_resnet<float>(20);
    const sd::StochasticDepthOptions options{.policy = "subset", .drop_rate = 0.4};
    sd::apply_stochastic_depth(model, options);
    for (std::size_t i = 0; i < 9; ++i) {
        const auto* policy = model.blocks()[i].policy().get_if<SubsetPolicy>();
        REQUIRE(policy != nullptr);
        CHECK(policy->drop_rate == doctest::Approx(0.4 * static_cast<double>(i) / 8).epsilon(1e-15));
    }
    const sd::Description description = sd::describe(model, 32);
    CHECK(description.blocks[8].method == "subset");
    CHECK(description.blocks[8].drop_rate == 0.4);
    std::ostringstream table;
    table << description;
    CHECK(contains(table.str(), "layer3.2            subset"));

    const std::string settings = sd::to_string(options);
    CHECK(contains(settings, "policy=subset"));
    CHECK(sd::parse_options(settings).policy == "subset");
    CHECK(sd::to_string(sd::parse_options(settings)) == settings);
    CHECK(sd::StochasticDepth(options).settings(1).at("policy") == "subset");

    for (const std::string& message : {message_of([&] { sd::apply_stochastic_depth(model, {.policy = "subsets"}); }),
                                       message_of([] { (void)sd::parse_options("policy=subsets"); }), message_of([] {
                                           (void)sd::to_string(sd::StochasticDepthOptions{.policy = "subsets"});
                                       }),
                                       message_of([] { sd::StochasticDepth({.policy = "subsets"}); })}) {
        CHECK(contains(message, "policy: got \"subsets\", expected a registered one: alternate, subset"));
    }
    CHECK(model.blocks()[8].policy().method() == "subset");
}

TEST_CASE("a user's policy and shortcut in a user's model: numbering, surgery, description, masks, gradients") {
    const Warnings fewer_than_8_blocks;
    REQUIRE(is_registered);
    UserModel model;
    sd::apply_stochastic_depth(
        model, {.policy = "alternate", .drop_rate = 0.25, .drop_distribution = sd::DropDistribution::uniform});
    REQUIRE(model.any.policy().get_if<AlternatePolicy>() != nullptr);
    CHECK(model.any.policy().get_if<AlternatePolicy>()->scaling == sd::Scaling::inference);
    CHECK(model.fixed.policy().drop_rate == 0.25);
    CHECK(model.fixed.block_index() == 1);
    const auto description = sd::describe(model, 4);
    CHECK(description.blocks[0].method == "alternate");
    CHECK(description.blocks[1].name == "fixed");
    // a method of the library's is not what the fixed block's type can take
    CHECK(contains(message_of([&] { sd::apply_stochastic_depth(model, {.drop_rate = 0.5}); }),
                   "method of block fixed: got \"block\", expected \"alternate\""));

    const Tensor<float> x = Tensor<float>::full({4, 1, 1, 3}, 1.0F);
    const Tensor<float> y = model.forward(x, train(0));
    CHECK(model.any.mask() == Mask{1, 0, 1, 0});
    CHECK(model.fixed.mask() == Mask{0, 1, 0, 1});
    // 0.5 x + 2 x where `any` keeps, 0.5 x where it drops; then 0.5 v, or 0.5 v + 4 v
    for (Index n = 0; n < 4; ++n) CHECK(y(n, 0, 0, 0) == (n % 2 == 0 ? 1.25F : 2.25F));
    const Tensor<float> dx = model.backward(Tensor<float>::full({4, 1, 1, 3}, 1.0F));
    for (Index n = 0; n < 4; ++n) CHECK(dx(n, 0, 0, 0) == (n % 2 == 0 ? 1.25F : 2.25F));
    CHECK(model.any.evaluation_scale() == 0.75);

    sd::register_policy<AlternatePolicy>();  // again: nothing changes
    CHECK(contains(message_of([] { sd::register_policy<Namesake>(); }), "name: got \"alternate\""));
}

TEST_CASE("a drop rate outside 0 to 1 is refused for any policy") {
    sd::StochasticResidual<ScaleBranch<float>> block(ScaleBranch<float>(2), sd::SamplePolicy{.drop_rate = 0.25});
    CHECK(contains(message_of([&] { block.set_policy(AlternatePolicy{.drop_rate = 1.5}); }), "drop_rate: got 1.5"));
    CHECK(contains(message_of([&] { block.set_policy(SubsetPolicy{.drop_rate = std::nan("")}); }), "0 to 1"));
    CHECK(block.policy().drop_rate() == 0.25);
}

}  // namespace test_policies
