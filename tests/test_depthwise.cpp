// Depthwise convolutions against the plain loops of reference/, on shapes drawn at random, and the same bits for any
// number of threads.
#include "conv2d_case.hpp"
#include "kernel_inputs.hpp"
#include "same_bits.hpp"

#include "sd/cpu/conv2d.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string>

namespace test_depthwise {

using sd::Index;
using sd::Shape;
using sd_test::check_close;
using sd_test::Draw;
using sd_test::in_double;

namespace {

/// kernels that have loops of their own, and others
constexpr std::array<Index, 9> kernels{3, 5, 7, 3, 5, 7, 1, 2, 4};
constexpr std::array<Index, 5> channels{1, 3, 8, 24, 40};

struct Case {
    std::string what;
    Shape x;
    Index kernel_height, kernel_width;
    sd::Conv2dOptions options;
};

template <class T>
sd_test::Conv2dCase<T> depthwise(const Shape& x, Index kernel_height, Index kernel_width, sd::Conv2dOptions options,
                                 Index kind) {
    options.groups = x[3];
    return {x, {x[3], 1, kernel_height, kernel_width}, options, kind};
}

}  // namespace

TEST_CASE_TEMPLATE("depthwise", T, float, double, sd::bfloat16) {
    for (Index i = 0; i < 135; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Index kernel = kernels[static_cast<std::size_t>(i % 9)];
        const Index dilation = draw(1, 2);
        const sd::Conv2dOptions options{.stride = draw(1, 2), .padding = draw(0, kernel), .dilation = dilation};
        const Index least = std::max<Index>(1, dilation * (kernel - 1) + 1 - 2 * options.padding);
        const Shape x{draw(1, 3), draw(least, std::max<Index>(least, 17)), draw(least, std::max<Index>(least, 17)),
                      channels[static_cast<std::size_t>(draw(0, 4))]};
        depthwise<T>(x, kernel, kernel, options, i).check();
    }
}

// Extents are such that vectors of any width are cut as the case says.
TEST_CASE_TEMPLATE("depthwise: several pieces, and the same bits for any number of threads", T, float, double,
                   sd::bfloat16) {
    const Case cases[] = {
        {"rows of one sample", {1, 33, 29, 24}, 3, 3, {.padding = 1}},
        {"the same with a stride", {2, 33, 30, 24}, 5, 5, {.stride = 2, .padding = 2}},
        {"several samples a span", {37, 3, 3, 8}, 3, 3, {.padding = 1}},
        {"chunks of channels", {1, 3, 30, 600}, 7, 7, {.padding = 3}},
        {"chunks of channels, the last one of a part of a vector", {2, 5, 33, 1003}, 3, 3, {.stride = 2, .padding = 1}},
        {"kernels that are not square", {2, 11, 12, 21}, 3, 5, {.padding = 2}},
        {"columns of a kernel alone", {2, 11, 12, 21}, 7, 1, {.padding = 3}},
        {"runs without a loop of their own", {2, 13, 14, 21}, 6, 6, {.padding = 3}},
        {"stride 3", {2, 13, 14, 21}, 5, 5, {.stride = 3, .padding = 2}},
        {"a stride that passes over rows", {2, 17, 18, 9}, 2, 2, {.stride = 5}},
        {"a kernel larger than the image", {1, 2, 3, 17}, 7, 7, {.padding = 4}},
        {"taps that never meet the image", {1, 3, 2, 9}, 3, 3, {.padding = 50, .dilation = 50}},
        {"points that meet nothing", {1, 3, 3, 8}, 3, 3, {.padding = 9}},
        {"dilation and stride that leave out pixels", {1, 9, 8, 8}, 3, 3, {.stride = 2, .padding = 2, .dilation = 2}},
        {"one pixel", {1, 1, 1, 1}, 1, 1, {}},
    };
    Index kind = 0;
    for (const Case& one : cases) {
        CAPTURE(one.what);
        const auto conv2d = depthwise<T>(one.x, one.kernel_height, one.kernel_width, one.options, 2 + 3 * kind++);
        conv2d.check(10);
        sd_test::check_threads([&] { return conv2d.run().all(); });
    }
}

TEST_CASE("depthwise: a result that goes past the caches") {
    for (const Index channels_of_image : {32, 33}) {
        const auto x = sd_test::random_pending<float>({2, 315, 317, channels_of_image}, 1, 2);
        const auto weight = sd_test::random_tensor<float>({channels_of_image, 1, 3, 3}, 4);
        const sd::Conv2dOptions options{.padding = 1, .groups = channels_of_image};
        check_close(sd::conv2d_forward(x, weight, options),
                    sd::reference::conv2d_forward(in_double(x), in_double(weight), options));
    }
}

// Worked out by hand: y(0, 0) = 1 (1) + 2 (2) + 3 (3) + 4 (4) = 30 where pixels are 1 to 4 in the first channel, and 10
// times as much in the second one, whose weights are turned round.
TEST_CASE("depthwise: two channels by hand") {
    const sd::Tensor<double> x({1, 2, 2, 2}, {1, 10, 2, 20, 3, 30, 4, 40});
    const sd::Tensor<double> weight({2, 1, 2, 2}, {1, 2, 3, 4, 4, 3, 2, 1});
    const sd::Conv2dOptions options{.groups = 2};
    const auto y = sd::conv2d_forward<double>(x, weight, options);
    REQUIRE(y.shape() == Shape{1, 1, 1, 2});
    CHECK(y(0, 0, 0, 0) == 30);
    CHECK(y(0, 0, 0, 1) == 200);
    const sd::Tensor<double> dy({1, 1, 1, 2}, {2, 3});
    const auto dx = sd::conv2d_by_input<double>(dy, weight, options, x.shape());
    CHECK(dx(0, 0, 1, 0) == 4);
    CHECK(dx(0, 1, 0, 1) == 6);
    const auto dweight = sd::conv2d_by_weight<double>(x, dy, options, weight.shape());
    CHECK(dweight(0, 0, 1, 1) == 8);
    CHECK(dweight(1, 0, 0, 0) == 30);
}

}  // namespace test_depthwise
