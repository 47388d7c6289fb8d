// A Sequential computes what its layers compute one by one.
#include "largest_difference.hpp"
#include "messages.hpp"
#include "random.hpp"

#include <sd/sd.hpp>

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

namespace test_sequential {

namespace {

using sd::Context;
using sd::Index;
using sd::Initializer;
using sd::named;
using sd::Shape;
using sd::Tensor;
using sd_test::random_tensor;

template <class T>
double difference(const Tensor<T>& a, const Tensor<T>& b) {
    return sd_test::largest_difference({a.begin(), a.end()}, {b.begin(), b.end()});
}

template <class T>
using Conv = sd::Conv2d<T>;
template <class T>
using Norm = sd::BatchNorm2d<T>;
template <class T>
using Excite = sd::SqueezeExcitation<T>;

// Layers of a kind in each place where groups begin and end.
template <class T>
auto mixed(Initializer initializer) {
    return sd::Sequential{named("conv1", Conv<T>(3, 8, 3, {.padding = 1}, initializer)),
                          named("bn1", Norm<T>(8)),
                          named("silu1", sd::Silu<T>()),
                          named("se1", Excite<T>(8, 2, initializer)),
                          named("conv2", Conv<T>(8, 8, 3, {.stride = 2, .padding = 1, .bias = true}, initializer)),
                          named("gelu2", sd::Gelu<T>()),
                          named("se2", Excite<T>(8, 3, initializer)),
                          named("conv3", Conv<T>(8, 4, 1, {.bias = true}, initializer)),
                          named("bn3", Norm<T>(4)),
                          named("relu6", sd::Relu6<T>()),
                          named("max_pool", sd::MaxPool2d<T>({.kernel = 2, .stride = 1})),
                          named("se3", Excite<T>(4, 1, initializer)),
                          named("se4", Excite<T>(4, 2, initializer)),
                          named("bn4", Norm<T>(4)),
                          named("sigmoid4", sd::Sigmoid<T>()),
                          named("se5", Excite<T>(4, 1, initializer)),
                          named("conv5", Conv<T>(4, 5, 1, {}, initializer)),
                          named("relu5", sd::Relu<T>()),
                          named("norm6", sd::LayerNorm2d<T>(5)),
                          named("linear6", sd::PixelLinear<T>(initializer.normal<T>({9, 5}, 0.3))),
                          named("gelu6", sd::Gelu<T>()),
                          named("conv7", Conv<T>(9, 4, 1, {}, initializer)),
                          named("scale7", sd::LayerScale<T>(4)),
                          named("linear8", sd::PixelLinear<T>(initializer.normal<T>({3, 4}, 0.3))),
                          named("scale8", sd::LayerScale<T>(3))};
}
constexpr std::size_t layers_of_mixed = 25;

// Weights and biases of norms and convolutions that no initialiser gives.
template <class Layer>
void randomize(Layer& layer) {
    std::uint64_t stream = 1;
    sd::for_each_parameter(layer, [&](const std::string&, auto& parameter) {
        const auto values = random_tensor<double>(parameter->value.shape(), stream++, 0.2, 0.9);
        for (Index i = 0; i < values.size(); ++i) {
            using Value = std::remove_cvref_t<decltype(parameter->value.data()[0])>;
            parameter->value.data()[i] = static_cast<Value>(values.data()[i]);
        }
    });
}

// The same by each layer's own forward and backward, with plain tensors between them.
template <std::size_t i = 0, class Layers>
auto forward_one_by_one(Layers& layers, const Tensor<double>& x, const Context& context) {
    if constexpr (i == layers_of_mixed) {
        return x;
    } else {
        return forward_one_by_one<i + 1>(layers, layers.template layer<i>().forward(x, context), context);
    }
}
template <std::size_t i = layers_of_mixed, class Layers>
auto backward_one_by_one(Layers& layers, const Tensor<double>& dy) {
    if constexpr (i == 0) {
        return dy;
    } else {
        return backward_one_by_one<i - 1>(layers, layers.template layer<i - 1>().backward(dy));
    }
}

template <class Layers>
std::vector<Tensor<double>> gradients_and_buffers(Layers& layers) {
    std::vector<Tensor<double>> all;
    sd::for_each_state(
        layers, [&](const std::string&, auto& parameter) { all.push_back(parameter->grad); },
        [&](const std::string&, auto& buffer) {
            if constexpr (!std::is_same_v<std::remove_cvref_t<decltype(buffer)>, std::int64_t>) all.push_back(buffer);
        });
    return all;
}

}  // namespace

TEST_CASE("Sequential: outputs, gradients and running statistics are those of the layers one by one") {
    auto fused = mixed<double>(Initializer(5));
    auto alone = mixed<double>(Initializer(5));
    randomize(fused);
    randomize(alone);
    const auto x = random_tensor<double>({3, 9, 7, 3}, 100);
    for (const Context& context : {Context::train({.step = 0, .seed = 1}), Context::eval({.gradients = true})}) {
        const auto y = fused.forward(x, context);
        const auto expected = forward_one_by_one(alone, x, context);
        REQUIRE(y.shape() == expected.shape());
        CHECK(difference(y, expected) < 1e-13);
        const auto dy = random_tensor<double>(y.shape(), 200);
        CHECK(difference(fused.backward(dy), backward_one_by_one(alone, dy)) < 1e-12);
        const auto got = gradients_and_buffers(fused);
        const auto want = gradients_and_buffers(alone);
        REQUIRE(got.size() == want.size());
        for (std::size_t i = 0; i < got.size(); ++i) {
            CAPTURE(i);
            REQUIRE(got[i].shape() == want[i].shape());
            CHECK(difference(got[i], want[i]) < 1e-11);
        }
    }
    CHECK(difference(fused.forward(x, Context::eval()), forward_one_by_one(alone, x, Context::eval())) < 1e-12);
}

TEST_CASE("Sequential: the gradient by x alone is left out when it is not asked for") {
    auto asked = mixed<double>(Initializer(5));
    auto skipped = mixed<double>(Initializer(5));
    const auto x = random_tensor<double>({2, 8, 8, 3}, 100);
    const Context context = Context::train({.step = 0, .seed = 1});
    const auto dy = random_tensor<double>(asked.forward(x, context).shape(), 200);
    (void)skipped.forward(x, context);
    CHECK(asked.backward(dy).shape() == x.shape());
    CHECK_FALSE(skipped.backward(dy, sd::InputGradient::skipped));
    const auto got = gradients_and_buffers(skipped);
    const auto want = gradients_and_buffers(asked);
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(difference(got[i], want[i]) == 0);
}

TEST_CASE("Sequential: names its layers in order, and braces draw start values in order") {
    Initializer one(7), two(7);
    sd::Sequential pair{named("a", Conv<float>(2, 3, 1, {.bias = true}, one)),
                        named("b", Conv<float>(3, 2, 1, {}, one))};
    std::vector<std::string> names;
    sd::for_each_parameter(pair, [&](const std::string& name, auto&) { names.push_back(name); });
    CHECK(names == std::vector<std::string>{"a.weight", "a.bias", "b.weight"});
    const Conv<float> a(2, 3, 1, {}, two);
    const Conv<float> b(3, 2, 1, {}, two);
    CHECK(difference(pair.layer<0>().weight()->value, a.weight()->value) == 0);
    CHECK(difference(pair.layer<1>().weight()->value, b.weight()->value) == 0);
}

TEST_CASE("PixelLinear is Linear at every pixel, with its shapes; start values that do not fit are refused") {
    const auto weight = random_tensor<double>({4, 3}, 1);
    const auto bias = random_tensor<double>({4}, 2);
    sd::PixelLinear<double> pixels(weight.clone());
    pixels.bias()->value = bias;
    sd::Linear<double> linear(weight.clone(), bias.clone());
    const auto x = random_tensor<double>({2, 3, 5, 3}, 3);
    const auto dy = random_tensor<double>({2, 3, 5, 4}, 4);
    const Context context = Context::train({.step = 0, .seed = 1});
    CHECK(difference(pixels.forward(x, context), linear.forward(x.reshape({30, 3}), context)) < 1e-14);
    CHECK(difference(pixels.backward(dy), linear.backward(dy.reshape({30, 4}))) < 1e-14);
    CHECK(pixels.weight()->grad.shape() == Shape{4, 3});
    CHECK(difference(pixels.weight()->grad, linear.weight()->grad) < 1e-13);
    CHECK(difference(pixels.bias()->grad, linear.bias()->grad) < 1e-13);

    using sd_test::contains;
    using sd_test::message_of;
    CHECK(contains(message_of([] { sd::PixelLinear<float>(Tensor<float>(Shape{4, 3, 1, 1})); }), "PixelLinear"));
    CHECK(contains(message_of([] { sd::Conv2d<float>(Tensor<float>(Shape{4, 3}), {}); }), "Conv2d: shape of weight"));
    CHECK(contains(message_of([] { sd::Conv2d<float>(Tensor<float>(Shape{4, 0, 1, 1}), {}); }), "1 or more of each"));
    CHECK(contains(message_of([] {
                       sd::Conv2d<float>(Tensor<float>(Shape{4, 1, 3, 3}), {.groups = 3});
                   }),
                   "a divisor of 3 and 4 channels"));
    CHECK(contains(message_of([] {
                       sd::Linear<float>(Tensor<float>(Shape{4, 3}), Tensor<float>(Shape{3}));
                   }),
                   "Linear: shape of bias"));
    CHECK(contains(message_of([] { sd::LayerScale<float>(0); }), "LayerScale: channels: got 0"));
}

TEST_CASE("Sequential: a frozen bias costs nothing and receives nothing") {
    Initializer initializer(7);
    sd::Sequential layers{named("conv", Conv<double>(3, 4, 1, {.bias = true}, initializer)),
                          named("silu", sd::Silu<double>()),
                          named("last", Conv<double>(4, 2, 1, {.bias = true}, initializer))};
    sd::freeze(layers, "conv.bias");
    sd::freeze(layers, "last.bias");
    const auto x = random_tensor<double>({2, 3, 3, 3}, 1);
    const auto y = layers.forward(x, Context::train({.step = 0, .seed = 1}));
    (void)layers.backward(y);
    CHECK(layers.layer<0>().weight()->has_grad);
    CHECK_FALSE(layers.layer<0>().bias()->has_grad);
    CHECK_FALSE(layers.layer<2>().bias()->has_grad);
}

TEST_CASE("Sequential: backward without a forward pass that keeps gradients is refused") {
    auto layers = mixed<float>(Initializer(5));
    const auto x = random_tensor<float>({1, 6, 6, 3}, 1);
    const auto y = layers.forward(x, Context::eval());
    CHECK_THROWS_AS((void)layers.backward(y), std::logic_error);
}

}  // namespace test_sequential
