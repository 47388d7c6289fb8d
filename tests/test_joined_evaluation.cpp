// Evaluation without gradients, where the last convolution of a branch adds the shortcut: against evaluation with
// gradients, which joins in a pass of its own.
#include "../tools/networks.hpp"
#include "kernel_inputs.hpp"
#include "messages.hpp"
#include "use_tile_machine.hpp"

#include <sd/sd.hpp>

#include <doctest/doctest.h>

#include <utility>

namespace test_joined_evaluation {

namespace {

using sd::bfloat16;
using sd::Context;
using sd::Index;
using sd::Shape;
using sd::Tensor;
using sd_test::check_close;
using sd_test::in_double;
using sd_test::random_tensor;

/// Logits of a network whose statistics have moved, whatever its blocks are multiplied by.
template <class T>
void check_network(tools::AnyNetwork<T> model) {
    const sd_test::Warnings few_blocks;
    const auto x = random_tensor<T>({3, 16, 16, 3}, 1);
    (void)model.forward(x, Context::train({.step = 0, .seed = 1}));
    Tensor<double> unscaled;
    for (const auto scaling : {sd::Scaling::train, sd::Scaling::inference}) {
        sd::apply_stochastic_depth(model, {.stochastic_method = sd::StochasticMethod::sample,
                                           .drop_rate = 0.6,
                                           .drop_distribution = sd::DropDistribution::uniform,
                                           .compute = sd::Compute::survivors,
                                           .scaling = scaling});
        const auto joined = in_double(model.forward(x, Context::eval()));
        CHECK(sd_test::relative_error(joined, in_double(model.forward(x, Context::eval({.gradients = true})))) <
              20 * sd_test::rounding<T>);
        if (unscaled) CHECK(sd_test::relative_error(joined, unscaled) > 1e-3);
        unscaled = joined;
    }
}

/// y of a block in evaluation, and what its parts, each by itself, give in double: each element was rounded once.
template <class Norm>
void check_rounded_once(Norm norm, const Tensor<float>& scale, const Tensor<float>& shift) {
    const sd_test::UseTileMachine floats(nullptr);
    constexpr Index channels = 24;
    sd::Initializer initializer(3);
    sd::Conv2d<bfloat16> conv(channels, channels, 1, {}, initializer);
    const Tensor<float> weight = conv.weight()->value;
    const auto x = random_tensor<bfloat16>({2, 9, 8, channels}, 4);
    sd::StochasticResidual<sd::Sequential<sd::Conv2d<bfloat16>, Norm>, sd::AnyPolicy, sd::NoActivation> block(
        sd::Sequential{sd::named("conv", std::move(conv)), sd::named("norm", std::move(norm))});
    const sd::ResidualJoin<double> join{in_double(x), 1, false};
    check_close(block.forward(x, Context::eval()),
                sd::reference::conv2d_join_forward<double>(in_double(x), in_double(weight), {}, in_double(scale),
                                                           in_double(shift), join));
}

}  // namespace

TEST_CASE_TEMPLATE("ResNet: basic blocks and bottlenecks", T, float, double, bfloat16) {
    check_network(tools::make_network<T>(sd::detail::cifar_architecture(8, 2), false, {.num_classes = 10, .seed = 7}));
    check_network(tools::make_network<T>(sd::detail::cifar_architecture(11, 3), true, {.num_classes = 10, .seed = 7}));
    const sd::ResNetArchitecture projections{
        .layers = {1, 2}, .planes = {16, 24}, .stem_channels = 16, .shortcut = sd::ShortcutKind::projection};
    check_network(tools::make_network<T>(projections, false, {.num_classes = 5, .seed = 7}));
}

TEST_CASE_TEMPLATE("EfficientNet: branches that end in a norm, in SiLU, and blocks without a shortcut", T, float,
                   double, bfloat16) {
    check_network(tools::make_network<T>(
        sd::EfficientNetArchitecture{
            .stages = {{.fused = true, .expand_ratio = 1, .out_channels = 16, .layers = 2},
                       {.fused = true, .expand_ratio = 2, .stride = 2, .out_channels = 24, .layers = 2},
                       {.expand_ratio = 2, .out_channels = 24, .layers = 2}},
            .stem_channels = 16},
        sd::EfficientNetOptions{.num_classes = 5, .seed = 7}));
}

TEST_CASE_TEMPLATE("ConvNeXt: a layer scale is folded too", T, float, double, bfloat16) {
    check_network(tools::make_network<T>(sd::ConvNeXtArchitecture{.layers = {2, 2}, .channels = {6, 10}, .patch = 2},
                                         sd::ConvNeXtOptions{.num_classes = 5, .seed = 7, .layer_scale = 0.5}));
}

TEST_CASE_TEMPLATE("RegNet: with squeeze-and-excitation and without", T, float, double, bfloat16) {
    for (const double se_ratio : {0.0, 0.25}) {
        check_network(tools::make_network<T>(
            sd::RegNetArchitecture{
                .stages = {{.layers = 2, .width = 16, .group_width = 8}, {.layers = 2, .width = 24, .group_width = 8}},
                .se_ratio = se_ratio,
                .stem_channels = 16},
            sd::RegNetOptions{.num_classes = 5, .seed = 7}));
    }
}

TEST_CASE("the sum is rounded once, behind a norm and behind a layer scale") {
    constexpr Index channels = 24;
    sd::BatchNorm2d<bfloat16> norm(channels);
    const auto weight = random_tensor<float>({channels}, 1), bias = random_tensor<float>({channels}, 2);
    norm.weight()->value = weight.clone();
    norm.bias()->value = bias.clone();
    const auto factors =
        sd::batch_norm_factors(norm.running_mean(), norm.running_var(), 1, weight, bias, sd::BatchNormOptions().eps);
    check_rounded_once(std::move(norm), factors.scale, factors.shift);
    check_rounded_once(sd::LayerScale<bfloat16>(channels, 0.5), Tensor<float>::full({channels}, 0.5F),
                       Tensor<float>(Shape{channels}));
}

}  // namespace test_joined_evaluation
