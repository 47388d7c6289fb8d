// The device's kernels against the plain loops of reference/ in double, on shapes drawn at random. The join and
// convolution have files of their own.
#pragma once

#include "cuda_kernel_inputs.hpp"
#include "kernel_checks.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

using namespace cuda_cases;  // NOLINT: for the test cases below

TEST_CASE_TEMPLATE("device: batch norm", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Shape shape{draw(1, 5), draw(1, 19), draw(1, 19), random_channels(draw)};
        sd_test::check_batch_norm<T, Device>(shape, i, draw);
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
    sd_test::check_moments_far_from_zero<T, Device>({64, 30, 30, 3});  // more rows than one block may have
}

TEST_CASE_TEMPLATE("device: layer norm", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        sd_test::check_layer_norm<T, Device>({draw(1, 5), draw(1, 19), draw(1, 19), random_channels(draw)}, 1, 1);
    }
}

TEST_CASE_TEMPLATE("device: activations, pending tensors, channels, conversion", T, float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    for (const Index channels : {19, 16}) {
        sd_test::check_activations<T, Device>({3, 5, 7, channels});
        const auto y = random_tensor<T>({3, 5, 7, channels}, 1);
        for (const Index other : {7, 16, 40}) {
            check_close(sd::with_channels(y, other), sd::reference::with_channels(in_double(y), other));
        }
        const auto wide = sd::converted<A>(y);
        check_close(wide, in_double(y));
        CHECK(sd_test::relative_error(in_double(sd::converted<T>(wide)), in_double(y)) == 0);
    }
}

TEST_CASE_TEMPLATE("device: sums, factors, averages, copies, the norm of several tensors", T, float, double,
                   sd::bfloat16) {
    for (const Index size : {1, 7, 1000, 70001}) sd_test::check_elementwise<T, Device>(size);
    for (const double max_norm : {0.5, 1e9}) sd_test::check_clip_norm<T, Device>(max_norm);
}

TEST_CASE_TEMPLATE("device: pooling", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const sd::Pool2dOptions options = sd_test::random_pooling(i, draw);
        sd_test::check_pooling<T, Device>({draw(1, 4), draw(4, 11), draw(4, 11), random_channels(draw)}, options, i);
    }
}

TEST_CASE_TEMPLATE("device: sums of a gate, and of the batch norm before it", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        sd_test::check_gate<T, Device>({draw(1, 4), draw(1, 19), draw(1, 19), random_channels(draw)}, i);
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
        const Shape weight{draw(1, i % 2 == 0 ? 70 : 600), draw(1, 70)};
        // A device may multiply in T, so the weights are values that T can hold.
        sd_test::check_linear<T, Device>(samples, sd::converted<A>(random_tensor<T>(weight, 2)));
        sd_test::check_cross_entropy<T, Device>(samples, weight[0], draw);
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
    sd_test::check_empty_batch<Device>();
}
