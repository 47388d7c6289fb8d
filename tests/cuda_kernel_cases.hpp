// The device's kernels against the plain loops of reference/ in double, on shapes drawn at random. KernelDevice is the
// device that the including unit tests: the emulator, or a GPU.
#pragma once

#include "kernel_inputs.hpp"

#include "sd/sd.hpp"

#include "sd/cuda/kernels.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <set>
#include <vector>

namespace cuda_cases {

using sd::Index;
using sd::Shape;
using sd_test::check_close;
using sd_test::Draw;
using sd_test::in_double;
using sd_test::random_selection;
using Device = KernelDevice;
template <class T>
using Tensor = sd::Tensor<T, Device>;
template <class T>
using Pending = sd::Pending<T, Device>;
template <class T>
using Pass = sd::BatchNormPass<T, Device>;
template <class T>
using Sums = sd::BatchNormSums<sd::accumulate_t<T>, Device>;

constexpr int repetitions = 30;

template <class T>
Tensor<T> random_tensor(const Shape& shape, std::uint64_t stream, double low = -1, double high = 1) {
    return sd::converted<T>(
        sd::to_device<Device>(sd_test::random_tensor<sd::accumulate_t<T>>(shape, stream, low, high)));
}

template <class T>
Pending<T> random_pending(const Shape& shape, std::uint64_t stream, Index kind) {
    using A = sd::accumulate_t<T>;
    const Shape channels{shape[shape.rank() - 1]};
    if (kind == 0) return random_tensor<T>(shape, stream);
    return {random_tensor<T>(shape, stream), random_tensor<A>(channels, stream + 1),
            random_tensor<A>(channels, stream + 2), kind == 2};
}

template <class T>
Pass<T> random_pass(const Shape& shape, std::uint64_t stream, bool relu, bool batch_statistics) {
    using A = sd::accumulate_t<T>;
    const Shape channels{shape[shape.rank() - 1]};
    return {random_pending<T>(shape, stream, relu ? 2 : 1), random_tensor<A>(channels, stream + 3),
            random_tensor<A>(channels, stream + 4, 0.5, 2), batch_statistics};
}

template <class T>
sd::PendingGradient<T, Device> random_gradient(const Shape& shape, std::uint64_t stream, Index kind) {
    using A = sd::accumulate_t<T>;
    const auto dy = random_tensor<T>(shape, stream);
    if (kind == 0) return dy;
    const Shape channels{shape[shape.rank() - 1]};
    return {dy, random_pending<T>(shape, stream + 1, kind), random_tensor<A>(channels, stream + 4),
            random_tensor<A>(channels, stream + 5), random_tensor<A>(channels, stream + 6)};
}

// Channels that threads take one by one, and those that they take 16 bytes at a time, few and many.
inline Index random_channels(Draw& draw) {
    constexpr Index choices[] = {1, 3, 8, 16, 24, 37, 64, 136, 300, 2048};
    return choices[draw(0, 9)];
}

}  // namespace cuda_cases

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
        const auto pass = random_pass<T>(shape, 5, i % 2 == 0, draw(0, 1) == 1);
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

TEST_CASE_TEMPLATE("device: batch moments of many rows do not cancel far from zero", T, float, double) {
    sd::Tensor<T> x = sd_test::random_tensor<T>({64, 30, 30, 3}, 1);  // more rows than one block may have
    for (T& value : x) value += T(10000);
    const auto moments = sd::batch_moments(sd::to_device<Device>(x));
    const auto expected = sd::reference::batch_moments(in_double(x));
    check_close(moments.mean, expected.mean);
    CHECK(sd_test::relative_error(in_double(moments.m2), expected.m2) < (std::is_same_v<T, float> ? 1e-3 : 1e-9));
}

TEST_CASE_TEMPLATE("device: relu, pending tensors, channels, sums, conversion", T, float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    for (const Index channels : {19, 16}) {
        const auto y = random_tensor<T>({3, 5, 7, channels}, 1);
        const auto dy = random_tensor<T>(y.shape(), 2);
        check_close(sd::relu_forward(y), sd::reference::relu_forward(in_double(y)));
        check_close(sd::relu_by_input(dy, y), sd::reference::relu_by_input(in_double(dy), in_double(y)));
        for (Index kind = 0; kind < 3; ++kind) {
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
        check_close(sd::converted<A>(y), in_double(y));
    }
}

TEST_CASE_TEMPLATE("device: residual join", T, float, double, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Shape shape{draw(1, 9), draw(1, 9), draw(1, 9), random_channels(draw)};
        CAPTURE(shape);
        Index branch_samples = 0;
        std::vector<Index> selection = random_selection(shape[0], draw, branch_samples);
        if (i % 3 == 0) {  // the branch has every sample, some of which join none
            branch_samples = shape[0];
            for (std::size_t n = 0; n < selection.size(); ++n) {
                if (selection[n] >= 0) selection[n] = static_cast<Index>(n);
            }
        }
        const bool relu = draw(0, 1) == 1;
        const Pending<T> shortcut = random_pending<T>(shape, 1, draw(0, 2));
        const Pending<T> branch = random_pending<T>(sd::with_samples(shape, branch_samples), 4, draw(0, 2));
        sd::join_output_t<T, Device> output;
        const Tensor<T> y = sd::residual_join_forward<T>(shortcut, branch, selection, A(0.75), relu, &output);
        check_close(
            y, sd::reference::residual_join_forward(in_double(shortcut), in_double(branch), selection, 0.75, relu));
        const auto dy = random_tensor<T>(shape, 7);
        const auto before = random_pass<T>(branch.shape(), 20, i % 2 == 0, true);
        Sums<T> sums;
        const auto expected = sd::reference::residual_join_backward<double>(in_double(dy), in_double(y), selection,
                                                                            branch_samples, 0.75, relu);
        for (const auto* pass : {static_cast<const Pass<T>*>(nullptr), &before}) {
            const auto gradient = sd::residual_join_backward<T>(dy, output, selection, branch_samples, A(0.75), relu,
                                                                pass, pass == nullptr ? nullptr : &sums);
            check_close(gradient.dshortcut, expected.dshortcut);
            check_close(gradient.dbranch, expected.dbranch);
            if (pass == nullptr) continue;
            check_close(sums, sd::reference::batch_norm_sums(in_double(gradient.dbranch), in_double(before)));
        }
        const auto whole = sd::residual_join_backward<T>(dy, output, {}, shape[0], A(1), relu);
        const auto expected_whole =
            sd::reference::residual_join_backward<double>(in_double(dy), in_double(y), {}, shape[0], 1.0, relu);
        check_close(whole.dshortcut, expected_whole.dshortcut);
        check_close(whole.dbranch, expected_whole.dbranch);
        check_close(sd::add_selected<T>(dy, branch.raw, selection),
                    sd::reference::add_selected(in_double(dy), in_double(branch.raw), selection));
        const std::vector<Index> samples(5, shape[0] - 1);
        check_close(sd::gather_samples(dy, samples), sd::reference::gather_samples(in_double(dy), samples));
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
        const auto before = random_pass<T>(shape, 2, false, true);
        Sums<T> sums;
        const auto gradient = sd::residual_join_backward<T>(x, output, {}, shape[0], A(1), true, &before, &sums);
        check_close(gradient.dshortcut, sd::reference::relu_by_input(in_double(x), in_double(y)));
        check_close(sums, sd::reference::batch_norm_sums(in_double(gradient.dbranch), in_double(before)));
    }
    // images of the library's networks: no more than a bit
    for (const Shape& shape : {Shape{2, 56, 56, 256}, Shape{2, 7, 7, 2048}, Shape{2, 32, 32, 16}}) {
        sd::join_output_t<T, Device> output;
        const Pending<T> x(Tensor<T>::empty(shape));
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
                                 random_tensor<float>({8}, 4), false);
    sd::join_output_t<float, Device> output;
    const auto y = sd::residual_join_forward<float>(Pending<float>(shortcut), pending, selection, 1.0F, true, &output);
    const auto own = sd::to_host(y);
    const auto plain = sd::to_host(sd::relu_forward(shortcut));
    CHECK(std::memcmp(own.data() + 32, plain.data() + 32, 32 * sizeof(float)) == 0);
    const sd::BatchNormPass<float, Device> pass{pending, random_tensor<float>({8}, 5),
                                                random_tensor<float>({8}, 6, 0.5, 2), true};
    Sums<float> sums;
    const auto gradient = sd::residual_join_backward<float>(shortcut, output, selection, 3, 1.0F, true, &pass, &sums);
    for (const float value : sd::to_host(sums.dweight)) CHECK(std::isfinite(value));
    for (const float value : sd::to_host(gradient.dbranch)) CHECK(std::isfinite(value));
}

TEST_CASE_TEMPLATE("device: pooling", T, float, double, sd::bfloat16) {
    for (int i = 0; i < repetitions; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Index kernel = draw(1, 4);
        const sd::Pool2dOptions options{kernel, draw(1, 3), draw(0, kernel / 2)};
        const Shape shape{draw(1, 4), draw(4, 11), draw(4, 11), random_channels(draw)};
        CAPTURE(shape);
        CAPTURE(kernel);
        const Pending<T> x = random_pending<T>(shape, 1, i % 3);
        const Tensor<T> y = sd::max_pool2d_forward<T>(x, options);
        check_close(y, sd::reference::max_pool2d_forward(in_double(x), options));
        const auto dy = random_tensor<T>(y.shape(), 4);
        check_close(sd::max_pool2d_by_input<T>(dy, x, options),
                    sd::reference::max_pool2d_by_input(in_double(dy), in_double(x), options));
        check_close(sd::avg_pool2d_forward(x.raw, options),
                    sd::reference::avg_pool2d_forward(in_double(x.raw), options));
        check_close(sd::avg_pool2d_by_input(dy, options, shape),
                    sd::reference::avg_pool2d_by_input(in_double(dy), options, shape));
        const auto dmean = random_tensor<T>({shape[0], shape[3]}, 5);
        check_close(sd::global_avg_pool_forward(x.raw), sd::reference::global_avg_pool_forward(in_double(x.raw)));
        check_close(sd::global_avg_pool_by_input(dmean, shape),
                    sd::reference::global_avg_pool_by_input(in_double(dmean), shape));
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
        const Tensor<T> x = sd::materialize(random_pending<T>(x_shape, 1, i % 3));
        const auto weight = sd::converted<A>(random_tensor<T>(weight_shape, 4));
        sd::Moments<A, Device> moments;
        const Tensor<T> y = sd::conv2d_forward<T>(Pending<T>(x), weight, options, &moments);
        check_close(y, sd::reference::conv2d_forward<double>(in_double(x), in_double(weight), options));
        check_close(moments.mean, sd::reference::batch_moments(in_double(y)).mean);
        const auto scale = random_tensor<A>({weight_shape[0]}, 10);
        const auto shift = random_tensor<A>({weight_shape[0]}, 11);
        check_close(sd::conv2d_batch_norm_forward<T>(Pending<T>(x), weight, options, scale, shift, i % 2 == 0),
                    sd::reference::materialize(
                        sd::Pending<double>(in_double(y), in_double(scale), in_double(shift), i % 2 == 0)));
        const sd::PendingGradient<T, Device> dy = sd::materialize(random_gradient<T>(y.shape(), 20, i / 3 % 3));
        const auto before = random_pass<T>(x_shape, 30, i % 2 == 0, true);
        Sums<T> sums;
        const Tensor<T> dx = sd::conv2d_by_input<T>(dy, weight, options, x_shape, &before, &sums);
        check_close(dx, sd::reference::conv2d_by_input<double>(in_double(dy), in_double(weight), options, x_shape));
        check_close(sums, sd::reference::batch_norm_sums(in_double(dx), in_double(before)));
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
            const Pending<T> input =
                plain ? Pending<T>(x)
                      : Pending<T>(x, random_tensor<A>({channels}, 3), random_tensor<A>({channels}, 4), true);
            const Tensor<T> operand = sd::materialize(input);
            sd::Moments<A, Device> moments;
            const Tensor<T> z = sd::conv2d_forward<T>(input, weight, options, &moments);
            CHECK(sd::cuda::sample_room(z) == rounded);
            check_close(z, sd::reference::conv2d_forward<double>(in_double(operand), in_double(weight), options));
            const auto expected = sd::reference::batch_moments(in_double(z));
            CHECK(moments.count == expected.count);
            check_close(moments.mean, expected.mean);
            check_close(moments.m2, expected.m2);

            const Pass<T> pass{Pending<T>(z, random_tensor<A>({5}, 5), random_tensor<A>({5}, 6), true), moments.mean,
                               random_tensor<A>({5}, 7, 0.5, 2), true};
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
        };
        compare(classes, classes);
        compare(target, in_double(target));
        CHECK(sd::to_host(sd::cross_entropy_on_device(dy, classes, 0.1)).data()[0] ==
              sd::cross_entropy_forward(dy, classes, 0.1));
    }
}

TEST_CASE("device: SGD takes all tensors in one launch, as the processor takes each") {
    const auto run = [&]<class D>(D) {
        sd::ParameterList<double, D> parameters;
        Draw draw(1);
        for (std::uint64_t i = 0; i < 9; ++i) {
            const Shape shape{i == 3 ? Index{0} : draw(1, 3000)};
            parameters.push_back(
                std::make_shared<sd::Parameter<double, D>>(sd::to_device<D>(sd_test::random_tensor<double>(shape, i))));
        }
        sd::Sgd<double, D> optimizer(parameters,
                                     {.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.5, .weight_decay = 0.01});
        for (std::uint64_t step = 0; step < 3; ++step) {
            optimizer.zero_grad();
            for (std::uint64_t i = 0; i < 9; ++i) {
                if ((i + step) % 4 == 0) continue;  // a parameter without a gradient
                parameters[i]->add_grad(sd::to_device<D>(
                    sd_test::random_tensor<double>(parameters[i]->value.shape(), 100 + 10 * step + i)));
            }
            optimizer.step();
        }
        std::vector<sd::Tensor<double>> values;
        for (const auto& parameter : parameters) values.push_back(in_double(parameter->value));
        return values;
    };
    const auto ours = run(Device());
    const auto expected = run(sd::Cpu());
    for (std::size_t i = 0; i < ours.size(); ++i) check_close(ours[i], expected[i]);
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
    CHECK(sd::global_avg_pool_forward(x).shape() == Shape{0, 3});
    CHECK(sd::residual_join_forward<float>(Pending<float>(x), Pending<float>(x), {}, 1.0F, true).shape() == empty);
    CHECK(sd::batch_moments(x).count == 0);

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
    CHECK_THROWS_AS((void)sd::cross_entropy_on_device(logits, labels, 0.1), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::cross_entropy_by_input(Tensor<float>(Shape{0, 0}), labels, 0.1), std::invalid_argument);
}
