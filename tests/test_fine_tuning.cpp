// Frozen parameters, a new classifier, features: what fine-tuning needs of a network.
#include "messages.hpp"
#include "model_state.hpp"
#include "random.hpp"
#include "small_network.hpp"

#include "sd/training.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

namespace test_fine_tuning {

using sd::Index;
using sd::Tensor;
using sd_test::contains;
using sd_test::message_of;
using sd_test::random_tensor;
using sd_test::relative_error;
using sd_test::state_of;

namespace {

/// A double that counts its products: layers of it run through the plain loops of reference/.
struct Counted {
    static inline long products = 0;
    double value = 0;

    Counted() = default;
    explicit Counted(double number) : value(number) {}
    friend Counted operator+(const Counted& a, const Counted& b) { return Counted(a.value + b.value); }
    friend Counted operator-(const Counted& a, const Counted& b) { return Counted(a.value - b.value); }
    friend Counted operator*(const Counted& a, const Counted& b) {
        ++products;
        return Counted(a.value * b.value);
    }
    friend Counted operator/(const Counted& a, const Counted& b) { return Counted(a.value / b.value); }
    friend Counted operator-(const Counted& a) { return Counted(-a.value); }
    Counted& operator+=(const Counted& other) { return *this = *this + other; }
    Counted& operator-=(const Counted& other) { return *this = *this - other; }
    Counted& operator*=(const Counted& other) { return *this = *this * other; }
    friend Counted exp(const Counted& a) { return Counted(std::exp(a.value)); }
    friend Counted erfc(const Counted& a) { return Counted(std::erfc(a.value)); }
    friend bool operator==(const Counted& a, const Counted& b) { return a.value == b.value; }
    friend auto operator<=>(const Counted& a, const Counted& b) { return a.value <=> b.value; }
};

/// The products of a backward pass.
template <class Layer>
long products_of_backward(Layer& layer, const sd::Shape& x, const sd::Shape& dy) {
    (void)layer.forward(Tensor<Counted>(x), sd::Context::train({.step = 0, .seed = 0}));
    Counted::products = 0;
    (void)layer.backward(Tensor<Counted>(dy));
    return Counted::products;
}

auto network() { return sd::cifar_resnet<float>(14, {.num_classes = 5, .seed = 1}); }

const Tensor<float>& images() {
    static const Tensor<float> x = random_tensor<float>({4, 8, 8, 3}, 1);
    return x;
}
const std::vector<Index>& labels() {
    static const std::vector<Index> l{0, 3, 1, 4};
    return l;
}

/// Forward and backward of one batch.
template <class Model>
void train_step(Model& model, sd::InputGradient input_gradient = sd::InputGradient::skipped) {
    const auto logits = model.forward(images(), sd::Context::train({.step = 0, .seed = 1}));
    (void)model.backward(sd::cross_entropy_by_input(logits, std::span<const Index>(labels()), 0.0), input_gradient);
}

template <class Model>
std::map<std::string, sd::ParameterPtr<float>> named_parameters(Model& model) {
    std::map<std::string, sd::ParameterPtr<float>> all;
    sd::for_each_parameter(model, [&](const std::string& name, auto& parameter) { all.emplace(name, parameter); });
    return all;
}

bool same_bits(const Tensor<float>& a, const Tensor<float>& b) {
    return a.shape() == b.shape() && std::equal(a.begin(), a.end(), b.begin());
}

}  // namespace

TEST_CASE("a frozen layer computes no product by weight") {
    sd::Initializer initializer(1);
    sd::Conv2d<Counted> conv(3, 5, 1, {}, initializer);
    const long conv_products = 2 * 4 * 4 * 3 * 5;  // of a 1x1 convolution, by weight as by input
    const long both = products_of_backward(conv, {2, 4, 4, 3}, {2, 4, 4, 5});
    CHECK(sd::freeze(conv, "weight") == 1);
    CHECK(both - products_of_backward(conv, {2, 4, 4, 3}, {2, 4, 4, 5}) == conv_products);
    CHECK_FALSE(conv.weight()->has_grad);

    sd::Linear<Counted> linear(3, 5, initializer);
    const long linear_products = 2 * 3 * 5;
    const long whole = products_of_backward(linear, {2, 3}, {2, 5});
    sd::freeze(linear, "weight");
    CHECK(whole - products_of_backward(linear, {2, 3}, {2, 5}) == linear_products);
    CHECK(linear.bias()->has_grad);
    CHECK_FALSE(linear.weight()->has_grad);
}

TEST_CASE("frozen parameters receive no gradient, the others the same, and every one hears of backward once") {
    for (const std::string prefix : {"conv1", "layer1.", "layer2.0.bn2", "fc."}) {
        for (const auto input_gradient : {sd::InputGradient::computed, sd::InputGradient::skipped}) {
            auto whole = network(), part = network();
            train_step(part, input_gradient);  // what was received before is forgotten
            const Index frozen = sd::freeze(part, prefix);
            for (const auto& [name, parameter] : named_parameters(part)) {
                if (!name.starts_with(prefix)) parameter->zero_grad();
            }
            std::map<std::string, int> heard;
            for (const auto& [name, parameter] : named_parameters(part)) {
                parameter->on_backward = [&heard, own = name] { ++heard[own]; };
            }
            auto fresh = network();
            sd::freeze(fresh, prefix);
            train_step(fresh, input_gradient);
            train_step(whole, input_gradient);
            train_step(part, input_gradient);
            Index without = 0;
            const auto of_fresh = named_parameters(fresh), of_part = named_parameters(part);
            for (const auto& [name, parameter] : named_parameters(whole)) {
                CHECK(heard[name] == 1);
                const auto& other = of_fresh.at(name);
                CHECK(other->has_grad != name.starts_with(prefix));
                CHECK(other->has_grad == of_part.at(name)->has_grad);
                if (other->has_grad) CHECK(same_bits(other->grad, parameter->grad));
                without += other->has_grad ? 0 : 1;
            }
            CHECK(without == frozen);
        }
    }
}

TEST_CASE("backward ends where nothing before it is trained") {
    auto model = network();
    for (const char* const prefix : {"conv1", "bn1", "layer1.", "layer2.0."}) sd::freeze(model, prefix);
    const auto logits = model.forward(images(), sd::Context::train({.step = 0, .seed = 1}));
    const auto dlogits = sd::cross_entropy_by_input(logits, std::span<const Index>(labels()), 0.0);
    // What a block forgot it cannot go back through.
    for (std::size_t i = 0; i < 3; ++i) sd::forget_passes(model.blocks()[i]);
    for (std::size_t i = 0; i < 3; ++i) model.blocks()[i].forget();
    std::map<std::string, int> heard;
    for (const auto& [name, parameter] : named_parameters(model)) {
        parameter->on_backward = [&heard, own = name] { ++heard[own]; };
    }
    CHECK_NOTHROW((void)model.backward(dlogits, sd::InputGradient::skipped));
    CHECK(heard.size() == named_parameters(model).size());
    CHECK(std::all_of(heard.begin(), heard.end(), [](const auto& one) { return one.second == 1; }));
    CHECK(named_parameters(model).at("layer2.1.conv1.weight")->has_grad);
    CHECK_THROWS_AS((void)model.backward(dlogits, sd::InputGradient::computed), std::logic_error);
}

TEST_CASE("an optimizer leaves frozen parameters alone, running statistics move") {
    auto model = network();
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.1});
    train_step(model);
    optimizer.step();  // all have momentum
    sd::freeze(model, "layer1.");
    CHECK(sd::frozen_parameters(model) == "layer1.0.conv1.weight to layer1.1.bn2.bias");
    std::map<std::string, Tensor<float>> before;
    for (const auto& [name, parameter] : named_parameters(model)) before.emplace(name, parameter->value.clone());
    const std::vector<double> state = state_of(model);
    optimizer.zero_grad();
    train_step(model);
    optimizer.step();
    for (const auto& [name, parameter] : named_parameters(model)) {
        CHECK(same_bits(parameter->value, before.at(name)) == name.starts_with("layer1."));
    }
    sd::for_each_state(
        model, [](const std::string&, const auto&) {},
        [&]<class Buffer>(const std::string& name, const Buffer& buffer) {
            if constexpr (std::is_same_v<Buffer, std::int64_t>) {
                if (name == "layer1.0.bn1.num_batches_tracked") CHECK(buffer == 2);
            }
        });
    CHECK(sd::unfreeze(model, "layer1.1.") == 6);
    optimizer.zero_grad();
    train_step(model);
    optimizer.step();
    const auto after = named_parameters(model);
    CHECK_FALSE(same_bits(after.at("layer1.1.conv1.weight")->value, before.at("layer1.1.conv1.weight")));
    CHECK(same_bits(after.at("layer1.0.conv1.weight")->value, before.at("layer1.0.conv1.weight")));
}

TEST_CASE("what starts no parameter's name is refused") {
    auto model = network();
    CHECK(contains(message_of([&] { sd::freeze(model, "layer9."); }),
                   "freeze: prefix: got \"layer9.\", expected the start of a parameter's name, such as conv1.weight"));
    CHECK(contains(message_of([&] { sd::unfreeze(model, "head"); }), "unfreeze: prefix: got \"head\""));
    CHECK(sd::frozen_parameters(model) == "none");
    sd::freeze(model, "bn1.bias");
    sd::freeze(model, "fc.");
    CHECK(sd::frozen_parameters(model) == "bn1.bias, fc.weight to fc.bias");
    CHECK(sd::has_trainable_parameters(model));
    sd::freeze(model, "");
    CHECK_FALSE(sd::has_trainable_parameters(model));
}

TEST_CASE("optimizers need not hold frozen parameters, and the trainer tells of others that they do not") {
    sd_test::Warnings warnings;
    sd_test::SmallNetwork<double> model;
    sd::ParameterList<double> list = model.parameters();
    std::erase_if(list, [](const auto& parameter) { return parameter->name.starts_with("blocks.0."); });
    sd::Sgd<double> optimizer(list, {.learning_rate = 0.01});
    const auto options = sd_test::small_depth(sd::StochasticMethod::block, sd::DropDistribution::uniform, 0.5);
    CHECK(contains(message_of([&] { sd::apply_stochastic_depth(model, options, {optimizer}); }),
                   "parameter blocks.0.conv.weight: got in none of the optimizers"));
    const auto make_trainer = [&] {
        warnings.messages.clear();
        const sd::Trainer trainer(model, optimizer, sd_test::small_loader<double>(12), {.max_duration = "1ep"});
        return warnings.messages;
    };
    REQUIRE(make_trainer().size() == 1);
    CHECK(contains(warnings.messages[0], "the optimizer does not hold blocks.0.conv.weight: not trained"));
    sd::freeze(model, "blocks.0.");
    CHECK_NOTHROW(sd::apply_stochastic_depth(model, options, {optimizer}));
    CHECK(make_trainer().empty());
}

TEST_CASE("a new classifier") {
    auto model = network();
    sd::Sgd<float> before(model.parameters());
    sd::freeze(model, "");
    const auto old = named_parameters(model);
    CHECK(model.num_classes() == 5);
    CHECK(contains(message_of([&] { model.reset_classifier(0); }), "num_classes: got 0, expected 1 or more"));
    CHECK(model.num_classes() == 5);
    model.reset_classifier(37, {.seed = 3});
    CHECK(model.num_classes() == 37);
    CHECK(model.forward(images(), sd::Context::eval()).shape() == sd::Shape{4, 37});
    for (const auto& [name, parameter] : named_parameters(model)) {
        CHECK(parameter->name == name);
        const bool is_new = name.starts_with("fc.");
        CHECK((parameter != old.at(name)) == is_new);
        CHECK(before.holds(parameter.get()) == !is_new);
        CHECK(parameter->requires_grad == is_new);
        if (!is_new) continue;
        for (const float value : parameter->value) CHECK(std::abs(value) <= 1 / std::sqrt(64.0F));
    }
    auto same = network(), other = network();
    same.reset_classifier(37, {.seed = 3});
    other.reset_classifier(37, {.seed = 4});
    const auto weight = [](auto& of) { return named_parameters(of).at("fc.weight")->value; };
    CHECK(same_bits(weight(same), weight(model)));
    CHECK_FALSE(same_bits(weight(other), weight(model)));
    train_step(model);
    CHECK(named_parameters(model).at("fc.weight")->has_grad);
}

TEST_CASE("features are what the classifier takes the mean of") {
    auto model = network();
    const auto context = sd::Context::eval({.gradients = true});
    const auto features = model.forward_features(images(), context);
    REQUIRE(features.shape() == sd::Shape{4, 2, 2, 64});
    const auto parameters = named_parameters(model);
    const auto &weight = parameters.at("fc.weight")->value, &bias = parameters.at("fc.bias")->value;
    Tensor<float> expected(sd::Shape{4, 5});
    for (Index n = 0; n < 4; ++n) {
        for (Index k = 0; k < 5; ++k) {
            double sum = bias(k);
            for (Index c = 0; c < 64; ++c) {
                double mean = 0;
                for (Index pixel = 0; pixel < 4; ++pixel) mean += features(n, pixel / 2, pixel % 2, c) / 4.0;
                sum += mean * weight(k, c);
            }
            expected(n, k) = static_cast<float>(sum);
        }
    }
    CHECK(relative_error(model.forward_head(features, context), expected) < 1e-5);
    const auto logits = model.forward(images(), context);
    CHECK(relative_error(logits, expected) < 1e-5);

    // Backward from the features: dlogits weight / pixels at each pixel.
    const auto dlogits = random_tensor<float>({4, 5}, 2);
    const auto dx = model.backward(dlogits);
    std::map<std::string, Tensor<float>> gradients;
    for (const auto& [name, parameter] : parameters) {
        gradients.emplace(name, parameter->grad.clone());
        parameter->zero_grad();
    }
    Tensor<float> dfeatures(features.shape());
    for (Index i = 0; i < dfeatures.size(); ++i) {
        const Index n = i / 256, c = i % 64;
        for (Index k = 0; k < 5; ++k) dfeatures.data()[i] += dlogits(n, k) * weight(k, c) / 4;
    }
    (void)model.forward_features(images(), context);
    CHECK(relative_error(model.backward_features(dfeatures), dx) < 1e-4);
    for (const auto& [name, parameter] : parameters) {
        CHECK(parameter->has_grad != name.starts_with("fc."));
        if (parameter->has_grad) CHECK(relative_error(parameter->grad, gradients.at(name)) < 1e-4);
    }
}

}  // namespace test_fine_tuning
