// ConvNeXt: names, counts and start values, what is fused, surgery, and that it trains.
#include "messages.hpp"
#include "model_state.hpp"
#include "random.hpp"

#include "sd/cpu/cross_entropy.hpp"
#include "sd/models/convnext_variants.hpp"
#include "sd/nn/branch_scale.hpp"
#include "sd/optim/adamw.hpp"
#include "sd/stochastic_depth/describe.hpp"
#include "sd/stochastic_depth/surgery.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_convnext {

using sd::Context;
using sd::Index;
using sd::Shape;
using sd::Tensor;
using sd_test::random_tensor;
using sd_test::relative_error;

namespace {

template <class T>
using Network = sd::ConvNeXt<T>;

// Two stages of blocks whose layer scale is not so small that nothing of them is seen.
template <class T>
Network<T> small_network(std::uint64_t seed = 3) {
    return {{.layers = {2, 2}, .channels = {6, 10}, .patch = 2}, {.num_classes = 4, .seed = seed, .layer_scale = 0.5}};
}

template <class Model>
std::vector<std::string> names_of(Model& model) {
    std::vector<std::string> names;
    sd::for_each_state(
        model, [&](const std::string& name, auto&) { names.push_back(name); },
        [&](const std::string& name, auto&) { names.push_back(name); });
    return names;
}

template <class Model>
auto parameter_of(Model& model, const std::string& wanted) {
    for (const auto& parameter : model.parameters()) {
        if (parameter->name == wanted) return parameter;
    }
    throw std::logic_error("no parameter " + wanted);
}

template <class T>
void train_on(Network<T>& model, const Tensor<T>& x, sd::InputGradient input_gradient) {
    const auto logits = model.forward(x, Context::train({.step = 1, .seed = sd_test::seed}));
    const std::vector<Index> labels = {0, 1, 2, 3};
    model.backward(sd::cross_entropy_by_input(logits, std::span<const Index>(labels), 0.0), input_gradient);
}

}  // namespace

TEST_CASE("ConvNeXt: convnext_tiny has torchvision's parameters, with its names and shapes in its order") {
    auto model = sd::convnext_tiny<float>();
    CHECK(model.parameter_count() == 28'589'128);
    CHECK(model.blocks().size() == 18);
    const std::vector<std::string> names = names_of(model);
    CHECK(names.size() == 182);
    const std::vector<std::string> first(names.begin(), names.begin() + 14);
    CHECK(first == std::vector<std::string>{
                       "features.0.0.weight", "features.0.0.bias", "features.0.1.weight", "features.0.1.bias",
                       "features.1.0.layer_scale", "features.1.0.block.0.weight", "features.1.0.block.0.bias",
                       "features.1.0.block.2.weight", "features.1.0.block.2.bias", "features.1.0.block.3.weight",
                       "features.1.0.block.3.bias", "features.1.0.block.5.weight", "features.1.0.block.5.bias",
                       "features.1.1.layer_scale"});
    const std::vector<std::string> last(names.end() - 5, names.end());
    CHECK(last == std::vector<std::string>{"features.7.2.block.5.bias", "classifier.0.weight", "classifier.0.bias",
                                           "classifier.2.weight", "classifier.2.bias"});
    const auto shape = [&](const std::string& name) { return parameter_of(model, name)->value.shape(); };
    CHECK(shape("features.0.0.weight") == Shape{96, 3, 4, 4});
    CHECK(shape("features.1.0.layer_scale") == Shape{96, 1, 1});
    CHECK(shape("features.1.0.block.0.weight") == Shape{96, 1, 7, 7});
    CHECK(shape("features.1.0.block.3.weight") == Shape{384, 96});
    CHECK(shape("features.1.0.block.5.weight") == Shape{96, 384});
    CHECK(shape("features.2.0.weight") == Shape{96});
    CHECK(shape("features.2.1.weight") == Shape{192, 96, 2, 2});
    CHECK(shape("features.5.8.layer_scale") == Shape{384, 1, 1});
    CHECK(shape("classifier.2.weight") == Shape{1000, 768});

    double squares = 0;
    const auto weight = parameter_of(model, "features.5.4.block.3.weight")->value;
    for (const float w : weight) squares += static_cast<double>(w) * static_cast<double>(w);
    CHECK(std::sqrt(squares / static_cast<double>(weight.size())) == doctest::Approx(0.02).epsilon(0.01));
    for (const float w : parameter_of(model, "features.7.2.layer_scale")->value) CHECK(w == 1e-6F);
    for (const float w : parameter_of(model, "features.7.2.block.2.weight")->value) REQUIRE(w == 1);
    for (const float w : parameter_of(model, "features.7.2.block.5.bias")->value) REQUIRE(w == 0);
    for (const float w : parameter_of(model, "classifier.2.bias")->value) REQUIRE(w == 0);
    CHECK(model.forward(random_tensor<float>({1, 64, 64, 3}, 1), Context::eval()).shape() == Shape{1, 1000});
}

TEST_CASE("ConvNeXt: features, head, new classifiers, and what is refused") {
    auto model = small_network<float>();
    const auto x = random_tensor<float>({2, 13, 16, 3}, 1);
    const auto features = model.forward_features(x, Context::eval());
    CHECK(features.shape() == Shape{2, 3, 4, 10});
    CHECK(relative_error(model.forward_head(features, Context::eval()), model.forward(x, Context::eval())) == 0);
    CHECK(model.num_classes() == 4);
    CHECK(model.classifier_prefix() == "classifier.2.");
    model.reset_classifier(7, {.seed = 5});
    CHECK(model.num_classes() == 7);
    CHECK(model.forward(x, Context::eval()).shape() == Shape{2, 7});
    CHECK(parameter_of(model, "classifier.2.weight")->value.shape() == Shape{7, 10});
    for (const float w : parameter_of(model, "classifier.2.bias")->value) CHECK(w == 0);

    auto cifar = sd::cifar_convnext<float>();
    CHECK(cifar.blocks().size() == 9);
    CHECK(cifar.forward(random_tensor<float>({2, 32, 32, 3}, 2), Context::eval()).shape() == Shape{2, 10});

    using sd_test::contains;
    using sd_test::message_of;
    const auto message = [](const sd::ConvNeXtArchitecture& architecture, const sd::ConvNeXtOptions& options) {
        return message_of([&] { Network<float>(architecture, options); });
    };
    CHECK(contains(message({.layers = {}, .channels = {}}, {}), "ConvNeXt: number of stages: got 0"));
    CHECK(contains(message({.layers = {1, 1}, .channels = {4}}, {}), "ConvNeXt: entries of channels: got 1"));
    CHECK(contains(message({.layers = {0}, .channels = {4}}, {}), "ConvNeXt: blocks of a stage: got 0"));
    CHECK(contains(message({.layers = {1}, .channels = {0}}, {}), "ConvNeXt: channels of a stage: got 0"));
    CHECK(contains(message({.layers = {1}, .channels = {4}, .patch = 0}, {}), "ConvNeXt: patch: got 0"));
    CHECK(contains(message({.layers = {1}, .channels = {4}}, {.in_channels = 0}), "ConvNeXt: in_channels: got 0"));
    CHECK(contains(message({.layers = {1}, .channels = {4}}, {.num_classes = 0}), "Linear: shape of weight"));
    CHECK(contains(message_of([&] {
                       (void)model.forward(random_tensor<float>({1, 8, 8, 4}, 1), Context::eval());
                   }),
                   "ConvNeXt: shape of channels of x: got (4), expected (3)"));
    CHECK(contains(message_of([&] { model.reset_classifier(0); }), "reset_classifier: num_classes: got 0"));
}

TEST_CASE("ConvNeXt: its stochastic depth drops samples with rates that grow from 0, made up for in training") {
    auto model = small_network<double>();
    const auto x = random_tensor<double>({2, 8, 8, 3}, 1);
    const auto plain = model.forward(x, Context::eval());
    const sd_test::Warnings warnings;
    sd::apply_stochastic_depth(model, sd::convnext_stochastic_depth(0.3));
    CHECK(relative_error(model.forward(x, Context::eval()), plain) == 0);  // nothing is scaled in evaluation
    const auto description = sd::describe(model, 16);
    REQUIRE(description.blocks.size() == 4);
    const double rates[] = {0, 0.1, 0.2, 0.3};
    const char* const names[] = {"features.1.0", "features.1.1", "features.3.0", "features.3.1"};
    for (std::size_t i = 0; i < 4; ++i) {
        CHECK(description.blocks[i].name == names[i]);
        CHECK(description.blocks[i].method == "sample");
        CHECK(description.blocks[i].drop_rate == doctest::Approx(rates[i]).epsilon(1e-15));
        CHECK(model.blocks()[i].block_index() == i);
    }
    CHECK(warnings.messages.size() == 1);  // of so few blocks
    CHECK(sd_test::contains(
        sd_test::message_of([&] { sd::apply_stochastic_depth(model, {.target_layer_name = "ConvNeXt"}); }),
        "ConvNeXtBlock"));
}

TEST_CASE("ConvNeXt: what a block is multiplied by in evaluation can be folded into its layer scale") {
    auto model = small_network<double>();
    auto plain = small_network<double>();
    const sd_test::Warnings warnings;
    sd::StochasticDepthOptions options = sd::convnext_stochastic_depth(0.5);
    options.scaling = sd::Scaling::inference;
    sd::apply_stochastic_depth(model, options);
    std::vector<std::string> scaled;
    sd::for_each_scaled_branch(model, [&](const std::string&, double factor, const std::vector<std::string>& names) {
        for (const std::string& name : names) {
            scaled.push_back(name);
            sd::scale_by(parameter_of(plain, name)->value, factor);
        }
    });
    CHECK(scaled == std::vector<std::string>{"features.1.0.layer_scale", "features.1.1.layer_scale",
                                             "features.3.0.layer_scale", "features.3.1.layer_scale"});
    const auto x = random_tensor<double>({2, 8, 8, 3}, 1);
    CHECK(relative_error(plain.forward(x, Context::eval()), model.forward(x, Context::eval())) < 1e-13);
}

TEST_CASE("ConvNeXt: the kept samples alone give the numbers of all samples") {
    for (const sd::Scaling scaling : {sd::Scaling::train, sd::Scaling::inference}) {
        auto all = small_network<double>();
        auto survivors = small_network<double>();
        const sd_test::Warnings warnings;
        sd::StochasticDepthOptions options = sd::convnext_stochastic_depth(0.5);
        options.drop_distribution = sd::DropDistribution::uniform;
        options.scaling = scaling;
        sd::apply_stochastic_depth(all, options);
        options.compute = sd::Compute::survivors;
        sd::apply_stochastic_depth(survivors, options);
        const sd::Mask masks[] = {{1, 0, 1, 0}, {0, 0, 0, 1}, {1, 1, 1, 1}, {0, 1, 1, 0}};
        for (std::size_t i = 0; i < 4; ++i) {
            all.blocks()[i].set_mask(masks[i]);
            survivors.blocks()[i].set_mask(masks[i]);
        }
        const auto x = random_tensor<double>({4, 8, 8, 3}, 1);
        const Context context = Context::train({.step = 0, .seed = 1});
        CHECK(relative_error(survivors.forward(x, context), all.forward(x, context)) < 1e-13);
        const auto dlogits = random_tensor<double>({4, 4}, 2);
        CHECK(relative_error(survivors.backward(dlogits), all.backward(dlogits)) < 1e-12);
        const auto got = survivors.parameters();
        const auto expected = all.parameters();
        for (std::size_t i = 0; i < got.size(); ++i) {
            CAPTURE(got[i]->name);
            CHECK(relative_error(got[i]->grad, expected[i]->grad) < 1e-12);
        }
    }
}

TEST_CASE("ConvNeXt: backward ends where all that is left is frozen") {
    auto free = small_network<double>();
    auto frozen = small_network<double>();
    sd::freeze(frozen, "features.0.");
    sd::freeze(frozen, "features.1.");
    sd::freeze(frozen, "features.2.");
    const auto x = random_tensor<double>({4, 8, 8, 3}, 1);
    train_on(free, x, sd::InputGradient::computed);
    train_on(frozen, x, sd::InputGradient::skipped);
    const auto expected = free.parameters();
    const auto got = frozen.parameters();
    for (std::size_t i = 0; i < got.size(); ++i) {
        CAPTURE(got[i]->name);
        CHECK(got[i]->has_grad == (got[i]->name >= "features.3." || got[i]->name.starts_with("classifier")));
        if (got[i]->has_grad) CHECK(relative_error(got[i]->grad, expected[i]->grad) < 1e-13);
    }
}

TEST_CASE("ConvNeXt: it trains, and the loss on one batch falls") {
    Network<float> model({.layers = {2, 2}, .channels = {6, 10}, .patch = 2},
                         {.num_classes = 4, .seed = sd_test::seed});  // with its own layer scale
    const sd_test::Warnings warnings;
    sd::apply_stochastic_depth(model, sd::convnext_stochastic_depth(0.2));
    sd::AdamW<float> optimizer(model.parameters(), {.learning_rate = 0.02});
    const auto x = random_tensor<float>({4, 8, 8, 3}, 5);
    const std::vector<Index> labels = {0, 1, 2, 3};
    const auto loss = [&] {
        return sd::cross_entropy_forward(model.forward(x, Context::eval()), std::span<const Index>(labels), 0.0);
    };
    const float before = loss();
    for (int step = 0; step < 40; ++step) {
        optimizer.zero_grad();
        train_on(model, x, sd::InputGradient::skipped);
        optimizer.step();
    }
    CHECK(loss() < 0.5F * before);
    CHECK(std::abs(parameter_of(model, "features.3.1.layer_scale")->value.data()[0]) > 1e-3F);
}

}  // namespace test_convnext
