// The parallel kernels against the plain loops of reference/, on shapes drawn at random. Both run in double, where the
// bound is tight, and the kernels also in float, against the reference in double.
#include "conv2d_case.hpp"
#include "kernel_checks.hpp"
#include "kernel_inputs.hpp"
#include "messages.hpp"
#include "use_tile_machine.hpp"

#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

namespace test_cpu_kernels {

using sd::Index;
using sd::Pending;
using sd::Shape;
using sd::Tensor;
using sd_test::activation_of;
using sd_test::activations;
using sd_test::check_close;
using sd_test::Draw;
using sd_test::in_double;
using sd_test::random_gradient;
using sd_test::random_pending;
using sd_test::random_tensor;

namespace {

// `i` turns through kinds of pending input.
template <class T>
void check_conv2d(const Shape& x_shape, const Shape& weight_shape, const sd::Conv2dOptions& options, Index i) {
    const sd_test::UseTileMachine floats(nullptr);
    sd_test::Conv2dCase<T>(x_shape, weight_shape, options, i).check();
}

constexpr int repetitions = 40;

}  // namespace

TEST_CASE_TEMPLATE("conv2d", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Index groups = draw(1, 3);
        const Index kernel_height = draw(1, 4);
        const Index kernel_width = draw(1, 4);
        const sd::Conv2dOptions options{draw(1, 3), draw(0, 3), draw(1, 2), groups};
        const Shape x_shape{draw(1, 3), draw(7, 13), draw(7, 13), groups * draw(1, 20)};
        const Shape weight_shape{groups * draw(1, 40), x_shape[3] / groups, kernel_height, kernel_width};
        check_conv2d<T>(x_shape, weight_shape, options, i);
    }
}

TEST_CASE_TEMPLATE("conv2d: 3x3 with stride 1, by Winograd's tiles", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Index padding = draw(0, 3);
        const Index groups = draw(0, 2) == 0 ? draw(2, 8) : 1;
        const Shape x_shape{draw(1, 3), draw(4, 13), draw(4, 13), groups * draw(8 / groups, 70 / groups)};
        const Shape weight_shape{groups * draw(8 / groups, 70 / groups), x_shape[3] / groups, 3, 3};
        check_conv2d<T>(x_shape, weight_shape, {.padding = padding, .groups = groups}, i);
    }
}

// Depths that are cut into chunks, and outputs that go past the caches.
TEST_CASE_TEMPLATE("conv2d: deep and large", T, float, double, sd::bfloat16) {
    struct Case {
        Shape x, weight;
        sd::Conv2dOptions options;
    };
    const Case cases[] = {{{2, 4, 3, 600}, {70, 600, 3, 3}, {.padding = 1}},
                          {{2, 5, 5, 600}, {70, 600, 3, 3}, {.padding = 2, .dilation = 2}},
                          {{2, 5, 5, 600}, {70, 600, 3, 3}, {.stride = 2, .padding = 1}},
                          {{1, 330, 331, 2}, {64, 2, 1, 1}, {}}};
    const sd_test::UseTileMachine floats(nullptr);
    for (const Case& one : cases) {
        const Shape& x_shape = one.x;
        const Shape& weight_shape = one.weight;
        const sd::Conv2dOptions& options = one.options;
        CAPTURE(x_shape);
        CAPTURE(options.stride);
        CAPTURE(options.dilation);
        const Pending<T> x = random_pending<T>(x_shape, 1, 2);
        const auto weight = random_tensor<sd::accumulate_t<T>>(weight_shape, 4);
        sd::Moments<sd::accumulate_t<T>> moments;
        const Tensor<T> y = sd::conv2d_forward(x, weight, options, &moments);
        check_close(y, sd::reference::conv2d_forward(in_double(x), in_double(weight), options));
        check_close(moments.m2, sd::reference::batch_moments(in_double(y)).m2, 100);
        const auto dy = random_gradient<T>(y.shape(), 20, 2);
        check_close(sd::conv2d_by_input<T>(dy, weight, options, x_shape),
                    sd::reference::conv2d_by_input<double>(in_double(dy), in_double(weight), options, x_shape));
        check_close(sd::conv2d_by_weight<T>(x, dy, options, weight_shape),
                    sd::reference::conv2d_by_weight<double>(in_double(x), in_double(dy), options, weight_shape),
                    100);  // the plain loops sum 100,000 products one after the other
    }
}

TEST_CASE_TEMPLATE("conv2d: extents at the edge", T, float, double, sd::bfloat16) {
    check_conv2d<T>({2, 1, 1, 20}, {17, 20, 3, 3}, {.padding = 1}, 2);                // images of one pixel
    check_conv2d<T>({1, 2, 3, 5}, {9, 5, 7, 7}, {.padding = 4}, 1);                   // a kernel larger than the image
    check_conv2d<T>({1, 3, 2, 9}, {8, 9, 3, 3}, {.padding = 50, .dilation = 50}, 2);  // taps that never meet it
    check_conv2d<T>({1, 3, 3, 3}, {8, 3, 3, 3}, {.padding = 9}, 0);                   // points that meet nothing
    check_conv2d<T>({2, 4, 5, 38}, {57, 2, 3, 3}, {.padding = 1, .groups = 19}, 2);   // groups without a divisor
    check_conv2d<T>({1, 4, 4, 9}, {8, 9, 1, 1}, {.stride = 1000}, 1);
}

// Every result of these is too large for the caches.
TEST_CASE_TEMPLATE("tensors that go past the caches", T, float, sd::bfloat16) {
    const Index samples = 8 / static_cast<Index>(sizeof(T));
    const Shape shape{samples, 161, 160, 128};
    std::vector<Index> selection{1, -1};
    selection.resize(static_cast<std::size_t>(samples), -1);
    const Pending<T> shortcut = random_pending<T>(shape, 1, 1);
    const Pending<T> branch = random_pending<T>(shape, 4, 1);
    const auto y = sd::residual_join_forward(shortcut, branch, selection, 0.5F, true);
    check_close(y, sd::reference::residual_join_forward(in_double(shortcut), in_double(branch), selection, 0.5, true));
    const auto dy = random_tensor<T>(shape, 7);
    const auto gradient = sd::residual_join_backward<T>(dy, y, selection, samples, 0.5F, true);
    const auto expected =
        sd::reference::residual_join_backward<double>(in_double(dy), in_double(y), selection, samples, 0.5, true);
    check_close(gradient.dshortcut, expected.dshortcut);
    check_close(gradient.dbranch, expected.dbranch);
    check_close(sd::add_selected(dy, branch.raw, selection),
                sd::reference::add_selected(in_double(dy), in_double(branch.raw), selection));
    const sd_test::UseTileMachine floats(nullptr);
    const auto x = random_tensor<T>({1, 251, 250, 8}, 9);
    const auto weight = random_tensor<float>({112, 8, 3, 3}, 10);
    check_close(sd::conv2d_forward<T>(x, weight, {.padding = 1}),
                sd::reference::conv2d_forward<double>(in_double(x), in_double(weight), {.padding = 1}));
}

TEST_CASE_TEMPLATE("batch norm", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Shape shape{draw(1, 5), draw(1, 9), draw(1, 9), draw(1, 70)};
        sd_test::check_batch_norm<T, sd::Cpu>(shape, i, draw);
    }
}

TEST_CASE_TEMPLATE("batch moments do not cancel far from zero", T, float, double) {
    sd_test::check_moments_far_from_zero<T, sd::Cpu>({64, 7, 7, 3});
}

TEST_CASE_TEMPLATE("activations and pending tensors", T, float, double, sd::bfloat16) {
    sd_test::check_activations<T, sd::Cpu>({3, 5, 7, 19});
}

// Relative to each value down to 1e-2, not to the largest of a tensor.
TEST_CASE_TEMPLATE("activations are accurate everywhere, and NaN stays NaN", T, float, double) {
    const double bound = std::is_same_v<T, float> ? 1e-6 : 1e-14;
    Tensor<T> x(Shape{18001});
    for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<T>(static_cast<double>(i - 9000) * 5e-4);
    const Tensor<T> ones = Tensor<T>::full(x.shape(), T(1));
    for (Index i = 0; i < activations; ++i) {
        const sd::Activation activation = activation_of(i);
        CAPTURE(sd::to_string(activation));
        const Tensor<T> y = sd::activation_forward(x, activation);
        const Tensor<T> slope = sd::activation_by_input(ones, x, activation);
        double value_error = 0;
        double slope_error = 0;
        for (Index j = 0; j < x.size(); ++j) {
            const double at = static_cast<double>(x.data()[j]);
            const double value = sd::activate(activation, at);
            value_error = std::max(
                value_error, std::abs(static_cast<double>(y.data()[j]) - value) / std::max(std::abs(value), 1e-2));
            const double expected_slope = sd::activation_derivative(activation, at);
            slope_error = std::max(slope_error, std::abs(static_cast<double>(slope.data()[j]) - expected_slope));
        }
        CHECK(value_error < bound);
        CHECK(slope_error < bound);  // it goes through 0: relative to 1
        const Tensor<T> not_a_number = Tensor<T>::full({19}, std::numeric_limits<T>::quiet_NaN());
        for (const T value : sd::activation_forward(not_a_number, activation)) CHECK(std::isnan(value));
    }
    const Tensor<T> infinite = Tensor<T>::full({19}, std::numeric_limits<T>::infinity());
    const Tensor<T> below = Tensor<T>::full({19}, T(-4));
    for (const auto activation : {sd::Activation::relu, sd::Activation::relu6, sd::Activation::hardswish}) {
        for (const T value : sd::activation_by_input(infinite, below, activation)) CHECK(value == 0);
    }
}

TEST_CASE_TEMPLATE("element by element: sums, factors, averages, copies", T, float, double, sd::bfloat16) {
    for (const Index size : {1, 7, 1000, 70001}) {  // of the last, several pieces of work
        sd_test::check_elementwise<T, sd::Cpu>(size);
    }
    auto moved = Tensor<double>(Shape{1}, {3});
    sd::move_towards(moved, Tensor<double>(Shape{1}, {7}), 0.25);
    CHECK(moved(0) == 4);
}

TEST_CASE_TEMPLATE("mixtures of pairs, and the norm of several tensors", T, float, double, sd::bfloat16) {
    const auto x = random_tensor<T>({5, 3, 4, 2}, 1);
    const std::vector<Index> partner{4, 0, 2, 1, 3};
    check_close(sd::mix_samples(x, partner, 0.3), sd::reference::mix_samples(in_double(x), partner, 0.3));
    const sd::ImageBox box{.top = 1, .left = 0, .bottom = 3, .right = 2};
    check_close(sd::paste_samples(x, partner, box), sd::reference::paste_samples(in_double(x), partner, box));

    using A = sd::accumulate_t<T>;
    for (const double max_norm : {1.0, 1e9}) sd_test::check_clip_norm<A, sd::Cpu>(max_norm);
    std::vector<Tensor<A>> pair{Tensor<A>(Shape{1}, {3}), Tensor<A>(Shape{1}, {4})};
    CHECK(sd::clip_norm(std::span(pair), 2.5)(0) == 5);
    CHECK(static_cast<double>(pair[0](0)) == doctest::Approx(1.5).epsilon(1e-6));
    CHECK(static_cast<double>(pair[1](0)) == doctest::Approx(2).epsilon(1e-6));
}

TEST_CASE_TEMPLATE("residual join", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Shape shape{draw(1, 9), draw(1, 9), draw(1, 9), draw(1, 40)};
        sd_test::check_residual_join<T, sd::Cpu>(shape, i, draw);
    }
}

TEST_CASE("a join's gradient refuses what does not fit together, by the plain loops and by the fast ones alike") {
    const auto refusal = [](auto zero, std::vector<Index> selection, Index samples, bool pass, bool sums) {
        using T = decltype(zero);
        const sd::Tensor<T> y({2, 1, 1, 4}), dy({2, 1, 1, 4});
        sd::BatchNormPass<T> before;
        const sd::Tensor<T> channels(sd::Shape{4});
        before.y = sd::Pending<T>(sd::Tensor<T>({samples, 1, 1, 4}), channels, channels, sd::Activation::none);
        before.mean = before.inverse_std = channels;
        sd::BatchNormSums<T> gathered;
        return sd_test::message_of([&] {
            (void)sd::residual_join_backward<T>(dy, y, selection, samples, T(1), true, pass ? &before : nullptr,
                                                sums ? &gathered : nullptr);
        });
    };
    const auto check = [&](auto zero) {
        CHECK(refusal(zero, {1, 0}, 2, true, true) == "accepted");
        CHECK(refusal(zero, {1, -1}, 2, true, true) == "accepted");
        CHECK(sd_test::contains(refusal(zero, {1, 1}, 2, false, false), "branch_sample: got 1 twice"));
        CHECK(sd_test::contains(refusal(zero, {0, 2}, 2, false, false), "got 2"));
        CHECK(sd_test::contains(refusal(zero, {0, 1}, 2, true, false), "before and sums: got before alone"));
        CHECK(sd_test::contains(refusal(zero, {0, 1}, 2, false, true), "before and sums: got sums alone"));
    };
    check(float{});
    check(static_cast<long double>(0));
}

TEST_CASE_TEMPLATE("pooling", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const sd::Pool2dOptions options = sd_test::random_pooling(i, draw);
        sd_test::check_pooling<T, sd::Cpu>({draw(1, 4), draw(4, 11), draw(4, 11), draw(1, 40)}, options, i);
    }
}

TEST_CASE_TEMPLATE("sums of a gate, and of the batch norm before it", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        sd_test::check_gate<T, sd::Cpu>({draw(1, 4), draw(1, 40), draw(1, 40), draw(1, 70)}, i);
    }
}

TEST_CASE("a gate's sums refuse what does not fit together, by the plain loops and by the fast ones alike") {
    const auto check = [](auto zero) {
        using T = decltype(zero);
        const auto gathering = [](const Shape& dy, const Shape& x, const Shape& before) {
            const Tensor<T> channels(Shape{4});
            const sd::BatchNormPass<T> pass{Pending<T>(Tensor<T>(before), channels, channels, sd::Activation::none),
                                            channels, channels, true};
            return sd_test::message_of([&] { (void)sd::gate_sums<T>(Tensor<T>(dy), Tensor<T>(x), &pass); });
        };
        const Shape whole{2, 3, 3, 4};
        CHECK(gathering(whole, whole, whole) == "accepted");
        CHECK(sd_test::contains(gathering({2, 4}, {2, 4}, {2, 4}), "gate_sums: shape of dy: got (2, 4)"));
        CHECK(sd_test::contains(gathering(whole, {2, 3, 2, 4}, whole), "gate_sums: shape of x: got (2, 3, 2, 4)"));
        CHECK(
            sd_test::contains(gathering(whole, whole, {1, 3, 3, 4}), "shape of batch norm's output: got (1, 3, 3, 4)"));
        const auto using_them = [](const Shape& of_norm, const Shape& inverse_std) {
            const Tensor<T> of_gate(Shape{2, 4});
            return sd_test::message_of([&] {
                (void)sd::batch_norm_sums<T>(sd::GateSums<T>{of_gate, Tensor<T>(of_norm)}, {of_gate, of_gate},
                                             Tensor<T>(inverse_std));
            });
        };
        CHECK(using_them({2, 4, 4}, {4}) == "accepted");
        CHECK(sd_test::contains(using_them({2, 3, 4}, {4}), "shape of sums of the norm: got (2, 3, 4)"));
        CHECK(sd_test::contains(using_them({2, 4, 4}, {3}), "shape of inverse_std: got (3)"));
    };
    check(float{});
    check(static_cast<long double>(0));
}

TEST_CASE_TEMPLATE("max pooling passes NaN on, wherever in the window and the vector it is", T, float, double,
                   sd::bfloat16) {
    const T not_a_number = T(std::numeric_limits<sd::accumulate_t<T>>::quiet_NaN());
    auto x = random_tensor<T>({2, 7, 7, 19}, 1);
    for (Index i = 0; i < x.size(); i += 31) x.data()[i] = not_a_number;
    const Tensor<T> y = sd::max_pool2d_forward<T>(x, {3, 2, 1});
    const Tensor<double> got = in_double(y);
    const auto expected = sd::reference::max_pool2d_forward<double>(in_double(x), {3, 2, 1});
    Index passed = 0;
    for (Index i = 0; i < y.size(); ++i) {
        CHECK(std::isnan(got.data()[i]) == std::isnan(expected.data()[i]));
        if (std::isnan(expected.data()[i])) ++passed;
    }
    CHECK(passed > 0);
    CHECK(passed < y.size());
}

TEST_CASE_TEMPLATE("linear and cross-entropy", T, float, double, sd::bfloat16) {
    const sd_test::UseTileMachine floats(nullptr);
    using A = sd::accumulate_t<T>;
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Index samples = draw(1, 20);
        const Shape weight{draw(1, 70), draw(1, 70)};
        sd_test::check_linear<T, sd::Cpu>(samples, random_tensor<A>(weight, 2));
        sd_test::check_cross_entropy<T, sd::Cpu>(samples, weight[0], draw);
    }
}

TEST_CASE("no samples, no pixels in the way: every kernel accepts an empty batch") {
    sd_test::check_empty_batch<sd::Cpu>();
}

}  // namespace test_cpu_kernels
