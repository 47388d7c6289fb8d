// The activations' formulas: numbers of Python's math module, kinks as PyTorch has them, and derivatives.
#include "kernel_gradient.hpp"
#include "messages.hpp"

#include "sd/reference/activation.hpp"

#include <cmath>
#include <stdexcept>
#include <vector>

namespace test_reference_activation {

using sd::Activation;
namespace reference = sd::reference;

TEST_CASE("activation: names") {
    for (const auto& [activation, name] : sd::detail::EnumNames<Activation>::names) {
        CHECK(sd::parse<Activation>(name) == activation);
        CHECK(sd::to_string(activation) == name);
    }
    CHECK(
        sd_test::message_of([] { (void)sd::parse<Activation>("swish"); }) ==
        "parse: activation: got \"swish\", expected none, relu, relu6, silu, hardswish, gelu, sigmoid or hardsigmoid");
}

TEST_CASE("activation: values and derivatives, those at kinks included") {
    const std::vector<double> points{-8, -4, -3, -1.5, -0.5, 0, 0.5, 1.5, 3, 4, 6, 8};
    struct Case {
        Activation activation;
        std::vector<double> values, derivatives;
    };
    // from the formulas of core/activation.hpp and their derivatives by hand, in Python
    const Case cases[] = {
        {sd::Activation::none, {-8, -4, -3, -1.5, -0.5, 0, 0.5, 1.5, 3, 4, 6, 8}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
        {sd::Activation::relu, {0, 0, 0, 0, 0, 0, 0.5, 1.5, 3, 4, 6, 8}, {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1}},
        {sd::Activation::relu6, {0, 0, 0, 0, 0, 0, 0.5, 1.5, 3, 4, 6, 6}, {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0}},
        {sd::Activation::silu,
         {-0.0026828010437318249, -0.071944839848366235, -0.14227761953270035, -0.27363828570953452,
          -0.1887703343990727, 0, 0.3112296656009273, 1.2263617142904655, 2.8577223804673002, 3.9280551601516338,
          5.9851642610601923, 7.997317198956269},
         {-0.0023465512355853157, -0.052664614891072908, -0.088104106015169631, -0.041294154299142932,
          0.26003881269734819, 0.5, 0.73996118730265181, 1.041294154299143, 1.0881041060151695, 1.0526646148910728,
          1.0123264325915249, 1.0023465512355845}},
        {sd::Activation::hardswish,
         {0, 0, 0, -0.375, -0.20833333333333334, 0, 0.29166666666666669, 1.125, 3, 4, 6, 8},
         {0, 0, 0, 0, 0.33333333333333331, 0.5, 0.66666666666666663, 1, 1, 1, 1, 1}},
        {sd::Activation::gelu,
         {-4.8849813083506888e-15, -0.00012668496733247991, -0.0040496940948903104, -0.10021080190328713,
          -0.15426876936299344, 0, 0.34573123063700656, 1.399789198096713, 2.9959503059051098, 3.9998733150326675,
          5.9999999940804738, 7.9999999999999947},
         {-3.9807546004751306e-14, -0.00050364966122642149, -0.01194564720418392, -0.12746919222997954,
          0.13250487534383712, 0.5, 0.86749512465616285, 1.1274691922299795, 1.0119456472041839, 1.0005036496612265,
          1.0000000354687093, 1.0000000000000397}},
        {sd::Activation::sigmoid,
         {0.00033535013046647811, 0.017986209962091559, 0.047425873177566781, 0.18242552380635635, 0.37754066879814541,
          0.5, 0.62245933120185459, 0.81757447619364365, 0.95257412682243336, 0.98201379003790845, 0.99752737684336534,
          0.99966464986953363},
         {0.00033523767075647424, 0.017662706213291118, 0.045176659730912137, 0.14914645207033286, 0.23500371220159449,
          0.25, 0.23500371220159449, 0.14914645207033286, 0.045176659730911999, 0.017662706213291107,
          0.0024665092913599309, 0.00033523767075636815}},
        {sd::Activation::hardsigmoid,
         {0, 0, 0, 0.25, 0.41666666666666669, 0.5, 0.58333333333333337, 0.75, 1, 1, 1, 1},
         {0, 0, 0, 0.16666666666666666, 0.16666666666666666, 0.16666666666666666, 0.16666666666666666,
          0.16666666666666666, 0, 0, 0, 0}},
    };
    CHECK(std::size(cases) == std::size(sd::detail::EnumNames<Activation>::names));
    for (const Case& one : cases) {
        CAPTURE(sd::to_string(one.activation));
        for (std::size_t i = 0; i < points.size(); ++i) {
            CAPTURE(points[i]);
            CHECK(std::abs(sd::activate(one.activation, points[i]) - one.values[i]) <
                  1e-15 * (1 + std::abs(points[i])));
            CHECK(std::abs(sd::activation_derivative(one.activation, points[i]) - one.derivatives[i]) < 2e-15);
            const auto both = sd::activate_with_derivative(one.activation, points[i]);
            CHECK(std::abs(both.value - one.values[i]) < 1e-15 * (1 + std::abs(points[i])));
            CHECK(std::abs(both.derivative - one.derivatives[i]) < 2e-15);
        }
    }
}

TEST_CASE("activation: tensors, and their gradients against the values") {
    const auto x = random_tensor<double>({5, 7, 3}, 1, -8, 8);
    for (const auto& one : sd::detail::EnumNames<Activation>::names) {
        const Activation activation = one.value;
        CAPTURE(one.name);
        check_gradient([&]<class N>(const Tensor<N>& v) { return reference::activation_forward(v, activation); },
                       [&](const Tensor<double>& dy) { return reference::activation_by_input(dy, x, activation); }, x);
        CHECK(std::isnan(sd::activate(activation, not_a_number)));
    }
    const Tensor<double> row(Shape{1, 4}, {-2, 0, 3, not_a_number});
    const Tensor<double> dy(Shape{1, 4}, {1, infinity, 4, not_a_number});
    check_equal(reference::activation_by_input(dy, row, Activation::relu), Tensor<double>(Shape{1, 4}, {0, 0, 4, 0}));
    check_equal(reference::activation_by_input(dy, row, Activation::relu6), Tensor<double>(Shape{1, 4}, {0, 0, 4, 0}));
    CHECK_THROWS_AS((void)reference::activation_by_input(dy, Tensor<double>(Shape{4}), Activation::relu),
                    std::invalid_argument);
}

}  // namespace test_reference_activation
