// The cases that the tests of MosaicML Composer put to stochastic depth
// (tests/algorithms/test_stochastic_depth.py), in words of our own.
#include "messages.hpp"
#include "random.hpp"

#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace test_composer_cases {

using sd::Tensor;
using sd_test::contains;
using sd_test::message_of;
using sd_test::random_tensor;

namespace {

sd::Context step(std::uint64_t step) { return sd::Context::train({.step = step, .seed = sd_test::seed}); }

/// A bottleneck of 16 channels with an identity shortcut.
template <class Policy>
sd::StochasticResidual<sd::Bottleneck<float>, Policy> bottleneck(double drop_rate) {
    sd::Initializer initializer(1);
    return sd::StochasticResidual<sd::Bottleneck<float>, Policy>(
        sd::Bottleneck<float>({.in_channels = 16, .planes = 4}, initializer), {.drop_rate = drop_rate});
}

template <class Model>
std::vector<std::string> state_of(Model& model) {
    std::vector<std::string> state;
    for (const auto& block : model.blocks()) {
        const auto* whole = block.policy().template get_if<sd::BlockPolicy>();
        const auto* sample = block.policy().template get_if<sd::SamplePolicy>();
        state.push_back(sd::text(block.block_index(), ' ', block.policy().drop_rate(), whole != nullptr ? " block" : "",
                                 sample != nullptr ? " sample" : ""));
    }
    sd::for_each_parameter(model, [&](const std::string& name, const auto& parameter) {
        state.push_back(sd::text(name, ' ', parameter.get(), ' ', parameter->value.data()));
    });
    return state;
}

}  // namespace

TEST_CASE("block-wise, a block that is always dropped returns its input: the same address") {
    auto block = bottleneck<sd::BlockPolicy>(1);
    const Tensor<float> x = random_tensor<float>({2, 5, 5, 16}, 1);  // negative entries too: no activation either
    for (std::uint64_t i = 0; i < 10; ++i) CHECK(block.forward(x, step(i)).data() == x.data());
}

TEST_CASE("block-wise, a block that is never dropped does not") {
    auto block = bottleneck<sd::BlockPolicy>(0);
    const Tensor<float> x = random_tensor<float>({2, 5, 5, 16}, 1);
    for (std::uint64_t i = 0; i < 10; ++i) {
        const Tensor<float> y = block.forward(x, step(i));
        CHECK(y.data() != x.data());
        CHECK_FALSE(std::equal(x.begin(), x.end(), y.begin()));
    }
}

TEST_CASE("sample-wise, a block that drops every sample returns a rectified input exactly") {
    auto block = bottleneck<sd::SamplePolicy>(1);
    const Tensor<float> x = random_tensor<float>({2, 5, 5, 16}, 1, 0, 1);
    const Tensor<float> y = block.forward(x, step(0));
    CHECK(std::equal(x.begin(), x.end(), y.begin(), y.end()));
}

TEST_CASE("sample-wise, a block that drops no sample does not") {
    auto block = bottleneck<sd::SamplePolicy>(0);
    const Tensor<float> x = random_tensor<float>({2, 5, 5, 16}, 1, 0, 1);
    const Tensor<float> y = block.forward(x, step(0));
    CHECK_FALSE(std::equal(x.begin(), x.end(), y.begin(), y.end()));
}

TEST_CASE("as many blocks become stochastic as the network has of the named kind, 16 in resnet50") {
    for (const auto method : {sd::StochasticMethod::block, sd::StochasticMethod::sample}) {
        auto model = sd::resnet50<float>({.num_classes = 10});
        const auto stochastic = [&] {
            return std::count_if(model.blocks().begin(), model.blocks().end(),
                                 [](const auto& block) { return block.policy().is_stochastic(); });
        };
        CHECK(stochastic() == 0);
        sd::apply_stochastic_depth(model, {.target_layer_name = "ResNetBottleneck", .stochastic_method = method});
        CHECK(stochastic() == 16);
    }
}

TEST_CASE("applied twice is as applied once") {
    for (const auto method : {sd::StochasticMethod::block, sd::StochasticMethod::sample}) {
        const sd::StochasticDepthOptions options{.stochastic_method = method, .drop_rate = 0.5};
        auto model = sd::cifar_bottleneck_resnet<double>(29);
        sd::apply_stochastic_depth(model, options);
        const auto once = state_of(model);
        const Tensor<double> x = random_tensor<double>({4, 8, 8, 3}, 2);
        const Tensor<double> y = model.forward(x, step(3));
        sd::apply_stochastic_depth(model, options);
        CHECK(state_of(model) == once);
        const Tensor<double> again = model.forward(x, step(3));
        CHECK(std::equal(y.begin(), y.end(), again.begin(), again.end()));
    }
}

TEST_CASE("bad settings are refused") {
    auto model = sd::cifar_bottleneck_resnet<float>(29);
    const auto before = state_of(model);
    const auto apply = [&](const sd::StochasticDepthOptions& options) {
        return message_of([&] { sd::apply_stochastic_depth(model, options); });
    };
    CHECK(contains(message_of([] { (void)sd::parse_options("stochastic_method=wrong"); }), "block or sample"));
    CHECK(contains(message_of([] { (void)sd::parse_options("drop_distribution=wrong"); }), "linear_huang"));
    CHECK(contains(apply({.stochastic_method = static_cast<sd::StochasticMethod>(7)}), "stochastic_method"));
    CHECK(contains(apply({.drop_distribution = static_cast<sd::DropDistribution>(7)}), "drop_distribution"));
    const std::string layer = apply({.target_layer_name = "wrong"});
    CHECK(contains(layer, "target_layer_name"));
    CHECK(contains(layer, "\"wrong\""));
    CHECK(contains(layer, "ResNetBottleneck"));
    CHECK(contains(apply({.drop_rate = -0.5}), "drop_rate: got -0.5, expected a number from 0 to 1"));
    CHECK(contains(apply({.drop_rate = 1.7}), "drop_rate: got 1.7, expected a number from 0 to 1"));
    CHECK(contains(apply({.drop_rate = std::numeric_limits<double>::quiet_NaN()}), "drop_rate: got nan"));
    CHECK(state_of(model) == before);
}

}  // namespace test_composer_cases
