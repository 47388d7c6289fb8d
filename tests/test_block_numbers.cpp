// Every block of a network draws masks of its own, however its policy was set: blocks are numbered, walks see all of
// them, and two that share a number are refused.
#include "messages.hpp"
#include "random.hpp"
#include "small_network.hpp"
#include "toy_branches.hpp"

#include "sd/training.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace test_block_numbers {

using sd::Index;
using sd::Tensor;
using sd_test::contains;
using sd_test::error_of;
using sd_test::message_of;
using sd_test::random_tensor;
using sd_test::ScaleBranch;
using sd_test::Warnings;

namespace {

/// Drops the branch of the samples with an odd index.
struct EvenSamplesPolicy {
    static constexpr std::string_view method = "even";
    double drop_rate = 0.5;

    [[nodiscard]] sd::Mask draw(const sd::Context&, std::uint32_t, Index samples) const {
        sd::Mask mask(static_cast<std::size_t>(samples), 1);
        for (std::size_t n = 1; n < mask.size(); n += 2) mask[n] = 0;
        return mask;
    }
    [[nodiscard]] sd::BranchRun runs(const sd::Mask&) const { return sd::BranchRun::all_samples; }
    [[nodiscard]] double scale(bool, const sd::Mask&) const { return 1; }
};

/// Blocks of any policy type, one after the other.
template <class Policy>
class Chain {
public:
    using Block = sd::StochasticResidual<ScaleBranch<float>, Policy>;

    explicit Chain(int count, const Policy& policy = {}) {
        for (int i = 0; i < count; ++i) blocks.emplace_back(ScaleBranch<float>(2), policy);
    }
    Tensor<float> forward(Tensor<float> x, const sd::Context& context) {
        for (Block& block : blocks) x = block.forward(x, context);
        return x;
    }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        for (std::size_t i = 0; i < blocks.size(); ++i) visitor(sd::text(i), blocks[i]);
    }

    std::vector<Block> blocks;
};

sd::Context train(std::uint64_t step) { return sd::Context::train({.step = step, .seed = sd_test::seed}); }

template <class Blocks>
std::set<std::vector<std::uint8_t>> masks_of(const Blocks& blocks) {
    std::set<std::vector<std::uint8_t>> masks;
    for (const auto& block : blocks) masks.emplace(block.mask().begin(), block.mask().end());
    return masks;
}

/// A branch with a block of its own inside.
class Nested {
public:
    using value_type = float;
    Tensor<float> forward(const Tensor<float>& x, const sd::Context& context) { return inner.forward(x, context); }
    Tensor<float> backward(const Tensor<float>& dy) { return inner.backward(dy); }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("inner", inner);
    }

    sd::StochasticResidual<ScaleBranch<float>> inner{ScaleBranch<float>(2)};
};

struct NestedModel {
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("outer", outer);
    }
    sd::StochasticResidual<Nested> outer{Nested()};
};

}  // namespace

TEST_CASE("policies set by hand, block by block: a mask of its own for each block of a network") {
    auto model = sd::cifar_resnet<float>(20, {.num_classes = 10, .seed = 1});
    for (auto& block : model.blocks()) block.set_policy(sd::SamplePolicy{.drop_rate = 0.5});
    (void)model.forward(Tensor<float>::full({32, 8, 8, 3}, 1.0F), train(3));
    CHECK(masks_of(model.blocks()).size() == 9);
    // The masks are those of the blocks' places, as the formula says.
    for (std::size_t i = 0; i < 9; ++i) {
        CHECK(model.blocks()[i].block_index() == i);
        for (std::uint32_t n = 0; n < 32; ++n) {
            CHECK(model.blocks()[i].mask()[n] ==
                  sd::keeps_branch(0.5, sd_test::seed, 3, static_cast<std::uint32_t>(i), n));
        }
    }
}

TEST_CASE_TEMPLATE("blocks of a fixed policy type in a user's model", Policy, sd::SamplePolicy, EvenSamplesPolicy) {
    Chain<Policy> model(9, {.drop_rate = 0.5});
    const auto x = Tensor<float>::full({32, 1, 1, 2}, 1.0F);
    SUBCASE("that were never numbered are refused where they draw, and where the model is walked") {
        CHECK(contains(error_of<std::logic_error>([&] { (void)model.forward(x, train(0)); }), "number_blocks(model)"));
        const std::string message = message_of([&] { (void)sd::describe(model, 32); });
        CHECK(contains(message, "block_index of 1: got 0, that of 0"));
        CHECK(contains(message, "number_blocks(model)"));
        CHECK(contains(message_of([&] { const sd::ModelView view(model); }), "block_index"));
        CHECK_NOTHROW((void)model.forward(x, sd::Context::eval()));
    }
    SUBCASE("one call numbers them") {
        CHECK(&sd::number_blocks(model) == &model);
        (void)model.forward(x, train(0));
        for (std::size_t i = 0; i < 9; ++i) CHECK(model.blocks[i].block_index() == i);
        if (std::is_same_v<Policy, sd::SamplePolicy>) CHECK(masks_of(model.blocks).size() == 9);
        const auto description = sd::describe(model, 32);
        REQUIRE(description.blocks.size() == 9);
        CHECK(description.blocks[4].name == "4");
        CHECK(description.blocks[4].method == Policy::method);
        CHECK(description.expected_depth() == 4.5);
        const sd::ModelView view(model);
        REQUIRE(view.blocks().size() == 9);
        CHECK(view.blocks()[8].policy().drop_rate == 0.5);
        CHECK(view.blocks()[8].policy().is_stochastic);
    }
}

TEST_CASE("a number set by hand that another block has is refused") {
    auto model = sd::cifar_resnet<float>(20);
    for (auto& block : model.blocks()) block.set_policy(sd::BlockPolicy{.drop_rate = 0.5});
    CHECK_NOTHROW((void)sd::describe(model, 32));
    model.blocks()[7].set_block_index(2);
    CHECK(contains(message_of([&] { (void)sd::describe(model, 32); }), "layer3.1: got 2, that of layer1.2"));
    const auto x = Tensor<float>::full({2, 8, 8, 3}, 1.0F);
    CHECK_THROWS_AS((void)model.forward(x, train(0)), std::logic_error);
}

TEST_CASE("networks that share a context may have blocks of the same numbers") {
    auto one = sd::cifar_resnet<float>(8);
    auto other = sd::cifar_resnet<float>(8);
    for (auto* model : {&one, &other}) {
        for (auto& block : model->blocks()) block.set_policy(sd::SamplePolicy{.drop_rate = 0.5});
    }
    const sd::Context context = train(1);
    const auto x = Tensor<float>::full({8, 8, 8, 3}, 1.0F);
    (void)one.forward(x, context);
    CHECK_NOTHROW((void)other.forward(x, context));
    CHECK_NOTHROW((void)one.forward(x, context));
    CHECK(masks_of(one.blocks()) == masks_of(other.blocks()));
}

TEST_CASE("a trainer numbers the blocks of a model that a user composed") {
    sd_test::SmallNetwork<double> model;
    for (auto& block : model.blocks()) block.set_policy(sd::SamplePolicy{.drop_rate = 0.5});
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.01});
    sd::Trainer trainer(model, optimizer, sd_test::small_loader<double>(8), {.max_duration = "1ba"});
    for (std::size_t i = 0; i < model.blocks().size(); ++i) CHECK(model.blocks()[i].block_index() == i);
    CHECK_NOTHROW(trainer.fit());
}

TEST_CASE("a block inside a branch is walked, numbered and made stochastic too") {
    NestedModel model;
    Warnings warnings;
    sd::apply_stochastic_depth(model, {.drop_rate = 0.5});
    CHECK(model.outer.block_index() == 0);
    CHECK(model.outer.branch().inner.block_index() == 1);
    CHECK(model.outer.branch().inner.policy().drop_rate() == 0.5);
    CHECK(sd::describe(model, 8).blocks[1].name == "outer.inner");
}

TEST_CASE("surgery without a name takes every block, of any kind") {
    auto basic = sd::resnet18<float>({.num_classes = 2});
    sd::apply_stochastic_depth(basic, {.drop_rate = 0.5});
    for (std::size_t i = 0; i < 8; ++i) {
        CHECK(basic.blocks()[i].policy().drop_rate() == doctest::Approx(0.5 * static_cast<double>(i) / 7));
        CHECK(basic.blocks()[i].policy().is_stochastic());
    }
    Chain<sd::SamplePolicy> fixed(8, {.drop_rate = 0.1});
    sd::apply_stochastic_depth(fixed, {.stochastic_method = sd::StochasticMethod::sample, .drop_rate = 0.5});
    CHECK(fixed.blocks[7].policy().drop_rate == 0.5);
    CHECK(fixed.blocks[7].block_index() == 7);
    const std::string message = message_of([&] { sd::apply_stochastic_depth(fixed, {.drop_rate = 0.2}); });
    CHECK(contains(message, "method of block 0: got \"block\", expected \"sample\""));
    CHECK(fixed.blocks[7].policy().drop_rate == 0.5);

    Warnings warnings;
    Chain<sd::AnyPolicy> none(0);
    sd::apply_stochastic_depth(none);
    REQUIRE(warnings.messages.size() == 1);
    CHECK(contains(warnings.messages[0], "no residual block"));
}

}  // namespace test_block_numbers
