// The device's kernels against the plain loops of reference/ in double, on shapes drawn at random. The join and
// convolution have files of their own.
#pragma once

#include "cuda_kernel_inputs.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <vector>

using namespace cuda_cases;  // NOLINT: for the test cases below

TEST_CASE_TEMPLATE("device: batch norm", T, float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Shape shape{draw(1, 5), draw(1, 19), draw(1, 19), random_channels(draw)};
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

        const Shape channels{shape[3]};
        const auto weight = random_tensor<A>(channels, 7);
        const auto bias = random_tensor<A>(channels, 8);
        const auto factors = sd::batch_norm_factors(moments.mean, moments.m2, moments.count, weight, bias, 1e-5);
        const auto expected_factors = sd::reference::batch_norm_factors(
            in_double(moments.mean), in_double(moments.m2), moments.count, in_double(weight), in_double(bias), 1e-5);
        check_close(factors.inverse_std, expected_factors.inverse_std);
        check_close(factors.scale, expected_factors.scale);
        check_close(factors.shift, expected_factors.shift);
        auto mean = random_tensor<A>(channels, 9);
        auto variance = random_tensor<A>(channels, 10, 0.5, 2);
        auto expected_mean = in_double(mean);
        auto expected_variance = in_double(variance);
        sd::update_running_statistics(mean, variance, moments, 0.1);
        const sd::Moments<double> same{moments.count, in_double(moments.mean), in_double(moments.m2)};
        sd::reference::update_running_statistics(expected_mean, expected_variance, same, 0.1);
        check_close(mean, expected_mean);
        check_close(variance, expected_variance);
    }
}

TEST_CASE_TEMPLATE("device: batch norm of one value a channel gives the bias, and leaves the running variance", T,
                   float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    const sd::Context context = sd::Context::train({.step = 0, .seed = 0});
    for (const Index channels : {5, 16}) {
        sd::BatchNorm2d<T, Device> layer(channels);
        const auto bias = random_tensor<A>({channels}, 1);
        layer.bias()->value = bias;
        const auto x = random_tensor<T>({1, 1, 1, channels}, 2);
        check_close(layer.forward(x, context).reshape({channels}), in_double(bias), 3);  // eps makes 316 of rounding
        const auto mean = in_double(x.reshape({channels}));
        const auto running_mean = in_double(layer.running_mean());
        const auto running_var = in_double(layer.running_var());
        for (Index c = 0; c < channels; ++c) {
            CHECK(running_mean(c) == doctest::Approx(0.1 * mean(c)).epsilon(1e-6));
            CHECK(running_var(c) == 1);
        }
        const auto dy = random_tensor<T>(x.shape(), 3);
        const auto dx = in_double(layer.backward(dy));
        for (const double value : dx) CHECK(std::abs(value) < 316 * 2e-7);
    }
}

TEST_CASE_TEMPLATE("device: batch moments of many rows do not cancel far from zero", T, float, double) {
    sd::Tensor<T> x = sd_test::random_tensor<T>({64, 30, 30, 3}, 1);  // more rows than one block may have
    for (T& value : x) value += T(10000);
    const auto moments = sd::batch_moments(sd::to_device<Device>(x));
    const auto expected = sd::reference::batch_moments(in_double(x));
    check_close(moments.mean, expected.mean);
    CHECK(sd_test::relative_error(in_double(moments.m2), expected.m2) < (std::is_same_v<T, float> ? 1e-3 : 1e-9));
}

TEST_CASE_TEMPLATE("device: layer norm", T, float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Shape shape{draw(1, 5), draw(1, 19), draw(1, 19), random_channels(draw)};
        CAPTURE(shape);
        const auto x = random_tensor<T>(shape, 1, -2, 3);
        const auto dy = random_tensor<T>(shape, 2);
        const auto weight = random_tensor<A>({shape[3]}, 3);
        const auto bias = random_tensor<A>({shape[3]}, 4);
        sd::LayerNormStatistics<A, Device> statistics;
        sd::LayerNormStatistics<double> expected;
        const auto y = sd::layer_norm_forward(x, weight, bias, 1e-2, &statistics);
        check_close(
            y, sd::reference::layer_norm_forward(in_double(x), in_double(weight), in_double(bias), 1e-2, &expected));
        check_close(statistics.mean, expected.mean);
        check_close(statistics.inverse_std, expected.inverse_std);
        check_close(sd::layer_norm_forward(x, weight, bias, 1e-2), in_double(y));
        const auto gradient = sd::layer_norm_backward(dy, x, weight, statistics);
        const auto theirs =
            sd::reference::layer_norm_backward(in_double(dy), in_double(x), in_double(weight), expected);
        check_close(gradient.dx, theirs.dx, shape[3] == 1 ? 10 : 1);  // of zeros, rounding times inverse_std
        check_close(gradient.dweight, theirs.dweight);
        check_close(gradient.dbias, theirs.dbias);
    }
}

TEST_CASE_TEMPLATE("device: activations, pending tensors, channels, sums, conversion", T, float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    for (const Index channels : {19, 16}) {
        const auto y = random_tensor<T>({3, 5, 7, channels}, 1);
        const auto dy = random_tensor<T>(y.shape(), 2);
        const auto wide = random_tensor<T>(y.shape(), 9, -8, 8);
        for (Index i = 0; i < activations; ++i) {
            const sd::Activation activation = activation_of(i);
            CAPTURE(sd::to_string(activation));
            check_close(sd::activation_forward(wide, activation),
                        sd::reference::activation_forward(in_double(wide), activation));
            check_close(sd::activation_by_input(dy, wide, activation),
                        sd::reference::activation_by_input(in_double(dy), in_double(wide), activation));
        }
        for (Index kind = 0; kind < pending_kinds; ++kind) {
            const Pending<T> x = random_pending<T>(y.shape(), 3, kind);
            check_close(sd::materialize(x), sd::reference::materialize(in_double(x)));
            const auto gradient = random_gradient<T>(y.shape(), 5, kind);
            check_close(sd::materialize(gradient), sd::reference::materialize(in_double(gradient)));
        }
        for (const Index other : {7, 16, 40}) {
            check_close(sd::with_channels(y, other), sd::reference::with_channels(in_double(y), other));
        }
        auto sum = y.clone();
        sd::add_to(sum, dy);
        check_close(sum, sd::reference::add_selected(in_double(y), in_double(dy), {}));
        auto average = y.clone();
        sd::move_towards(average, dy, A(0.25));
        auto expected_average = in_double(y).clone();
        sd::reference::move_towards(expected_average, in_double(dy), 0.25);
        check_close(average, expected_average);
        std::vector<Tensor<T>> clipped{y.clone(), dy.clone()};
        std::vector<sd::Tensor<double>> expected_clipped{in_double(y).clone(), in_double(dy).clone()};
        check_close(sd::clip_norm(std::span(clipped), 0.5), sd::reference::clip_norm(std::span(expected_clipped), 0.5));
        for (std::size_t k = 0; k < 2; ++k) check_close(clipped[k], expected_clipped[k]);
        check_close(sd::converted<A>(y), in_double(y));
    }
}

TEST_CASE_TEMPLATE("device: pooling", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Index kernel = draw(1, 4);
        const sd::Pool2dOptions options{kernel, draw(1, 3), draw(0, kernel / 2), i % 2 == 1, i % 3 != 1};
        const Shape shape{draw(1, 4), draw(4, 11), draw(4, 11), random_channels(draw)};
        CAPTURE(shape);
        CAPTURE(kernel);
        const Pending<T> x = random_pending<T>(shape, 1, i % pending_kinds);
        const Tensor<T> y = sd::max_pool2d_forward<T>(x, options);
        check_close(y, sd::reference::max_pool2d_forward(in_double(x), options));
        const auto dy = random_tensor<T>(y.shape(), 4);
        // A gated tensor is made plain first: then the largest value is chosen among rounded ones.
        const Pending<T> chosen_from = x.gate ? Pending<T>(sd::materialize(x)) : x;
        check_close(sd::max_pool2d_by_input<T>(dy, x, options),
                    sd::reference::max_pool2d_by_input(in_double(dy), in_double(chosen_from), options));
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

TEST_CASE_TEMPLATE("device: sums of a gate, and of the batch norm before it", T, float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Shape shape{draw(1, 4), draw(1, 19), draw(1, 19), random_channels(draw)};
        CAPTURE(shape);
        const auto dy = random_tensor<T>(shape, 1);
        const Pending<T> x = random_pending<T>(shape, 2, i % pending_kinds);
        check_close(sd::gate_sums<T>(dy, x).of_gate, sd::reference::gate_sums(in_double(dy), in_double(x)).of_gate);
        const auto pass = random_pass<T>(shape, 5, activation_of(i), true);
        const auto pass_in_double = in_double(pass);
        const auto sums = sd::gate_sums<T>(dy, pass.y, &pass);
        const auto expected = sd::reference::gate_sums(in_double(dy), pass_in_double.y, &pass_in_double);
        check_close(sums.of_gate, expected.of_gate);
        check_close(sums.of_norm, expected.of_norm);
        const sd::GateGradient<T, Device> gate{random_tensor<T>(gate_shape(shape), 20),
                                               random_tensor<T>(gate_shape(shape), 21)};
        const auto inverse_std = random_tensor<A>({shape[3]}, 22);
        check_close(sd::batch_norm_sums(sums, gate, inverse_std),
                    sd::reference::batch_norm_sums(in_double(sums), {in_double(gate.factor), in_double(gate.common)},
                                                   in_double(inverse_std)));
    }
}

TEST_CASE("device: the largest value is the first one, or the last NaN") {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const auto x = sd::to_device<Device>(sd::Tensor<float>(Shape{1, 2, 4, 1}, {1, 1, 1, nan, 1, 0, nan, 2}));
    const auto dy = sd::to_device<Device>(sd::Tensor<float>(Shape{1, 1, 2, 1}, {5, 7}));
    const auto y = sd::to_host(sd::max_pool2d_forward<float>(Pending<float>(x), {2, 2, 0}));
    CHECK(y(0, 0, 0, 0) == 1);
    CHECK(std::isnan(y(0, 0, 1, 0)));
    const auto dx = sd::to_host(sd::max_pool2d_by_input<float>(dy, Pending<float>(x), {2, 2, 0}));
    const float expected[] = {5, 0, 0, 0, 0, 0, 7, 0};
    for (Index i = 0; i < 8; ++i) CHECK(dx.data()[i] == expected[i]);
}

TEST_CASE_TEMPLATE("device: linear and cross-entropy", T, float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Index samples = draw(1, 20);
        const Index inputs = draw(1, 70);
        const Index outputs = draw(1, i % 2 == 0 ? 70 : 600);
        const auto x = random_tensor<T>({samples, inputs}, 1);
        const auto weight = sd::converted<A>(random_tensor<T>({outputs, inputs}, 2));
        const auto bias = random_tensor<A>({outputs}, 3);
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
            const auto [loss, dlogits] = sd::cross_entropy(dy, ours, 0.1);
            CHECK(sd::to_host(loss).data()[0] == sd::cross_entropy_forward(dy, ours, 0.1));
            check_close(dlogits, sd::reference::cross_entropy_by_input(in_double(dy), theirs, 0.1));
        };
        compare(classes, classes);
        compare(target, in_double(target));
    }
}

template <class Rule>
void check_optimizer(const typename Rule::Options& options) {
    const auto run = [&]<class D>(D) {
        sd::ParameterGroups<double, D> groups(2);
        groups[1].learning_rate_factor = 3;
        groups[1].weight_decay = 0.25;
        Draw draw(1);
        for (std::uint64_t i = 0; i < 9; ++i) {
            const Shape shape{i == 3 ? Index{0} : draw(1, 3000)};
            groups[i % 2].parameters.push_back(
                std::make_shared<sd::Parameter<double, D>>(sd::to_device<D>(sd_test::random_tensor<double>(shape, i))));
        }
        sd::GroupedOptimizer<Rule, double, D> optimizer(groups, options);
        for (std::uint64_t step = 0; step < 3; ++step) {
            optimizer.zero_grad();
            for (std::uint64_t i = 0; i < 9; ++i) {
                if ((i + step) % 4 == 0) continue;  // a parameter without a gradient
                const auto& parameter = optimizer.parameters()[i];
                parameter->add_grad(
                    sd::to_device<D>(sd_test::random_tensor<double>(parameter->value.shape(), 100 + 10 * step + i)));
            }
            optimizer.step();
        }
        std::vector<sd::Tensor<double>> values;
        for (const auto& parameter : optimizer.parameters()) values.push_back(in_double(parameter->value));
        return values;
    };
    const auto ours = run(Device());
    const auto expected = run(sd::Cpu());
    for (std::size_t i = 0; i < ours.size(); ++i) check_close(ours[i], expected[i]);
}

TEST_CASE("device: optimizers take all tensors in one launch, as the CPU takes each") {
    check_optimizer<sd::SgdRule>({.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.5, .weight_decay = 0.01});
    check_optimizer<sd::SgdRule>({.learning_rate = 0.1, .weight_decay = 0.01});
    check_optimizer<sd::AdamWRule>({.learning_rate = 0.01, .eps = 1e-3});
    check_optimizer<sd::RmspropRule>({.eps = 0.03, .momentum = 0.9});
    check_optimizer<sd::RmspropTfRule>({.momentum = 0});
}

TEST_CASE("device: no samples, no pixels in the way: every kernel accepts an empty batch") {
    const Shape empty{0, 4, 4, 3};
    const Tensor<float> x(empty);
    const Tensor<float> dy(Shape{0, 4, 4, 5});
    const auto weight = random_tensor<float>({5, 3, 3, 3}, 1);
    CHECK(sd::conv2d_forward<float>(Pending<float>(x), weight, {.padding = 1}).shape() == dy.shape());
    const sd::PendingGradient<float, Device> gradient(dy);
    CHECK(sd::conv2d_by_input<float>(gradient, weight, {.padding = 1}, empty).shape() == empty);
    const auto dweight = sd::conv2d_by_weight<float>(Pending<float>(x), gradient, {.padding = 1}, weight.shape());
    for (const float value : sd::to_host(dweight)) CHECK(value == 0);
    CHECK(sd::max_pool2d_forward<float>(Pending<float>(x), {2, 2, 0}).shape() == Shape{0, 2, 2, 3});
    CHECK(sd::global_avg_pool_forward<float>(Pending<float>(x)).shape() == Shape{0, 3});
    CHECK(sd::residual_join_forward<float>(Pending<float>(x), Pending<float>(x), {}, 1.0F, true).shape() == empty);
    CHECK(sd::batch_moments(x).count == 0);
    const auto channels = random_tensor<float>({3}, 2);
    sd::LayerNormStatistics<float, Device> statistics;
    CHECK(sd::layer_norm_forward(x, channels, channels, 1e-6, &statistics).shape() == empty);
    for (const float value : sd::to_host(sd::layer_norm_backward(x, x, channels, statistics).dweight)) {
        CHECK(value == 0);
    }

    const Tensor<float> rows(Shape{0, 3});
    const Tensor<float> logits(Shape{0, 5});
    const auto matrix = random_tensor<float>({5, 3}, 2);
    CHECK(sd::linear_forward(rows, matrix, random_tensor<float>({5}, 3)).shape() == logits.shape());
    CHECK(sd::linear_by_input(logits, matrix).shape() == rows.shape());
    for (const float value : sd::to_host(sd::linear_by_weight(logits, rows))) CHECK(value == 0);
    for (const float value : sd::to_host(sd::linear_by_bias(logits))) CHECK(value == 0);
    const std::span<const Index> labels;
    CHECK(sd::cross_entropy_by_input(logits, labels, 0.1).shape() == logits.shape());
    CHECK(sd::cross_entropy_by_input(logits, logits, 0.1).shape() == logits.shape());
    // There is no mean of nothing.
    CHECK_THROWS_WITH_AS((void)sd::cross_entropy_forward(logits, labels, 0.1),
                         "cross_entropy_forward: shape of logits: got (0, 5), expected at least one sample",
                         std::invalid_argument);
    CHECK_THROWS_AS((void)sd::cross_entropy(logits, labels, 0.1), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::cross_entropy_by_input(Tensor<float>(Shape{0, 0}), labels, 0.1), std::invalid_argument);
}
