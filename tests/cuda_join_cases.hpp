// The device's residual join against the plain loops of reference/ in double.
#pragma once

#include "cuda_kernel_inputs.hpp"
#include "kernel_checks.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <vector>

using namespace cuda_cases;  // NOLINT: for the test cases below

TEST_CASE_TEMPLATE("device: residual join", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Shape shape{draw(1, 9), draw(1, 9), draw(1, 9), random_channels(draw)};
        sd_test::check_residual_join<T, Device>(shape, i, draw);
    }
}

TEST_CASE_TEMPLATE("device: the join's backward pass reads a bit an element, however it is cut", T, float,
                   sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    // the first one is cut into blocks of 8 rows a thread forward, and backward of 9, rounded up to whole bytes
    for (const Shape& shape : {Shape{512, 2, 2300, 1}, Shape{40, 6, 6, 12}, Shape{40, 6, 6, 8}}) {
        const auto x = random_tensor<T>(shape, 1);
        sd::join_output_t<T, Device> output;
        const auto y = sd::residual_join_forward<T>(Pending<T>(x), Pending<T>(x), {}, A(1), true, &output);
        const auto before = random_pass<T>(shape, 2, sd::Activation::none, true);
        Sums<T> sums;
        const auto gradient = sd::residual_join_backward<T>(x, output, {}, shape[0], A(1), true, &before, &sums);
        check_close(gradient.dshortcut,
                    sd::reference::activation_by_input(in_double(x), in_double(y), sd::Activation::relu));
        check_close(sums, sd::reference::batch_norm_sums(in_double(gradient.dbranch), in_double(before)));
    }
    // images of the library's networks: no more than a bit
    for (const Shape& shape : {Shape{2, 56, 56, 256}, Shape{2, 7, 7, 2048}, Shape{2, 32, 32, 16}}) {
        sd::join_output_t<T, Device> output;
        const Pending<T> x(Tensor<T>::full(shape, T(A(0))));
        (void)sd::residual_join_forward<T>(x, x, {}, A(1), true, &output);
        const Index bits = 8 * output.bytes.size();
        CHECK(bits >= shape.size());
        CHECK(bits <= shape.size() + shape.size() / 10);
    }
    sd::join_output_t<T, Device> linear;
    const Pending<T> x(random_tensor<T>({2, 3, 3, 8}, 1));
    (void)sd::residual_join_forward<T>(x, x, {}, A(1), false, &linear);
    CHECK_FALSE(linear.bytes);
    CHECK_THROWS_WITH_AS((void)sd::residual_join_backward<T>(x.raw, linear, {}, 2, A(1), true),
                         "residual_join_backward: bits of a ReLU: got none, expected those that its forward pass left",
                         std::invalid_argument);
}

TEST_CASE("device: a dropped sample's branch is not looked at, even where it is NaN") {
    sd::Tensor<float> branch = sd_test::random_tensor<float>({3, 2, 2, 8}, 1);
    std::fill_n(branch.begin() + 32, 32, std::numeric_limits<float>::quiet_NaN());
    const auto shortcut = random_tensor<float>({3, 2, 2, 8}, 2);
    const std::vector<Index> selection{0, -1, 2};
    const Pending<float> pending(sd::to_device<Device>(branch), random_tensor<float>({8}, 3),
                                 random_tensor<float>({8}, 4), sd::Activation::none);
    sd::join_output_t<float, Device> output;
    const auto y = sd::residual_join_forward<float>(Pending<float>(shortcut), pending, selection, 1.0F, true, &output);
    const auto own = sd::to_host(y);
    const auto plain = sd::to_host(sd::activation_forward(shortcut, sd::Activation::relu));
    CHECK(std::memcmp(own.data() + 32, plain.data() + 32, 32 * sizeof(float)) == 0);
    const sd::BatchNormPass<float, Device> pass{pending, random_tensor<float>({8}, 5),
                                                random_tensor<float>({8}, 6, 0.5, 2), true};
    Sums<float> sums;
    const auto gradient = sd::residual_join_backward<float>(shortcut, output, selection, 3, 1.0F, true, &pass, &sums);
    for (const float value : sd::to_host(sums.dweight)) CHECK(std::isfinite(value));
    for (const float value : sd::to_host(gradient.dbranch)) CHECK(std::isfinite(value));
}
