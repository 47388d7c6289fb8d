// The device's convolutions against the plain loops of reference/ in double, and the rounded numbers of samples that
// they compute.
#pragma once

#include "cuda_kernel_inputs.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <vector>

using namespace cuda_cases;  // NOLINT: for the test cases below

TEST_CASE_TEMPLATE("device: conv2d", T, float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Index groups = draw(1, 3);
        const sd::Conv2dOptions options{draw(1, 3), draw(0, 3), draw(1, 2), groups};
        const Shape x_shape{draw(1, 3), draw(7, 11), draw(7, 11), groups * draw(1, 9)};
        const Shape weight_shape{groups * draw(1, 12), x_shape[3] / groups, draw(1, 4), draw(1, 4)};
        CAPTURE(x_shape);
        CAPTURE(weight_shape);
        // What is pending is rounded to T before the product, so the reference takes plain values.
        const Tensor<T> x = sd::materialize(random_pending<T>(x_shape, 1, i % pending_kinds));
        const auto weight = sd::converted<A>(random_tensor<T>(weight_shape, 4));
        sd::Moments<A, Device> moments;
        const Tensor<T> y = sd::conv2d_forward<T>(Pending<T>(x), weight, options, &moments);
        check_close(y, sd::reference::conv2d_forward<double>(in_double(x), in_double(weight), options));
        check_close(moments.mean, sd::reference::batch_moments(in_double(y)).mean);
        const auto scale = random_tensor<A>({weight_shape[0]}, 10);
        const auto shift = random_tensor<A>({weight_shape[0]}, 11);
        check_close(sd::conv2d_batch_norm_forward<T>(Pending<T>(x), weight, options, scale, shift, activation_of(i)),
                    sd::reference::materialize(
                        sd::Pending<double>(in_double(y), in_double(scale), in_double(shift), activation_of(i))));
        const auto shortcut = random_pending<T>(y.shape(), 40, i % pending_kinds);
        check_close(
            sd::conv2d_join_forward<T>(Pending<T>(x), weight, options, scale, shift, {shortcut, A(0.75), i % 2 == 0}),
            sd::reference::residual_join_forward<double>(
                in_double(sd::ungated(shortcut)),
                sd::Pending<double>(in_double(y), in_double(scale), in_double(shift), sd::Activation::none), {}, 0.75,
                i % 2 == 0));
        const sd::PendingGradient<T, Device> dy =
            sd::materialize(random_gradient<T>(y.shape(), 20, (i + i / pending_kinds) % pending_kinds));
        const auto before = random_pass<T>(x_shape, 30, activation_of(i), true);
        Sums<T> sums;
        const Tensor<T> dx = sd::conv2d_by_input<T>(dy, weight, options, x_shape, &before, &sums);
        check_close(dx, sd::reference::conv2d_by_input<double>(in_double(dy), in_double(weight), options, x_shape));
        check_close(sums, sd::reference::batch_norm_sums(in_double(dx), in_double(before)));
        const auto dshortcut = random_tensor<T>(x_shape, 50);
        check_close(sd::conv2d_join_by_input<T>(dy, weight, options, dshortcut),
                    sd::reference::add_selected(in_double(dshortcut), in_double(dx), {}));
        check_close(sd::conv2d_by_weight<T>(Pending<T>(x), dy, options, weight_shape),
                    sd::reference::conv2d_by_weight<double>(in_double(x), in_double(dy), options, weight_shape));
    }
}

TEST_CASE("device: kept samples are rounded up to few numbers, and to little more") {
    for (const Index batch : {1, 7, 32, 48, 128, 250, 256}) {
        std::set<Index> numbers;
        for (Index kept = 1; kept <= batch; ++kept) {
            const Index rounded = sd::cuda::rounded_samples(kept, batch);
            CHECK(rounded >= kept);
            CHECK(rounded <= std::min(batch, kept + batch / 32));
            numbers.insert(rounded);
        }
        CHECK(numbers.size() <= 32);
        CHECK(sd::cuda::rounded_samples(batch, batch) == batch);
        CHECK(sd::cuda::rounded_samples(0, batch) == 0);
    }
}

TEST_CASE_TEMPLATE("device: convolutions compute a rounded number of samples, and nobody sees more than there are", T,
                   float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    constexpr Index kept = 37, rounded = 39;  // of 70: multiples of 3
    std::vector<Index> samples;
    for (Index n = 0; n < kept; ++n) samples.push_back(n * 50 % 70);
    for (const Index channels : {8, 3}) {
        const sd::Conv2dOptions options{.stride = 2, .padding = 1};
        const Tensor<T> x = sd::gather_samples(random_tensor<T>({70, 5, 5, channels}, 1), samples);
        CHECK(x.extent(0) == kept);
        CHECK(sd::cuda::sample_room(x) == rounded);
        const auto weight = sd::converted<A>(random_tensor<T>({5, channels, 3, 3}, 2));
        // a tensor that is made plain on the way, and one that is plain
        for (const bool plain : {true, false}) {
            const Pending<T> input = plain ? Pending<T>(x)
                                           : Pending<T>(x, random_tensor<A>({channels}, 3),
                                                        random_tensor<A>({channels}, 4), sd::Activation::relu);
            const Tensor<T> operand = sd::materialize(input);
            sd::Moments<A, Device> moments;
            const Tensor<T> z = sd::conv2d_forward<T>(input, weight, options, &moments);
            CHECK(sd::cuda::sample_room(z) == rounded);
            check_close(z, sd::reference::conv2d_forward<double>(in_double(operand), in_double(weight), options));
            const auto expected = sd::reference::batch_moments(in_double(z));
            CHECK(moments.count == expected.count);
            check_close(moments.mean, expected.mean);
            check_close(moments.m2, expected.m2);

            const Pass<T> pass{Pending<T>(z, random_tensor<A>({5}, 5), random_tensor<A>({5}, 6), sd::Activation::relu),
                               moments.mean, random_tensor<A>({5}, 7, 0.5, 2), true};
            const auto dy = random_tensor<T>(z.shape(), 8);
            const auto sums = sd::batch_norm_sums(dy, pass);
            const sd::PendingGradient<T, Device> dz = sd::materialize(sd::batch_norm_by_input(dy, pass, sums));
            CHECK(sd::cuda::sample_room(dz.dy) == rounded);
            check_close(
                sd::conv2d_by_weight<T>(input, dz, options, weight.shape()),
                sd::reference::conv2d_by_weight<double>(in_double(operand), in_double(dz), options, weight.shape()));
            const Tensor<T> dx = sd::conv2d_by_input<T>(dz, weight, options, x.shape());
            CHECK(sd::cuda::sample_room(dx) == rounded);
            check_close(dx,
                        sd::reference::conv2d_by_input<double>(in_double(dz), in_double(weight), options, x.shape()));
        }
    }
}

/// All that a depthwise convolution computes, of what is pending in either direction.
template <class T>
void check_depthwise(const Shape& x_shape, const Shape& weight_shape, const sd::Conv2dOptions& options, Index i) {
    using A = sd::accumulate_t<T>;
    CAPTURE(x_shape);
    CAPTURE(weight_shape);
    const auto x = random_pending<T>(x_shape, 1, i % pending_kinds);
    const auto weight = random_tensor<A>(weight_shape, 4);
    CHECK(sd::conv2d_operand(x, weight_shape, options).raw.shares_storage_with(x.raw));
    const auto expected = sd::reference::conv2d_forward<double>(in_double(x), in_double(weight), options);
    sd::Moments<A, Device> moments;
    const Tensor<T> y = sd::conv2d_forward<T>(x, weight, options, &moments);
    check_close(y, expected);
    const auto expected_moments = sd::reference::batch_moments(in_double(y));
    CHECK(moments.count == expected_moments.count);
    check_close(moments.mean, expected_moments.mean);
    check_close(moments.m2, expected_moments.m2);
    CHECK(sd_test::relative_error(in_double(sd::conv2d_forward<T>(x, weight, options)), in_double(y)) == 0);

    const auto dy = random_gradient<T>(y.shape(), 20, (i + i / pending_kinds) % pending_kinds);
    const auto before = random_pass<T>(x_shape, 30, activation_of(i), true);
    Sums<T> sums;
    const Tensor<T> dx = sd::conv2d_by_input<T>(dy, weight, options, x_shape, &before, &sums);
    check_close(dx, sd::reference::conv2d_by_input<double>(in_double(dy), in_double(weight), options, x_shape));
    check_close(sums, sd::reference::batch_norm_sums(in_double(dx), in_double(before)));
    const auto alone = sd::conv2d_by_input<T>(dy, weight, options, x_shape);
    CHECK(sd_test::relative_error(in_double(alone), in_double(dx)) == 0);
    check_close(sd::conv2d_by_weight<T>(x, dy, options, weight_shape),
                sd::reference::conv2d_by_weight<double>(in_double(x), in_double(dy), options, weight_shape));
}

TEST_CASE_TEMPLATE("device: depthwise convolutions load what is pending and sum what they write", T, float, double,
                   sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        constexpr Index channels_of[] = {1, 3, 8, 16, 37, 48};
        const Index channels = channels_of[draw(0, 5)];
        const sd::Conv2dOptions options{draw(1, 3), draw(0, 3), draw(1, 2), channels};
        check_depthwise<T>({draw(1, 3), draw(7, 11), draw(7, 11), channels}, {channels, 1, draw(1, 4), draw(1, 4)},
                           options, i);
    }
    // the kernel of ConvNeXt, of more taps than a block takes; and more channels than a block has threads for
    check_depthwise<T>({2, 9, 8, 24}, {24, 1, 7, 7}, {.padding = 3, .groups = 24}, 1);
    check_depthwise<T>({2, 3, 4, 2304}, {2304, 1, 3, 3}, {.padding = 1, .groups = 2304}, 2);
    check_depthwise<T>({3, 40, 40, 2}, {2, 1, 5, 5}, {.stride = 2, .padding = 2, .groups = 2}, 3);
}

TEST_CASE_TEMPLATE("device: a depthwise convolution leaves zeros behind the samples", T, float, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    const std::vector<Index> samples{1, 69, 3, 5, 7};  // with room for 6 of 70
    const sd::Conv2dOptions options{.padding = 1, .groups = 8};
    const Tensor<T> raw = sd::gather_samples(random_tensor<T>({70, 5, 5, 8}, 1), samples);
    const Pending<T> x(raw, random_tensor<A>({8}, 2), Tensor<A>::full({8}, A(1)), sd::Activation::none);
    const auto weight = random_tensor<A>({8, 1, 3, 3}, 3);
    const auto check_room = [&](const Tensor<T>& y) {
        REQUIRE(sd::cuda::sample_room(y) == 6);
        const auto all = in_double(sd::cuda::with_room(y, 6));
        CHECK(std::all_of(all.begin() + y.size(), all.end(), [](double value) { return value == 0; }));
    };
    const Tensor<T> y = sd::conv2d_forward<T>(x, weight, options);
    check_close(y, sd::reference::conv2d_forward<double>(in_double(x), in_double(weight), options));
    check_room(y);
    const sd::PendingGradient<T, Device> dy(y);
    check_room(sd::conv2d_by_input<T>(dy, weight, options, x.shape()));
    check_close(sd::conv2d_by_weight<T>(x, dy, options, weight.shape()),
                sd::reference::conv2d_by_weight<double>(in_double(x), in_double(y), options, weight.shape()));
}
