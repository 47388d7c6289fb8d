// The parallel kernels against the plain loops of reference/, on shapes drawn at random. Both run in double, where the
// bound is tight, and the kernels also in float, against the reference in double.
#include "conv2d_case.hpp"
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

using sd::Index;
using sd::Pending;
using sd::Shape;
using sd::Tensor;
using sd_test::activation_of;
using sd_test::activations;
using sd_test::check_close;
using sd_test::Draw;
using sd_test::gate_shape;
using sd_test::in_double;
using sd_test::pending_kinds;
using sd_test::random_gradient;
using sd_test::random_pass;
using sd_test::random_pending;
using sd_test::random_selection;
using sd_test::random_tensor;
using sd_test::relative_error;

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
        CAPTURE(shape);
        const auto z = random_tensor<T>(shape, 1);
        const auto moments = sd::batch_moments(z);
        const auto expected = sd::reference::batch_moments(in_double(z));
        CHECK(moments.count == expected.count);
        check_close(moments.mean, expected.mean);
        check_close(moments.m2, expected.m2);
        const auto pass = random_pass<T>(shape, 5, activation_of(i), draw(0, 1) == 1);
        const auto dy = random_tensor<T>(shape, 6);
        const auto sums = sd::batch_norm_sums(dy, pass);
        check_close(sums, sd::reference::batch_norm_sums(in_double(dy), in_double(pass)));
        check_close(sd::materialize(sd::batch_norm_by_input(dy, pass, sums)),
                    sd::reference::materialize(
                        sd::reference::batch_norm_by_input(in_double(dy), in_double(pass), in_double(sums))));
    }
}

TEST_CASE_TEMPLATE("batch moments do not cancel far from zero", T, float, double) {
    Tensor<T> x = random_tensor<T>({64, 7, 7, 3}, 1);
    for (T& value : x) value += T(10000);
    const auto moments = sd::batch_moments(x);
    const auto expected = sd::reference::batch_moments(in_double(x));
    check_close(moments.mean, expected.mean);
    CHECK(relative_error(in_double(moments.m2), expected.m2) < (std::is_same_v<T, float> ? 1e-3 : 1e-9));
}

TEST_CASE_TEMPLATE("activations and pending tensors", T, float, double, sd::bfloat16) {
    const auto x = random_tensor<T>({3, 5, 7, 19}, 1, -8, 8);
    const auto dy = random_tensor<T>(x.shape(), 2);
    for (Index i = 0; i < activations; ++i) {
        const sd::Activation activation = activation_of(i);
        CAPTURE(sd::to_string(activation));
        check_close(sd::activation_forward(x, activation), sd::reference::activation_forward(in_double(x), activation));
        check_close(sd::activation_by_input(dy, x, activation),
                    sd::reference::activation_by_input(in_double(dy), in_double(x), activation));
        Pending<T> unscaled(x);  // as a convolution without a batch norm leaves it
        unscaled.activation = activation;
        const Tensor<T> value = sd::activation_forward(x, activation);
        check_close(sd::materialize(unscaled), in_double(value));
        check_close(sd::max_pool2d_forward(unscaled, {2, 2, 0}),
                    sd::reference::max_pool2d_forward<double>(in_double(value), {2, 2, 0}));
    }
    for (Index kind = 0; kind < pending_kinds; ++kind) {
        const Pending<T> pending = random_pending<T>(x.shape(), 3, kind);
        check_close(sd::materialize(pending), sd::reference::materialize(in_double(pending)));
        const sd::PendingGradient<T> gradient = random_gradient<T>(x.shape(), 5, kind);
        check_close(sd::materialize(gradient), sd::reference::materialize(in_double(gradient)));
    }
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
    using A = sd::accumulate_t<T>;
    for (const Index size : {1, 7, 1000, 70001}) {  // of the last, several pieces of work
        const auto x = random_tensor<T>({size}, 1);
        const auto other = random_tensor<T>({size}, 2);
        const auto expect = [&](const auto& fast, const auto& plain) {
            auto y = x.clone();
            auto expected = in_double(x).clone();
            fast(y);
            plain(expected);
            check_close(y, expected);
        };
        expect([&](auto& y) { sd::add_to(y, other); }, [&](auto& y) { sd::reference::add_to(y, in_double(other)); });
        expect([&](auto& y) { sd::scale_by(y, A(0.75)); }, [&](auto& y) { sd::reference::scale_by(y, 0.75); });
        expect([&](auto& y) { sd::move_towards(y, other, A(0.25)); },
               [&](auto& y) { sd::reference::move_towards(y, in_double(other), 0.25); });
        expect([&](auto& y) { sd::copy_elements(other, 1, size - 1, y, 0); },
               [&](auto& y) { sd::reference::copy_elements(in_double(other), 1, size - 1, y, 0); });
        auto moved = Tensor<double>(Shape{1}, {3});
        sd::move_towards(moved, Tensor<double>(Shape{1}, {7}), 0.25);
        CHECK(moved(0) == 4);
    }
}

TEST_CASE_TEMPLATE("mixtures of pairs, and the norm of several tensors", T, float, double, sd::bfloat16) {
    const auto x = random_tensor<T>({5, 3, 4, 2}, 1);
    const std::vector<Index> partner{4, 0, 2, 1, 3};
    check_close(sd::mix_samples(x, partner, 0.3), sd::reference::mix_samples(in_double(x), partner, 0.3));
    const sd::ImageBox box{.top = 1, .left = 0, .bottom = 3, .right = 2};
    check_close(sd::paste_samples(x, partner, box), sd::reference::paste_samples(in_double(x), partner, box));

    using A = sd::accumulate_t<T>;
    for (const double max_norm : {1.0, 1e9}) {
        std::vector<Tensor<A>> tensors{random_tensor<A>({3}, 1), random_tensor<A>({70001}, 2)};
        std::vector<Tensor<double>> expected;
        for (const auto& tensor : tensors) expected.push_back(in_double(tensor).clone());
        const auto norm = sd::clip_norm(std::span(tensors), max_norm);
        check_close(norm, sd::reference::clip_norm(std::span(expected), max_norm));
        for (std::size_t i = 0; i < 2; ++i) check_close(tensors[i], expected[i]);
        CHECK(norm(0) > 100);
    }
    std::vector<Tensor<A>> pair{Tensor<A>(Shape{1}, {3}), Tensor<A>(Shape{1}, {4})};
    CHECK(sd::clip_norm(std::span(pair), 2.5)(0) == 5);
    CHECK(static_cast<double>(pair[0](0)) == doctest::Approx(1.5).epsilon(1e-6));
    CHECK(static_cast<double>(pair[1](0)) == doctest::Approx(2).epsilon(1e-6));
}

TEST_CASE_TEMPLATE("residual join", T, float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Shape shape{draw(1, 9), draw(1, 9), draw(1, 9), draw(1, 40)};
        CAPTURE(shape);
        Index branch_samples = 0;
        const std::vector<Index> selection = random_selection(shape[0], draw, branch_samples);
        const bool relu = draw(0, 1) == 1;
        const A scale = A(0.75);
        const Pending<T> shortcut = random_pending<T>(shape, 1, draw(0, pending_kinds - 1));
        const Pending<T> branch =
            random_pending<T>(sd::with_samples(shape, branch_samples), 4, draw(0, pending_kinds - 1));
        const Tensor<T> y = sd::residual_join_forward(shortcut, branch, selection, scale, relu);
        // Gates are applied in a tensor of their own, which is rounded.
        const auto own = [](const Pending<T>& x) { return in_double(sd::ungated(x)); };
        check_close(y, sd::reference::residual_join_forward(own(shortcut), own(branch), selection, 0.75, relu));
        const auto dy = random_tensor<T>(shape, 7);
        const auto before = random_pass<T>(branch.shape(), 20, activation_of(i), true);
        sd::BatchNormSums<A> sums;
        sd::BatchNormSums<double> expected_sums;
        const auto expected = sd::reference::residual_join_backward<double>(in_double(dy), in_double(y), selection,
                                                                            branch_samples, 0.75, relu);
        for (const auto* pass : {static_cast<const sd::BatchNormPass<T>*>(nullptr), &before}) {
            const auto gradient = sd::residual_join_backward<T>(dy, y, selection, branch_samples, scale, relu, pass,
                                                                pass == nullptr ? nullptr : &sums);
            check_close(gradient.dshortcut, expected.dshortcut);
            check_close(gradient.dbranch, expected.dbranch);
            expected_sums = sd::reference::batch_norm_sums(in_double(gradient.dbranch), in_double(before));
        }
        check_close(sums, expected_sums);
        const auto whole = sd::residual_join_backward<T>(dy, y, {}, shape[0], A(1), relu);
        const auto expected_whole =
            sd::reference::residual_join_backward<double>(in_double(dy), in_double(y), {}, shape[0], 1.0, relu);
        check_close(whole.dshortcut, expected_whole.dshortcut);
        check_close(whole.dbranch, expected_whole.dbranch);
        check_close(sd::add_selected(dy, branch.raw, selection),
                    sd::reference::add_selected(in_double(dy), in_double(branch.raw), selection));
        const std::vector<Index> samples(5, shape[0] - 1);
        check_close(sd::gather_samples(dy, samples), sd::reference::gather_samples(in_double(dy), samples));
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
        const Index kernel = draw(1, 4);
        const sd::Pool2dOptions options{kernel, draw(1, 3), draw(0, kernel / 2), i % 2 == 1, i % 3 != 1};
        const Shape shape{draw(1, 4), draw(4, 11), draw(4, 11), draw(1, 40)};
        CAPTURE(shape);
        CAPTURE(kernel);
        const Pending<T> x = random_pending<T>(shape, 1, i % pending_kinds);
        const Tensor<T> y = sd::max_pool2d_forward(x, options);
        check_close(y, sd::reference::max_pool2d_forward(in_double(x), options));
        const auto dy = random_tensor<T>(y.shape(), 4);
        check_close(sd::max_pool2d_by_input(dy, x, options),
                    sd::reference::max_pool2d_by_input(in_double(dy), in_double(x), options));
        check_close(sd::avg_pool2d_forward(x.raw, options),
                    sd::reference::avg_pool2d_forward(in_double(x.raw), options));
        check_close(sd::avg_pool2d_by_input(dy, options, shape),
                    sd::reference::avg_pool2d_by_input(in_double(dy), options, shape));
        const auto dmean = random_tensor<T>({shape[0], shape[3]}, 5);
        check_close(sd::global_avg_pool_forward<T>(x), sd::reference::global_avg_pool_forward(in_double(x)));
        check_close(sd::global_avg_pool_by_input(dmean, shape),
                    sd::reference::global_avg_pool_by_input(in_double(dmean), shape));
    }
}

TEST_CASE_TEMPLATE("sums of a gate, and of the batch norm before it", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Shape shape{draw(1, 4), draw(1, 40), draw(1, 40), draw(1, 70)};
        CAPTURE(shape);
        const auto dy = random_tensor<T>(shape, 1);
        const Pending<T> x = random_pending<T>(shape, 2, i % pending_kinds);
        check_close(sd::gate_sums(dy, x).of_gate, sd::reference::gate_sums(in_double(dy), in_double(x)).of_gate);
        const auto pass = random_pass<T>(shape, 5, activation_of(i), true);
        const auto pass_in_double = in_double(pass);
        const auto sums = sd::gate_sums<T>(dy, pass.y, &pass);
        const auto expected = sd::reference::gate_sums(in_double(dy), pass_in_double.y, &pass_in_double);
        check_close(sums.of_gate, expected.of_gate);
        check_close(sums.of_norm, expected.of_norm);
        const sd::GateGradient<T> gate{random_tensor<T>(gate_shape(shape), 20),
                                       random_tensor<T>(gate_shape(shape), 21)};
        const auto inverse_std = random_tensor<sd::accumulate_t<T>>({shape[3]}, 22);
        check_close(sd::batch_norm_sums(sums, gate, inverse_std),
                    sd::reference::batch_norm_sums(in_double(sums), {in_double(gate.factor), in_double(gate.common)},
                                                   in_double(inverse_std)));
    }
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
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Index samples = draw(1, 20);
        const Index inputs = draw(1, 70);
        const Index outputs = draw(1, 70);
        const auto x = random_tensor<T>({samples, inputs}, 1);
        const auto weight = random_tensor<sd::accumulate_t<T>>({outputs, inputs}, 2);
        const auto bias = random_tensor<sd::accumulate_t<T>>({outputs}, 3);
        const auto dy = random_tensor<T>({samples, outputs}, 4);
        check_close(sd::linear_forward(x, weight, bias),
                    sd::reference::linear_forward(in_double(x), in_double(weight), in_double(bias)));
        check_close(sd::linear_by_input(dy, weight), sd::reference::linear_by_input(in_double(dy), in_double(weight)));
        check_close(sd::linear_by_weight(dy, x), sd::reference::linear_by_weight(in_double(dy), in_double(x)));
        check_close(sd::linear_by_bias(dy), sd::reference::linear_by_bias(in_double(dy)));

        std::vector<Index> labels(static_cast<std::size_t>(samples));
        for (Index& label : labels) label = draw(0, outputs - 1);
        const std::span<const Index> classes(labels);
        const auto target = random_tensor<T>({samples, outputs}, 5, 0, 1);
        const auto compare = [&](const auto& ours, const auto& theirs) {
            CHECK(static_cast<double>(sd::cross_entropy_forward(dy, ours, 0.1)) ==
                  doctest::Approx(sd::reference::cross_entropy_forward(in_double(dy), theirs, 0.1)).epsilon(1e-5));
            check_close(sd::cross_entropy_by_input(dy, ours, 0.1),
                        sd::reference::cross_entropy_by_input(in_double(dy), theirs, 0.1));
        };
        compare(classes, classes);
        compare(target, in_double(target));
    }
}

TEST_CASE("no samples, no pixels in the way: every kernel accepts an empty batch") {
    const Shape empty{0, 4, 4, 3};
    const Tensor<float> x(empty);
    const Tensor<float> weight(Shape{5, 3, 3, 3});
    CHECK(sd::conv2d_forward<float>(x, weight, {.padding = 1}).shape() == Shape{0, 4, 4, 5});
    CHECK(sd::conv2d_by_input<float>(Tensor<float>(Shape{0, 4, 4, 5}), weight, {.padding = 1}, empty).shape() == empty);
    const auto dweight =
        sd::conv2d_by_weight<float>(x, Tensor<float>(Shape{0, 4, 4, 5}), {.padding = 1}, weight.shape());
    CHECK(relative_error(dweight, weight) == 0);
    CHECK(sd::max_pool2d_forward<float>(x, {2, 2, 0}).shape() == Shape{0, 2, 2, 3});
    CHECK(sd::global_avg_pool_forward<float>(x).shape() == Shape{0, 3});
    CHECK(sd::residual_join_forward<float>(x, x, {}, 1.0F, true).shape() == empty);
}
