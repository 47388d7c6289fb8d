// Surgery on models of all kinds, settings as text, and the description of a model.
#include "messages.hpp"
#include "toy_branches.hpp"

#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <algorithm>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace test_surgery {

using sd::Index;
using sd_test::contains;
using sd_test::message_of;
using sd_test::ScaleBranch;
using sd_test::Warnings;

namespace {

// A user's branch that carries a name, as ScaleBranch does not.
template <class T>
class NamedBranch : public ScaleBranch<T> {
public:
    static constexpr std::string_view layer_name = "NamedBranch";
    using ScaleBranch<T>::ScaleBranch;
};

// A user's model: blocks of two types, and a layer between them.
template <class T>
class Mixed {
public:
    using Plain = sd::StochasticResidual<ScaleBranch<T>>;
    using Named = sd::StochasticResidual<NamedBranch<T>>;

    Mixed() {
        for (int i = 0; i < 9; ++i) {
            plain.emplace_back(ScaleBranch<T>(2));
            named.emplace_back(NamedBranch<T>(2));
        }
    }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("norm", norm);
        for (std::size_t i = 0; i < plain.size(); ++i) {
            visitor(sd::text("plain.", i), plain[i]);
            visitor(sd::text("named.", i), named[i]);
        }
    }
    sd::ParameterList<T> parameters() {
        sd::ParameterList<T> list;
        sd::for_each_parameter(*this, [&](const std::string&, auto& parameter) { list.push_back(parameter); });
        return list;
    }

    sd::BatchNorm2d<T> norm{3};
    std::vector<Plain> plain;
    std::vector<Named> named;
};

}  // namespace

TEST_CASE("names of settings; unknown ones are refused with the allowed ones") {
    CHECK(sd::parse<sd::StochasticMethod>("sample") == sd::StochasticMethod::sample);
    CHECK(sd::to_string(sd::DropDistribution::linear_huang) == "linear_huang");
    CHECK(sd::parse<sd::Scaling>(sd::to_string(sd::Scaling::train)) == sd::Scaling::train);
    const auto message = message_of([] { (void)sd::parse<sd::StochasticMethod>("row"); });
    CHECK(contains(message, "stochastic_method"));
    CHECK(contains(message, "\"row\""));
    CHECK(contains(message, "block or sample"));
    CHECK_THROWS_AS((void)sd::to_string(static_cast<sd::Compute>(7)), std::invalid_argument);
}

TEST_CASE("surgery makes all 16 bottlenecks of resnet50 stochastic, in place") {
    auto model = sd::resnet50<float>({.num_classes = 10});
    std::map<std::string, const void*> before;
    sd::for_each_parameter(model, [&](const std::string& name, auto& parameter) { before[name] = parameter.get(); });

    auto& returned =
        sd::apply_stochastic_depth(model, {.stochastic_method = sd::StochasticMethod::sample, .drop_rate = 0.3});
    CHECK(&returned == &model);
    CHECK(std::count_if(model.blocks().begin(), model.blocks().end(),
                        [](const auto& block) { return block.policy().is_stochastic(); }) == 16);
    std::map<std::string, const void*> after;
    sd::for_each_parameter(model, [&](const std::string& name, auto& parameter) { after[name] = parameter.get(); });
    CHECK(before == after);
    for (std::size_t i = 0; i < 16; ++i) {
        CHECK(model.blocks()[i].policy().drop_rate() ==
              doctest::Approx(0.3 * static_cast<double>(i) / 15).epsilon(1e-15));
        CHECK(model.blocks()[i].block_index() == i);
    }

    sd::apply_stochastic_depth(model, {.drop_rate = 0.5, .drop_distribution = sd::DropDistribution::uniform});
    for (const auto& block : model.blocks()) {
        REQUIRE(block.policy().get_if<sd::BlockPolicy>() != nullptr);
        CHECK(block.policy().drop_rate() == 0.5);
    }
}

TEST_CASE("surgery without a match warns and changes nothing; an unknown layer is refused") {
    auto model = sd::cifar_bottleneck_resnet<float>(29);
    Warnings warnings;
    sd::apply_stochastic_depth(model, {.target_layer_name = "ResNetBasicBlock"});
    CHECK(warnings.messages.size() == 1);
    CHECK_FALSE(model.blocks()[0].policy().is_stochastic());
    CHECK(contains(message_of([&] { sd::apply_stochastic_depth(model, {.target_layer_name = "Bottleneck"}); }),
                   "target_layer_name"));
    sd::apply_stochastic_depth(model, {.drop_rate = 0});
    CHECK(warnings.messages.size() == 2);
    sd::apply_stochastic_depth(model, {.stochastic_method = sd::StochasticMethod::sample, .use_same_gpu_seed = false});
    CHECK(warnings.messages.size() == 3);
}

TEST_CASE("blocks of a user's own, in a model of their own, by a registered name or a name of the type") {
    Warnings warnings;
    Mixed<float> model;
    CHECK(contains(message_of([&] { sd::apply_stochastic_depth(model, {.target_layer_name = "PlainBlock"}); }),
                   "ResNetBottleneck, ResNetBasicBlock"));
    sd::register_branch<ScaleBranch<float>>("PlainBlock");
    sd::register_branch<ScaleBranch<float>>("PlainBlock");
    CHECK(contains(message_of([] { sd::register_branch<ScaleBranch<float>>("Other"); }), "\"PlainBlock\""));
    CHECK_THROWS_AS(sd::register_branch<ScaleBranch<double>>(""), std::invalid_argument);
    CHECK(contains(message_of([] { sd::register_branch<ScaleBranch<double>>("Plain Block"); }), "without spaces"));
    CHECK(contains(message_of([] { sd::register_branch<NamedBranch<float>>("Other"); }), "NamedBranch"));
    sd::register_branch<NamedBranch<float>>("NamedBranch");

    sd::apply_stochastic_depth(model, {.target_layer_name = "PlainBlock", .drop_rate = 0.4});
    for (std::size_t i = 0; i < 9; ++i) {
        CHECK(model.plain[i].policy().drop_rate() == doctest::Approx(0.4 * static_cast<double>(i) / 8).epsilon(1e-15));
        CHECK_FALSE(model.named[i].policy().is_stochastic());
    }
    sd::apply_stochastic_depth(model, {.target_layer_name = "NamedBranch", .drop_rate = 0.5});
    CHECK(model.named[8].policy().drop_rate() == 0.5);
    CHECK(model.plain[8].policy().drop_rate() == 0.4);
    for (std::size_t i = 0; i < 9; ++i) {  // no two blocks draw the same masks, though two calls matched them
        CHECK(model.plain[i].block_index() == 2 * i);
        CHECK(model.named[i].block_index() == 2 * i + 1);
    }
    CHECK(warnings.messages.empty());

    auto resnet = sd::cifar_resnet<float>(20);
    sd::apply_stochastic_depth(resnet, {.target_layer_name = "PlainBlock"});  // known, but not in this model
    REQUIRE(warnings.messages.size() == 1);
    CHECK(contains(warnings.messages[0], "no block of the model is a PlainBlock"));
}

TEST_CASE("optimizers must hold the parameters of the blocks") {
    Mixed<float> model;
    sd::Sgd<float> whole(model.parameters());
    sd::ParameterList<float> all = model.parameters();
    const sd::ParameterPtr<float> missing = all.back();
    all.pop_back();
    sd::Sgd<float> most(all);
    sd::Sgd<float> rest({missing});
    const sd::StochasticDepthOptions options{.target_layer_name = "NamedBranch"};
    const std::string message = message_of([&] { sd::apply_stochastic_depth(model, options, {most}); });
    CHECK(contains(message, "named.8.weight"));
    CHECK_FALSE(model.named[8].policy().is_stochastic());
    CHECK_NOTHROW(sd::apply_stochastic_depth(model, options, {most, rest}));
    CHECK_NOTHROW(sd::apply_stochastic_depth(model, options, {whole}));
    CHECK(model.named[8].policy().is_stochastic());
}

TEST_CASE("what is not a value of a setting is refused, and nothing changes") {
    auto model = sd::cifar_bottleneck_resnet<float>(11);
    const auto refusal = [&](const sd::StochasticDepthOptions& options) {
        const std::string message = message_of([&] { sd::apply_stochastic_depth(model, options); });
        CHECK_FALSE(model.blocks()[0].policy().is_stochastic());
        return message;
    };
    CHECK(contains(refusal({.stochastic_method = static_cast<sd::StochasticMethod>(2)}), "block or sample"));
    CHECK(contains(refusal({.drop_distribution = static_cast<sd::DropDistribution>(9)}),
                   "linear, linear_huang or linear_efficientnet"));
    CHECK(contains(refusal({.compute = static_cast<sd::Compute>(9)}), "all or survivors"));
    CHECK(contains(refusal({.scaling = static_cast<sd::Scaling>(9)}), "inference or train"));
    CHECK(contains(refusal({.skipped_gradient = static_cast<sd::SkippedGradient>(9)}), "none or zero"));
}

TEST_CASE("the defaults are the method's") {
    const sd::StochasticDepthOptions options;
    CHECK(options.target_layer_name.empty());  // every block
    CHECK(options.stochastic_method == sd::StochasticMethod::block);
    CHECK(options.drop_rate == 0.2);
    CHECK(options.drop_distribution == sd::DropDistribution::linear);
    CHECK(options.use_same_gpu_seed);
    CHECK(options.compute == sd::Compute::all);
    CHECK(options.scaling == sd::Scaling::inference);
    CHECK(options.skipped_gradient == sd::SkippedGradient::none);
}

TEST_CASE("blocks whose shortcut is not the identity may be left alone, and count all the same") {
    auto model = sd::cifar_bottleneck_resnet<float>(29);
    const sd::StochasticDepthOptions options{.drop_rate = 0.5, .drop_distribution = sd::DropDistribution::linear_huang};
    sd::apply_stochastic_depth(model, options);
    for (const auto& block : model.blocks()) CHECK(block.policy().drop_rate() > 0);
    auto alone = options;
    alone.drop_at_projections = false;
    sd::apply_stochastic_depth(model, alone);
    for (sd::Index i = 0; i < 9; ++i) {
        const auto& block = model.blocks()[static_cast<std::size_t>(i)];
        CAPTURE(i);
        CHECK(block.has_identity_shortcut() == (i % 3 != 0));
        CHECK(block.policy().drop_rate() ==
              (i % 3 == 0 ? 0 : sd::drop_rate_of_block(options.drop_distribution, 0.5, i, 9)));
    }
}

TEST_CASE("few blocks are warned of") {
    Warnings warnings;
    auto model = sd::cifar_resnet<float>(14);
    sd::apply_stochastic_depth(model, {.target_layer_name = "ResNetBasicBlock"});
    REQUIRE(warnings.messages.size() == 1);
    CHECK(contains(warnings.messages[0], "6 blocks"));
}

TEST_CASE("settings to text and back") {
    const sd::StochasticDepthOptions options{.target_layer_name = "ResNetBasicBlock",
                                             .stochastic_method = sd::StochasticMethod::sample,
                                             .drop_rate = 0.1 + 0.2,
                                             .drop_distribution = sd::DropDistribution::linear_huang,
                                             .use_same_gpu_seed = false,
                                             .compute = sd::Compute::survivors,
                                             .scaling = sd::Scaling::train,
                                             .skipped_gradient = sd::SkippedGradient::zero,
                                             .drop_at_projections = false};
    const std::string settings = sd::to_string(options);
    const auto back = sd::parse_options(settings);
    CHECK(back.drop_rate == options.drop_rate);
    CHECK(back.target_layer_name == "ResNetBasicBlock");
    CHECK_FALSE(back.drop_at_projections);
    CHECK(sd::parse_options("drop_at_projections=true").drop_at_projections);
    CHECK(sd::to_string(back) == settings);
    CHECK(settings !=
          sd::to_string(sd::StochasticDepthOptions{}));  // every setting above differs from its default, see next
    CHECK_FALSE(contains(sd::to_string(sd::StochasticDepthOptions{}), "target_layer_name"));
    CHECK(sd::parse_options(sd::to_string(sd::StochasticDepthOptions{})).target_layer_name.empty());
    const auto defaults = sd::parse_options("  drop_rate=0.25 ");
    CHECK(defaults.drop_rate == 0.25);
    CHECK(defaults.stochastic_method == sd::StochasticMethod::block);
    for (const char* wrong : {"target_layer_name=", "stochastic_method=row", "drop_rate", "drop_rate=", "drop_rate=x",
                              "drop_rate=0.5x", "drop_rate=1.5", "drop_rate=nan", "drop_rate=0.1 drop_rate=0.2",
                              "rate=0.1", "drop_distribution=log", "use_same_gpu_seed=yes", "compute=some",
                              "scaling=both", "skipped_gradient=one", "drop_at_projections=maybe"}) {
        CAPTURE(wrong);
        const std::string item(wrong);
        CHECK(contains(message_of([&] { (void)sd::parse_options(item); }), "parse"));
    }
    sd::StochasticDepthOptions spaced = options;
    spaced.target_layer_name = "two words";  // would read back as something else
    CHECK_THROWS_AS((void)sd::to_string(spaced), std::invalid_argument);
}

TEST_CASE("a description has every block, the expected depth and cost, and the warnings") {
    auto model = sd::resnet50<float>({.num_classes = 10});
    sd::apply_stochastic_depth(model, {.stochastic_method = sd::StochasticMethod::sample, .drop_rate = 0.5});
    const auto description = sd::describe(model, 32);
    REQUIRE(description.blocks.size() == 16);
    CHECK(description.blocks[3].name == "layer2.0");
    CHECK(description.blocks[3].method == "sample");
    CHECK(description.expected_depth() == doctest::Approx(12).epsilon(1e-12));  // 16 blocks, mean rate 1/4
    CHECK(description.expected_cost(true) == doctest::Approx(0.75).epsilon(1e-12));
    CHECK(description.expected_cost(false) == 1);
    CHECK(description.warnings.empty());
    std::ostringstream table;
    table << description;
    CHECK(contains(table.str(), "layer4.2"));
    CHECK(contains(table.str(), "expected depth 12.000 of 16"));
    CHECK(contains(table.str(), "survivors 0.750"));

    // 0.5 * 3 < 2 kept samples, and 1 - prod(1 - p_i^3) is far above 1 %.
    CHECK(contains(table.str(), "block 0.750, sample with compute all 1.000, sample with compute survivors 0.750"));

    const auto small = sd::describe(model, 3);
    REQUIRE(small.warnings.size() >= 2);
    CHECK(contains(small.warnings[0], "fewer than 2"));
    CHECK(contains(small.warnings.back(), "loses every sample"));
    sd::apply_stochastic_depth(model, {.drop_rate = 0.5});
    CHECK(sd::describe(model, 3).warnings.empty());  // whole blocks are dropped on purpose

    auto plain = sd::cifar_resnet<float>(14);
    const auto warnings = sd::describe(plain, 3).warnings;
    REQUIRE(warnings.size() == 2);
    CHECK(contains(warnings[0], "no block is ever dropped"));
    CHECK_THROWS_AS((void)sd::describe(plain, 0), std::invalid_argument);
}

}  // namespace test_surgery
