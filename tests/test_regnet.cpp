// RegNet: names, counts, the formula of its widths, start values, and where it drops.
#include "random.hpp"

#include <sd/sd.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

namespace test_regnet {

namespace {

using sd::Context;
using sd::Index;
using sd_test::random_tensor;

template <class Model>
std::set<std::string> names_of(Model& model) {
    std::set<std::string> names;
    sd::for_each_state(
        model, [&](const std::string& name, auto&) { names.insert(name); },
        [&](const std::string& name, auto&) { names.insert(name); });
    return names;
}

}  // namespace

TEST_CASE("RegNetX-400MF and RegNetY-400MF: names and counts are torchvision's") {
    auto x = sd::regnet_x_400mf<float>();
    CHECK(x.parameter_count() == 5'495'976);
    CHECK(names_of(x).size() == 428);
    auto y = sd::regnet_y_400mf<float>();
    CHECK(y.parameter_count() == 4'344'144);
    const auto names = names_of(y);
    CHECK(names.size() == 384);
    for (const char* name :
         {"stem.0.weight", "stem.1.running_var", "trunk_output.block1.block1-0.proj.0.weight",
          "trunk_output.block1.block1-0.proj.1.num_batches_tracked", "trunk_output.block1.block1-0.f.a.0.weight",
          "trunk_output.block2.block2-1.f.b.1.bias", "trunk_output.block4.block4-5.f.se.fc1.weight",
          "trunk_output.block4.block4-5.f.se.fc2.bias", "trunk_output.block4.block4-5.f.c.1.weight", "fc.weight"}) {
        CAPTURE(name);
        CHECK(names.contains(name));
    }
    CHECK_FALSE(names.contains("trunk_output.block4.block4-5.proj.0.weight"));
    CHECK_FALSE(names_of(x).contains("trunk_output.block1.block1-0.f.se.fc1.weight"));
}

TEST_CASE("RegNet: the formula gives the depths, widths and groups of all sizes") {
    struct Size {
        Index blocks;
        double w0, wa, wm;
        Index group;
        std::vector<Index> layers, widths, groups;
    };
    // torchvision's, built and counted
    const Size sizes[] = {{22, 24, 24.48, 2.54, 16, {1, 2, 7, 12}, {32, 64, 160, 400}, {16, 16, 16, 16}},
                          {16, 56, 35.73, 2.28, 16, {1, 3, 7, 5}, {64, 128, 288, 672}, {16, 16, 16, 16}},
                          {18, 80, 34.01, 2.25, 24, {2, 4, 10, 2}, {72, 168, 408, 912}, {24, 24, 24, 24}},
                          {25, 88, 26.31, 2.25, 48, {2, 6, 15, 2}, {96, 192, 432, 1008}, {48, 48, 48, 48}},
                          {23, 80, 49.56, 2.88, 120, {2, 5, 15, 1}, {80, 240, 720, 1920}, {80, 120, 120, 120}},
                          {22, 216, 55.59, 2.1, 128, {2, 6, 13, 1}, {256, 512, 896, 2048}, {128, 128, 128, 128}},
                          {23, 320, 69.86, 2.0, 168, {2, 7, 13, 1}, {336, 672, 1344, 2520}, {168, 168, 168, 168}},
                          {16, 48, 27.89, 2.09, 8, {1, 3, 6, 6}, {48, 104, 208, 440}, {8, 8, 8, 8}},
                          {14, 56, 38.84, 2.4, 16, {1, 3, 8, 2}, {64, 144, 320, 784}, {16, 16, 16, 16}},
                          {27, 48, 20.71, 2.65, 24, {2, 6, 17, 2}, {48, 120, 336, 888}, {24, 24, 24, 24}},
                          {21, 80, 42.63, 2.66, 24, {2, 5, 13, 1}, {72, 216, 576, 1512}, {24, 24, 24, 24}},
                          {17, 192, 76.82, 2.19, 56, {2, 4, 10, 1}, {224, 448, 896, 2016}, {56, 56, 56, 56}},
                          {18, 200, 106.23, 2.48, 112, {2, 4, 11, 1}, {224, 448, 1232, 3024}, {112, 112, 112, 112}},
                          {20, 232, 115.89, 2.53, 232, {2, 5, 12, 1}, {232, 696, 1392, 3712}, {232, 232, 232, 232}},
                          {27, 456, 160.83, 2.52, 264, {2, 7, 17, 1}, {528, 1056, 2904, 7392}, {264, 264, 264, 264}}};
    for (const Size& size : sizes) {
        CAPTURE(size.w0);
        CAPTURE(size.wa);
        const auto stages = sd::regnet_stages(size.blocks, size.w0, size.wa, size.wm, size.group);
        REQUIRE(stages.size() == 4);
        for (std::size_t i = 0; i < 4; ++i) {
            CHECK(stages[i].layers == size.layers[i]);
            CHECK(stages[i].width == size.widths[i]);
            CHECK(stages[i].group_width == size.groups[i]);
        }
    }
}

TEST_CASE("RegNet: start values, and blocks that project may be dropped or left alone") {
    auto model = sd::cifar_regnet<float>({.num_classes = 50, .seed = 2});
    double squares = 0;
    Index count = 0;
    bool biases_spread = false;
    sd::for_each_parameter(model, [&](const std::string& name, auto& parameter) {
        if (name == "fc.weight") {
            for (const float w : parameter->value) squares += static_cast<double>(w) * static_cast<double>(w);
            count = parameter->value.size();
        }
        if (name == "trunk_output.block3.block3-1.f.se.fc1.bias") {
            for (const float b : parameter->value) {
                CHECK(std::abs(b) <= 1 / std::sqrt(128.0F));
                biases_spread = biases_spread || std::abs(b) > 0.5F / std::sqrt(128.0F);
            }
        }
    });
    CHECK(std::sqrt(squares / static_cast<double>(count)) == doctest::Approx(0.01).epsilon(0.03));
    CHECK(biases_spread);

    sd::StochasticDepthOptions options{.target_layer_name = "RegNetBlock",
                                       .stochastic_method = sd::StochasticMethod::sample,
                                       .drop_rate = 0.5,
                                       .compute = sd::Compute::survivors};
    sd::apply_stochastic_depth(model, options);
    CHECK(model.blocks()[2].policy().drop_rate() == 0.5 * 2 / 9);
    options.drop_at_projections = false;
    sd::apply_stochastic_depth(model, options);
    CHECK(model.blocks()[2].policy().drop_rate() == 0);
    CHECK(model.blocks()[3].policy().drop_rate() == 0.5 * 3 / 9);
    const auto images = random_tensor<float>({4, 32, 32, 3}, 2);
    const auto logits = model.forward(images, Context::train({.step = 0, .seed = 1}));
    CHECK(logits.shape() == sd::Shape{4, 50});
    CHECK(model.backward(logits).shape() == images.shape());
    CHECK(model.forward_features(images, Context::eval()).shape() == sd::Shape{4, 8, 8, 128});
}

TEST_CASE("RegNet: refusals") {
    CHECK_THROWS_AS((void)sd::RegNetModel<float>({}, {}), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::RegNetModel<float>({.stages = {{.layers = 0}}}, {}), std::invalid_argument);
    sd::Initializer initializer(1);
    CHECK_THROWS_AS((void)sd::RegNetBranch<float>({.out_channels = 30, .group_width = 16}, initializer),
                    std::invalid_argument);
    CHECK_THROWS_AS((void)sd::RegNetBranch<float>({.group_width = 0}, initializer), std::invalid_argument);
}

}  // namespace test_regnet
