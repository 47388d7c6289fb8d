// The ResNet builder, its layers, and whole networks.
#include "model_state.hpp"
#include "random.hpp"

#include "sd/cpu/cross_entropy.hpp"
#include "sd/models/resnet_variants.hpp"
#include "sd/stochastic_depth/surgery.hpp"
#include "sd/optim/sgd.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

namespace test_resnet {

using sd::Index;
using sd::Tensor;
using sd_test::random_tensor;
using sd_test::state_of;

TEST_CASE("parameter counts are torchvision's") {
    CHECK(sd::resnet18<float>().parameter_count() == 11'689'512);
    CHECK(sd::resnet34<float>().parameter_count() == 21'797'672);
    CHECK(sd::resnet50<float>().parameter_count() == 25'557'032);
    CHECK(sd::resnet101<float>().parameter_count() == 44'549'160);
    CHECK(sd::resnet152<float>().parameter_count() == 60'192'808);
    CHECK(sd::resnext50_32x4d<float>().parameter_count() == 25'028'904);
    CHECK(sd::resnext101_32x8d<float>().parameter_count() == 88'791'336);
    CHECK(sd::wide_resnet50_2<float>().parameter_count() == 68'883'240);
    CHECK(sd::wide_resnet101_2<float>().parameter_count() == 126'886'696);
}

TEST_CASE("names of parameters and buffers are torchvision's, in its order") {
    auto model = sd::resnet50<float>();
    std::vector<std::string> names;
    sd::for_each_state(
        model,
        [&](const std::string& name, auto& parameter) {
            names.push_back(name);
            CHECK(parameter->name == name);
        },
        [&](const std::string& name, auto&) { names.push_back(name); });
    const std::vector<std::string> first(names.begin(), names.begin() + 12);
    CHECK(first == std::vector<std::string>{"conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean",
                                            "bn1.running_var", "bn1.num_batches_tracked", "layer1.0.conv1.weight",
                                            "layer1.0.bn1.weight", "layer1.0.bn1.bias", "layer1.0.bn1.running_mean",
                                            "layer1.0.bn1.running_var", "layer1.0.bn1.num_batches_tracked"});
    const std::set<std::string> all(names.begin(), names.end());
    CHECK(all.size() == names.size());
    CHECK(names.size() == 161 + 53 * 3);  // torchvision: 161 parameters, 53 batch norms with 3 buffers each
    for (const char* name : {"layer1.0.downsample.0.weight", "layer1.0.downsample.1.running_var", "layer4.2.bn3.bias",
                             "layer3.5.conv2.weight", "fc.weight", "fc.bias"}) {
        CAPTURE(name);
        CHECK(all.contains(name));
    }
    CHECK_FALSE(all.contains("layer1.1.downsample.0.weight"));
    CHECK(names.back() == "fc.bias");
}

TEST_CASE("start values have the stated distributions and depend on the seed") {
    auto model = sd::resnet18<double>({.num_classes = 100, .seed = 1});
    auto other = sd::resnet18<double>({.num_classes = 100, .seed = 2});
    const auto value = [](auto& network, const std::string& wanted) {
        Tensor<double> found;
        sd::for_each_parameter(network, [&](const std::string& name, auto& parameter) {
            if (name == wanted) found = parameter->value;
        });
        REQUIRE(found);
        return found;
    };
    const Tensor<double> weight = value(model, "layer3.1.conv1.weight");  // (256, 256, 3, 3)
    double sum = 0;
    double squares = 0;
    for (const double w : weight) {
        sum += w;
        squares += w * w;
    }
    const auto count = static_cast<double>(weight.size());
    const double variance = 2.0 / (256 * 9);
    CHECK(std::abs(sum / count) < 5 * std::sqrt(variance / count));
    CHECK(squares / count == doctest::Approx(variance).epsilon(0.01));
    const double bound = 1 / std::sqrt(512.0);
    for (const double w : value(model, "fc.weight")) REQUIRE(std::abs(w) <= bound);
    const Tensor<double> fc = value(model, "fc.weight");
    CHECK(*std::max_element(fc.begin(), fc.end()) > 0.99 * bound);
    for (const double w : value(model, "layer1.0.bn2.weight")) REQUIRE(w == 1);
    for (const double w : value(model, "layer1.0.bn2.bias")) REQUIRE(w == 0);
    CHECK(value(model, "conv1.weight").data()[0] != value(other, "conv1.weight").data()[0]);
    CHECK(value(model, "layer1.0.conv1.weight").data()[0] != value(model, "layer1.0.conv2.weight").data()[0]);

    auto zero = sd::resnet18<double>({.num_classes = 100, .zero_init_residual = true});
    for (const double w : value(zero, "layer1.0.bn2.weight")) REQUIRE(w == 0);
    for (const double w : value(zero, "layer1.0.bn1.weight")) REQUIRE(w == 1);
}

TEST_CASE("every named network gives logits of the right shape") {
    const Tensor<float> image = random_tensor<float>({1, 64, 64, 3}, 1);
    CHECK(sd::resnet18<float>({.num_classes = 7}).forward(image, sd::Context::eval()).shape() == sd::Shape{1, 7});
    CHECK(sd::resnext50_32x4d<float>({.num_classes = 7}).forward(image, sd::Context::eval()).shape() ==
          sd::Shape{1, 7});
    CHECK(sd::wide_resnet50_2<float>({.num_classes = 7}).forward(image, sd::Context::eval()).shape() ==
          sd::Shape{1, 7});
    const Tensor<float> small = random_tensor<float>({2, 32, 32, 3}, 2);
    CHECK(sd::cifar_resnet<float>(20).forward(small, sd::Context::eval()).shape() == sd::Shape{2, 10});
    CHECK(sd::cifar_bottleneck_resnet<float>(29).forward(small, sd::Context::eval()).shape() == sd::Shape{2, 10});
    CHECK(sd::cifar_resnet<float>(20).blocks().size() == 9);
    CHECK(sd::cifar_resnet<float>(20).classifier_prefix() == "fc.");
    CHECK(sd::cifar_resnet<float>(110).blocks().size() == 54);
    CHECK(sd::cifar_resnet<float>(20).parameter_count() == 269'722);  // 0.27 M, He et al., table 6
    CHECK_THROWS_AS((void)sd::cifar_resnet<float>(21), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::cifar_bottleneck_resnet<float>(21), std::invalid_argument);
}

TEST_CASE("dilation keeps the image's size, as torchvision's replace_stride_with_dilation") {
    using Network = sd::BottleneckResNet<float>;
    Network model({.layers = {1, 1, 2, 2},
                   .planes = {4, 4, 4, 4},
                   .stem_channels = 4,
                   .replace_stride_with_dilation = {false, false, true, true}},
                  {.num_classes = 3});
    std::vector<sd::Shape> shapes;
    Tensor<float> y = random_tensor<float>({1, 16, 16, 4}, 3);
    for (auto& block : model.blocks()) {
        y = block.forward(y, sd::Context::eval());
        shapes.push_back(y.shape());
    }
    CHECK(shapes[0] == sd::Shape{1, 16, 16, 16});
    CHECK(shapes[1] == sd::Shape{1, 8, 8, 16});
    CHECK(shapes.back() == sd::Shape{1, 8, 8, 16});
}

TEST_CASE("architectures that do not fit together are refused") {
    using Network = sd::BasicResNet<float>;
    CHECK_THROWS_AS(Network({.layers = {}, .planes = {}}, {}), std::invalid_argument);
    CHECK_THROWS_AS(Network({.layers = {1, 1}, .planes = {4}}, {}), std::invalid_argument);
    CHECK_THROWS_AS(Network({.layers = {0}, .planes = {4}}, {}), std::invalid_argument);
    CHECK_THROWS_AS(Network({.layers = {1}, .planes = {4}, .groups = 2}, {}), std::invalid_argument);
    CHECK_THROWS_AS(Network({.layers = {1}, .planes = {4}}, {.num_classes = 0}), std::invalid_argument);
    auto model = sd::cifar_resnet<float>(8);
    CHECK_THROWS_AS((void)model.forward(random_tensor<float>({1, 32, 32, 4}, 1), sd::Context::eval()),
                    std::invalid_argument);
}

TEST_CASE("evaluation scales the branch and leaves running statistics alone") {
    auto model = sd::cifar_bottleneck_resnet<double>(11);
    const Tensor<double> x = random_tensor<double>({2, 8, 8, 3}, 4);
    const std::vector<double> before = state_of(model);
    const Tensor<double> plain = model.forward(x, sd::Context::eval());
    CHECK(state_of(model) == before);
    sd::apply_stochastic_depth(model, {.drop_rate = 0.5, .drop_distribution = sd::DropDistribution::uniform});
    const Tensor<double> scaled = model.forward(x, sd::Context::eval());
    CHECK(sd_test::relative_error(scaled, plain) > 1e-3);
    (void)model.forward(x, sd::Context::train({.step = 0, .seed = 1}));
    CHECK(state_of(model) != before);
}

TEST_CASE("a network trains: the loss on one batch falls") {
    for (const auto method : {sd::StochasticMethod::block, sd::StochasticMethod::sample}) {
        auto model = sd::cifar_bottleneck_resnet<float>(11, {.num_classes = 4, .seed = sd_test::seed});
        sd::apply_stochastic_depth(model, {.stochastic_method = method, .drop_rate = 0.3});
        sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9});
        const Tensor<float> x = random_tensor<float>({8, 8, 8, 3}, 5);
        const std::vector<Index> labels = {0, 1, 2, 3, 0, 1, 2, 3};
        std::vector<float> losses;
        for (std::uint64_t step = 0; step < 30; ++step) {
            optimizer.zero_grad();
            const Tensor<float> logits = model.forward(x, sd::Context::train({.step = step, .seed = sd_test::seed}));
            losses.push_back(sd::cross_entropy_forward(logits, std::span<const Index>(labels), 0.0));
            model.backward(sd::cross_entropy_by_input(logits, std::span<const Index>(labels), 0.0));
            optimizer.step();
        }
        CHECK(losses.back() < 0.5F * losses.front());
    }
}

TEST_CASE("a model that moves keeps its parameters where they are") {
    auto model = sd::cifar_resnet<float>(8);
    const auto parameters = model.parameters();
    auto moved = std::move(model);
    const auto after = moved.parameters();
    REQUIRE(after.size() == parameters.size());
    for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i].get() == parameters[i].get());
}

}  // namespace test_resnet
