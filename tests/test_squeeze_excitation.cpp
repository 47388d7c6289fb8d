// Squeeze-and-excitation against its formula in plain loops, its places in a Sequential, and what it refuses.
#include "largest_difference.hpp"
#include "messages.hpp"
#include "random.hpp"

#include <sd/sd.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

namespace test_squeeze_excitation {

namespace {

using sd::Context;
using sd::Index;
using sd::Initializer;
using sd::named;
using sd::Shape;
using sd::Tensor;
using sd_test::random_tensor;

double difference(const Tensor<double>& a, const Tensor<double>& b) {
    return sd_test::largest_difference({a.begin(), a.end()}, {b.begin(), b.end()});
}

// Every parameter gets numbers that no initialiser gives.
template <class Layer>
void randomize(Layer& layer) {
    std::uint64_t stream = 1;
    sd::for_each_parameter(layer, [&](const std::string&, auto& parameter) {
        parameter->value = random_tensor<double>(parameter->value.shape(), stream++, -0.9, 0.9);
    });
}

double silu(double v) { return v / (1 + std::exp(-v)); }
double sigmoid(double v) { return 1 / (1 + std::exp(-v)); }
double relu(double v) { return v > 0 ? v : 0; }
double hardsigmoid(double v) { return std::fmin(std::fmax(v + 3, 0), 6) / 6; }

// The formula of the paper, sample by sample.
template <class Layer, class Act, class Scale>
Tensor<double> excited(Layer& layer, const Tensor<double>& x, const Act& act, const Scale& scale) {
    const Index channels = x.extent(3), squeezed = layer.fc1().bias()->value.size();
    const double pixels = static_cast<double>(x.extent(1) * x.extent(2));
    Tensor<double> y(x.shape());
    for (Index n = 0; n < x.extent(0); ++n) {
        std::vector<double> mean(static_cast<std::size_t>(channels)), hidden(static_cast<std::size_t>(squeezed));
        const auto at = [](auto& list, Index i) -> auto& { return list[static_cast<std::size_t>(i)]; };
        for (Index h = 0; h < x.extent(1); ++h) {
            for (Index w = 0; w < x.extent(2); ++w) {
                for (Index c = 0; c < channels; ++c) at(mean, c) += x(n, h, w, c) / pixels;
            }
        }
        for (Index q = 0; q < squeezed; ++q) {
            double sum = layer.fc1().bias()->value(q);
            for (Index c = 0; c < channels; ++c) sum += layer.fc1().weight()->value(q, c, 0, 0) * at(mean, c);
            at(hidden, q) = act(sum);
        }
        for (Index c = 0; c < channels; ++c) {
            double sum = layer.fc2().bias()->value(c);
            for (Index q = 0; q < squeezed; ++q) sum += layer.fc2().weight()->value(c, q, 0, 0) * at(hidden, q);
            for (Index h = 0; h < x.extent(1); ++h) {
                for (Index w = 0; w < x.extent(2); ++w) y(n, h, w, c) = x(n, h, w, c) * scale(sum);
            }
        }
    }
    return y;
}

template <class Layer, class Act, class Scale>
void check_formula(const Act& act, const Scale& scale) {
    Initializer initializer(3);
    Layer layer(6, 2, initializer);
    randomize(layer);
    const auto x = random_tensor<double>({3, 5, 7, 6}, 100, -2, 3);
    const auto expected = excited(layer, x, act, scale);
    CHECK(difference(layer.forward(x, Context::eval()), expected) < 1e-14);
    CHECK(difference(layer.forward(x, Context::train({.step = 0, .seed = 1})), expected) < 1e-14);
}

}  // namespace

TEST_CASE("squeeze-and-excitation: the formula of the paper, with each pair of activations") {
    using sd::Activation;
    check_formula<sd::SqueezeExcitation<double>>(silu, sigmoid);
    check_formula<sd::SqueezeExcitation<double, sd::Cpu, Activation::relu>>(relu, sigmoid);
    check_formula<sd::SqueezeExcitation<double, sd::Cpu, Activation::relu, Activation::hardsigmoid>>(relu, hardsigmoid);
}

TEST_CASE("squeeze-and-excitation: names, shapes and start values are those of 1x1 convolutions with bias") {
    Initializer initializer(3), same(3);
    sd::SqueezeExcitation<float> layer(6, 2, initializer);
    std::string names;
    sd::for_each_parameter(layer, [&](const std::string& name, auto& parameter) {
        names += sd::text(name, parameter->value.shape(), ' ');
    });
    CHECK(names == "fc1.weight(2, 6, 1, 1) fc1.bias(2) fc2.weight(6, 2, 1, 1) fc2.bias(6) ");
    const sd::Conv2d<float> conv(6, 2, 1, {.bias = true}, same);
    for (Index i = 0; i < 12; ++i) {
        CHECK(layer.fc1().weight()->value.data()[i] == conv.weight()->value.data()[i]);
    }
}

TEST_CASE("squeeze-and-excitation: a gate may be the last layer of a branch, and pooled") {
    Initializer initializer(3);
    sd::Sequential inner{named("conv", sd::Conv2d<double>(4, 4, 3, {.padding = 1}, initializer)),
                         named("bn", sd::BatchNorm2d<double>(4)),
                         named("se", sd::SqueezeExcitation<double>(4, 2, initializer))};
    randomize(inner);
    sd::StochasticResidual<decltype(inner)> block(std::move(inner));
    const auto x = random_tensor<double>({2, 5, 4, 4}, 100);
    const Context context = Context::train({.step = 0, .seed = 1});
    const auto y = block.forward(x, context);
    auto& branch = block.branch();
    const auto f =
        branch.layer<2>().forward(branch.layer<1>().forward(branch.layer<0>().forward(x, context), context), context);
    for (Index i = 0; i < y.size(); ++i) {
        CHECK(y.data()[i] == doctest::Approx(relu(x.data()[i] + f.data()[i])).epsilon(1e-12));
    }
    sd::Sequential pooled{named("se", sd::SqueezeExcitation<double>(4, 2, initializer)),
                          named("average", sd::GlobalAvgPool<double>())};
    const auto mean = pooled.forward(x, context);
    CHECK(difference(mean, sd::global_avg_pool_forward<double>(pooled.layer<0>().forward(x, context))) < 1e-15);
}

TEST_CASE("squeeze-and-excitation: refusals") {
    Initializer initializer(3);
    using sd_test::message_of;
    CHECK_THROWS_AS((void)sd::SqueezeExcitation<float>(4, 0, initializer), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::SqueezeExcitation<float>(0, 1, initializer), std::invalid_argument);
    sd::SqueezeExcitation<float> layer(4, 2, initializer);
    CHECK_THROWS_AS((void)layer.forward(Tensor<float>(Shape{1, 2, 2, 3}), Context::eval()), std::invalid_argument);
    CHECK_THROWS_AS((void)layer.forward(Tensor<float>(Shape{1, 0, 2, 4}), Context::eval()), std::invalid_argument);
    CHECK_THROWS_AS((void)layer.forward(Tensor<float>(Shape{2, 4}), Context::eval()), std::invalid_argument);
    const auto y = layer.forward(Tensor<float>(Shape{1, 2, 2, 4}), Context::eval());
    CHECK_THROWS_AS((void)layer.backward(y), std::logic_error);
}

}  // namespace test_squeeze_excitation
