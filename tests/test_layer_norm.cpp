// Layer norm: numbers worked out by hand, gradients of the plain loops, the fast kernels against them, and the layer.
#include "kernel_checks.hpp"
#include "kernel_gradient.hpp"
#include "messages.hpp"

#include "sd/nn/layer_norm2d.hpp"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace test_layer_norm {

namespace {

using sd_test::check_close;
using sd_test::in_double;

template <class T>
using Statistics = sd::LayerNormStatistics<T>;

}  // namespace

TEST_CASE("layer norm: by hand") {
    // Pixels (1, 3) and (2, -2): mean 2 and 0, deviation 1 and 2; eps 3 makes it 2 of a variance of 1.
    const Tensor<double> x(Shape{1, 1, 2, 2}, {1, 3, 2, -2});
    const Tensor<double> weight(Shape{2}, {10, 1});
    const Tensor<double> bias(Shape{2}, {5, 7});
    Statistics<double> statistics;
    check_equal(sd::reference::layer_norm_forward(x, weight, bias, 0.0, &statistics),
                Tensor<double>(x.shape(), {-5, 8, 15, 6}));
    check_equal(statistics.mean, Tensor<double>(Shape{2}, {2, 0}));
    check_equal(statistics.inverse_std, Tensor<double>(Shape{2}, {1, 0.5}));
    const Tensor<double> one_pixel(Shape{1, 2}, {1, 3});
    check_equal(sd::reference::layer_norm_forward(one_pixel, weight, bias, 3.0), Tensor<double>(Shape{1, 2}, {0, 7.5}));
    // One channel has no deviation: y is the bias, and x has no part in it.
    const Tensor<double> single(Shape{3, 1}, {4, -2, 1e6});
    const Tensor<double> seven(Shape{1}, {7});
    Statistics<double> of_single;
    check_equal(sd::reference::layer_norm_forward(single, seven, seven, 1e-6, &of_single),
                Tensor<double>::full({3, 1}, 7.0));
    const auto gradient = sd::reference::layer_norm_backward(single, single, seven, of_single);
    check_equal(gradient.dx, Tensor<double>(Shape{3, 1}));
    check_equal(gradient.dweight, Tensor<double>(Shape{1}));
    check_equal(gradient.dbias, Tensor<double>(Shape{1}, {1000002}));
}

TEST_CASE("layer norm: gradients by x, weight and bias") {
    const auto x = random_tensor<double>({2, 2, 3, 5}, 1, -2, 3);
    const auto weight = random_tensor<double>({5}, 2, 0.5, 2);
    const auto bias = random_tensor<double>({5}, 3);
    const double eps = 0.1;
    Statistics<double> statistics;
    (void)sd::reference::layer_norm_forward(x, weight, bias, eps, &statistics);
    const auto backward = [&](const Tensor<double>& dy) {
        return sd::reference::layer_norm_backward(dy, x, weight, statistics);
    };
    check_gradient(
        [&]<class N>(const Tensor<N>& v) {
            return sd::reference::layer_norm_forward(v, in<N>(weight), in<N>(bias), eps);
        },
        [&](const Tensor<double>& dy) { return backward(dy).dx; }, x);
    check_gradient(
        [&]<class N>(const Tensor<N>& v) { return sd::reference::layer_norm_forward(in<N>(x), v, in<N>(bias), eps); },
        [&](const Tensor<double>& dy) { return backward(dy).dweight; }, weight);
    check_gradient(
        [&]<class N>(const Tensor<N>& v) { return sd::reference::layer_norm_forward(in<N>(x), in<N>(weight), v, eps); },
        [&](const Tensor<double>& dy) { return backward(dy).dbias; }, bias);
}

TEST_CASE_TEMPLATE("layer norm: the fast kernels compute what the plain loops do", T, float, double, sd::bfloat16) {
    // Less than a vector, whole vectors, several with a rest; few pixels, and so many that they are cut.
    const std::vector<Shape> shapes{{2, 3, 4, 1},  {1, 1, 1, 2},    {5, 3},          {2, 5, 5, 16},    {7, 37},
                                    {3, 1, 2, 96}, {2, 31, 29, 70}, {1, 2, 3, 1536}, {4, 101, 103, 3}, {0, 2, 2, 8}};
    std::uint64_t stream = 1;
    for (const Shape& shape : shapes) {
        sd_test::check_layer_norm<T, sd::Cpu>(shape, stream, 3);
        stream += 4;
    }
}

TEST_CASE_TEMPLATE("layer norm: far from zero its variance does not cancel", T, float, double) {
    Tensor<T> x = random_tensor<T>({50, 19}, 1);
    for (T& value : x) value += T(1000);
    const auto weight = Tensor<T>::full({19}, T(1));
    const Tensor<T> bias(Shape{19});
    check_close(sd::layer_norm_forward(x, weight, bias, 1e-6),
                sd::reference::layer_norm_forward(in_double(x), in_double(weight), in_double(bias), 1e-6),
                std::is_same_v<T, float> ? 50 : 1000);
}

TEST_CASE("layer norm: the same bits for any number of threads") {
    const auto x = random_tensor<float>({4, 120, 121, 70}, 1);
    const auto dy = random_tensor<float>(x.shape(), 2);
    const auto weight = random_tensor<float>({70}, 3);
    const auto bias = random_tensor<float>({70}, 4);
    const auto run = [&] {
        Statistics<float> statistics;
        auto y = sd::layer_norm_forward(x, weight, bias, 1e-6, &statistics);
        auto gradient = sd::layer_norm_backward(dy, x, weight, statistics);
        return std::vector<Tensor<float>>{y,           statistics.mean,  statistics.inverse_std,
                                          gradient.dx, gradient.dweight, gradient.dbias};
    };
    const int threads = sd::num_threads();
    sd::set_num_threads(1);
    const auto expected = run();
    for (const int count : {2, 3, 7}) {
        sd::set_num_threads(count);
        sd::poison_pool();
        const auto got = run();
        for (std::size_t i = 0; i < got.size(); ++i) {
            CHECK(std::memcmp(got[i].data(), expected[i].data(), static_cast<std::size_t>(got[i].size()) * 4) == 0);
        }
    }
    sd::set_num_threads(threads);
}

TEST_CASE_TEMPLATE("layer norm: a result that goes past the caches", T, float, sd::bfloat16) {
    const auto x = random_tensor<T>({4 / static_cast<Index>(sizeof(T)), 300, 301, 80}, 1);
    const auto weight = random_tensor<float>({80}, 2);
    Statistics<float> statistics;
    Statistics<double> expected;
    check_close(sd::layer_norm_forward(x, weight, weight, 1e-6, &statistics),
                sd::reference::layer_norm_forward(in_double(x), in_double(weight), in_double(weight), 1e-6, &expected));
    check_close(sd::layer_norm_backward(x, x, weight, statistics).dx,
                sd::reference::layer_norm_backward(in_double(x), in_double(x), in_double(weight), expected).dx);
}

TEST_CASE("layer norm: the layer") {
    sd::LayerNorm2d<double> layer(3);
    const auto x = random_tensor<double>({2, 2, 2, 3}, 1);
    const auto y = layer.forward(x, sd::Context::train({.step = 0, .seed = 1}));
    CHECK(relative_error(layer.forward(x, sd::Context::eval()), y) == 0);
    CHECK(layer.forward(x.reshape({8, 3}), sd::Context::eval()).shape() == Shape{8, 3});
    const auto dx = layer.backward(x);  // of the pass that kept gradients
    Statistics<double> statistics;
    (void)sd::reference::layer_norm_forward(x, layer.weight()->value, layer.bias()->value, 1e-6, &statistics);
    const auto expected = sd::reference::layer_norm_backward(x, x, layer.weight()->value, statistics);
    CHECK(relative_error(dx, expected.dx) < 1e-12);  // of three channels: cancels where they are nearly equal
    CHECK(relative_error(layer.weight()->grad, expected.dweight) < 1e-13);
    CHECK(relative_error(layer.bias()->grad, expected.dbias) < 1e-13);
    layer.forget();
    CHECK_THROWS_AS((void)layer.backward(x), std::logic_error);
    using sd_test::contains;
    using sd_test::message_of;
    CHECK(contains(message_of([] { sd::LayerNorm2d<float>(0); }), "LayerNorm2d: channels: got 0"));
    CHECK(contains(message_of([] { sd::LayerNorm2d<float>(3, {.eps = 0}); }), "LayerNorm2d: eps: got 0"));
    CHECK(contains(message_of([&] {
                       (void)layer.forward(random_tensor<double>({2, 4}, 1), sd::Context::eval());
                   }),
                   "layer_norm_forward: shape of weight: got (3), expected (4)"));
    CHECK(contains(message_of([&] {
                       (void)sd::layer_norm_backward(y, x.reshape({8, 3}), layer.weight()->value, statistics);
                   }),
                   "layer_norm_backward: shape of dy"));
}

}  // namespace test_layer_norm
