// EfficientNet: names, counts, widths, start values, which blocks can be dropped, and what a block computes.
#include "messages.hpp"
#include "model_state.hpp"
#include "random.hpp"

#include <sd/training.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

namespace test_efficientnet {

namespace {

using sd::Context;
using sd::Index;
using sd::Tensor;
using sd_test::contains;
using sd_test::message_of;
using sd_test::random_tensor;

template <class Model>
Tensor<float> value_of(Model& model, const std::string& wanted) {
    Tensor<float> found;
    sd::for_each_parameter(model, [&](const std::string& name, auto& parameter) {
        if (name == wanted) found = parameter->value;
    });
    REQUIRE(found);
    return found;
}

double deviation_of(const Tensor<float>& x) {
    double squares = 0;
    for (const float value : x) squares += static_cast<double>(value) * static_cast<double>(value);
    return std::sqrt(squares / static_cast<double>(x.size()));
}

}  // namespace

TEST_CASE("EfficientNet-B0: names, counts and start values are torchvision's") {
    auto model = sd::efficientnet_b0<float>({.num_classes = 1000, .seed = 3});
    CHECK(model.parameter_count() == 5'288'548);
    std::vector<std::string> names;
    sd::for_each_state(
        model, [&](const std::string& name, auto&) { names.push_back(name); },
        [&](const std::string& name, auto&) { names.push_back(name); });
    CHECK(names.size() == 360);
    CHECK(std::set<std::string>(names.begin(), names.end()).size() == 360);
    CHECK(names.front() == "features.0.0.weight");
    CHECK(names.back() == "classifier.1.bias");
    for (const char* name :
         {"features.0.1.num_batches_tracked", "features.1.0.block.0.0.weight", "features.1.0.block.1.fc1.bias",
          "features.1.0.block.2.1.running_var", "features.2.0.block.0.0.weight", "features.2.0.block.2.fc2.weight",
          "features.7.0.block.3.1.bias", "features.8.0.weight", "features.8.1.running_mean", "classifier.1.weight"}) {
        CAPTURE(name);
        CHECK(std::count(names.begin(), names.end(), name) == 1);
    }
    CHECK(value_of(model, "features.1.0.block.0.0.weight").shape() == sd::Shape{32, 1, 3, 3});
    CHECK(value_of(model, "features.6.3.block.1.0.weight").shape() == sd::Shape{1152, 1, 5, 5});
    CHECK(value_of(model, "features.6.3.block.2.fc1.weight").shape() == sd::Shape{48, 1152, 1, 1});
    // of a depthwise convolution, fan out is not divided by the groups
    CHECK(deviation_of(value_of(model, "features.6.3.block.1.0.weight")) ==
          doctest::Approx(std::sqrt(2.0 / (25 * 1152))).epsilon(0.03));
    CHECK(deviation_of(value_of(model, "features.8.0.weight")) == doctest::Approx(std::sqrt(2.0 / 1280)).epsilon(0.01));
    for (const float bias : value_of(model, "features.6.3.block.2.fc1.bias")) CHECK(bias == 0);
    const auto classifier = value_of(model, "classifier.1.weight");
    const float largest = *std::max_element(classifier.begin(), classifier.end());
    CHECK(largest <= 1 / std::sqrt(1000.0F));
    CHECK(largest > 0.99F / std::sqrt(1000.0F));
    for (const float bias : value_of(model, "classifier.1.bias")) CHECK(bias == 0);
    model.reset_classifier(7);
    CHECK(model.num_classes() == 7);
    CHECK(value_of(model, "classifier.1.bias")(0) == 0);
}

TEST_CASE("EfficientNet-B0: blocks without a shortcut count as places and drop nothing") {
    auto model = sd::efficientnet_b0<float>({.num_classes = 10});
    const sd::StochasticDepthOptions options{.stochastic_method = sd::StochasticMethod::sample,
                                             .drop_rate = 0.2,
                                             .drop_distribution = sd::DropDistribution::linear_efficientnet,
                                             .scaling = sd::Scaling::train};
    sd::apply_stochastic_depth(model, options);
    REQUIRE(model.blocks().size() == 16);
    const std::set<std::size_t> with_shortcut{2, 4, 6, 7, 9, 10, 12, 13, 14};  // counted in torchvision's B0
    for (std::size_t i = 0; i < 16; ++i) {
        CAPTURE(i);
        auto& block = model.blocks()[i];
        CHECK(block.block_index() == i);
        CHECK(block.has_shortcut() == with_shortcut.contains(i));
        CHECK(block.policy().is_stochastic() == with_shortcut.contains(i));
        CHECK(block.policy().drop_rate() == (block.has_shortcut() ? 0.2 * static_cast<double>(i) / 16 : 0));
    }
    auto& bare = model.blocks()[0];
    CHECK(contains(message_of([&] { bare.set_policy(sd::SamplePolicy{.drop_rate = 0.1}); }), "without a shortcut"));
    CHECK(contains(message_of([&] { bare.set_mask(sd::Mask{1, 1}); }), "without a shortcut"));
    const auto description = sd::describe(model, 64);
    CHECK(description.blocks[14].name == "features.6.3");
    CHECK(description.blocks[14].drop_rate == 0.2 * 14 / 16);
    CHECK(description.blocks[15].method == "plain");
    const sd::ModelView view(model);
    CHECK(view.blocks()[1].layer_name == "EfficientNetMBConv");
    CHECK_FALSE(view.blocks()[1].has_shortcut);
    CHECK(view.blocks()[2].has_identity_shortcut);
}

TEST_CASE("EfficientNetV2-S: both kinds of blocks in one network") {
    auto model = sd::efficientnet_v2_s<float>();
    CHECK(model.parameter_count() == 21'458'488);
    Index entries = 0;
    std::set<std::string> names;
    sd::for_each_state(
        model, [&](const std::string& name, auto&) { names.insert(name), ++entries; },
        [&](const std::string&, auto&) { ++entries; });
    CHECK(entries == 782);
    CHECK(names.contains("features.1.1.block.0.1.weight"));
    CHECK_FALSE(names.contains("features.1.1.block.1.0.weight"));
    CHECK(names.contains("features.3.0.block.1.1.weight"));
    CHECK(names.contains("features.4.0.block.2.fc1.weight"));
    CHECK(model.blocks()[9].branch().branch_name() == "EfficientNetFusedMBConv");
    CHECK(model.blocks()[10].branch().branch_name() == "EfficientNetMBConv");
    Index with_shortcut = 0;
    for (const auto& block : model.blocks()) with_shortcut += block.has_shortcut() ? 1 : 0;
    CHECK(model.blocks().size() == 40);
    CHECK(with_shortcut == 35);
    // by name, rates grow over the matched blocks alone
    sd::apply_stochastic_depth(model, {.target_layer_name = "EfficientNetFusedMBConv", .drop_rate = 0.3});
    CHECK(model.blocks()[9].policy().drop_rate() == 0.3);
    CHECK_FALSE(model.blocks()[11].policy().is_stochastic());
}

TEST_CASE("EfficientNet: widths and depths of the other sizes") {
    struct Size {
        double width, depth;
        Index stem;
        std::vector<Index> widths, layers;
        Index head;
    };
    // torchvision's, from its configurations
    const Size sizes[] = {{1.0, 1.1, 32, {16, 24, 40, 80, 112, 192, 320}, {2, 3, 3, 4, 4, 5, 2}, 1280},
                          {1.1, 1.2, 32, {16, 24, 48, 88, 120, 208, 352}, {2, 3, 3, 4, 4, 5, 2}, 1408},
                          {1.2, 1.4, 40, {24, 32, 48, 96, 136, 232, 384}, {2, 3, 3, 5, 5, 6, 2}, 1536},
                          {1.4, 1.8, 48, {24, 32, 56, 112, 160, 272, 448}, {2, 4, 4, 6, 6, 8, 2}, 1792},
                          {1.6, 2.2, 48, {24, 40, 64, 128, 176, 304, 512}, {3, 5, 5, 7, 7, 9, 3}, 2048},
                          {1.8, 2.6, 56, {32, 40, 72, 144, 200, 344, 576}, {3, 6, 6, 8, 8, 11, 3}, 2304},
                          {2.0, 3.1, 64, {32, 48, 80, 160, 224, 384, 640}, {4, 7, 7, 10, 10, 13, 4}, 2560}};
    for (const Size& size : sizes) {
        CAPTURE(size.width);
        const auto architecture = sd::detail::efficientnet_b(size.width, size.depth);
        CHECK(architecture.stem_channels == size.stem);
        CHECK(4 * architecture.stages.back().out_channels == size.head);
        for (std::size_t i = 0; i < 7; ++i) {
            CHECK(architecture.stages[i].out_channels == size.widths[i]);
            CHECK(architecture.stages[i].layers == size.layers[i]);
        }
    }
    CHECK(sd::make_divisible(19.2) == 24);
    CHECK(sd::make_divisible(5) == 8);
    CHECK(sd::make_divisible(20) == 24);
}

TEST_CASE("a block without a shortcut is its branch; a network trains and evaluates") {
    sd::Initializer initializer(3), again(3);
    using Block = sd::EfficientNetModel<double>::Block;
    const sd::MBConvOptions options{.expand_ratio = 2, .stride = 2, .in_channels = 8, .out_channels = 12};
    sd::MBConv<double> branch(options, initializer), same(options, again);
    Block block(std::move(branch), sd::NoShortcut{});
    const auto x = random_tensor<double>({2, 7, 6, 8}, 1);
    const Context train = Context::train({.step = 0, .seed = 1});
    const auto y = block.forward(x, train);
    const auto expected = same.forward(x, train);
    CHECK(sd_test::relative_error(y, expected) == 0);
    CHECK(sd_test::relative_error(block.backward(y), same.backward(expected)) == 0);
    CHECK_FALSE(block.has_identity_shortcut());
    CHECK(block.mask() == sd::Mask{1, 1});

    auto model = sd::cifar_efficientnet<float>();
    sd::apply_stochastic_depth(model, {.stochastic_method = sd::StochasticMethod::sample,
                                       .compute = sd::Compute::survivors,
                                       .scaling = sd::Scaling::train});
    const auto images = random_tensor<float>({4, 32, 32, 3}, 2);
    CHECK(model.forward_features(images, Context::eval()).shape() == sd::Shape{4, 8, 8, 256});
    const auto logits = model.forward(images, train);
    CHECK(logits.shape() == sd::Shape{4, 10});
    CHECK(model.backward(logits).shape() == images.shape());
}

TEST_CASE("EfficientNet: refusals") {
    CHECK_THROWS_AS((void)sd::EfficientNetModel<float>({}, {}), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::EfficientNetModel<float>({.stages = {{.layers = 0}}}, {}), std::invalid_argument);
    sd::Initializer initializer(1);
    CHECK_THROWS_AS((void)sd::MBConv<float>({.in_channels = 0}, initializer), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::MBConv<float>({.expand_ratio = 0}, initializer), std::invalid_argument);
}

}  // namespace test_efficientnet
