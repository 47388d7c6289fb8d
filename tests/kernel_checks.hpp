// Kernels against the plain loops of reference/ in double, on inputs drawn at random: what is asked of every device alike.
// Kernels are named without sd:: before them, so that those of the tensors' device are found.
#pragma once

#include "kernel_inputs.hpp"

#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace sd_test {

/// `i` turns through activations.
template <class T, class Device>
void check_batch_norm(const Shape& shape, int i, Draw& draw) {
    using A = sd::accumulate_t<T>;
    CAPTURE(shape);
    const auto z = random_tensor<T, Device>(shape, 1);
    const auto moments = batch_moments(z);
    const auto expected = sd::reference::batch_moments(in_double(z));
    CHECK(moments.count == expected.count);
    check_close(moments.mean, expected.mean);
    check_close(moments.m2, expected.m2);
    const auto pass = random_pass<T, Device>(shape, 5, activation_of(i), draw(0, 1) == 1);
    const auto dy = random_tensor<T, Device>(shape, 6);
    const auto sums = batch_norm_sums(dy, pass);
    check_close(sums, sd::reference::batch_norm_sums(in_double(dy), in_double(pass)));
    check_close(materialize(batch_norm_by_input(dy, pass, sums)),
                sd::reference::materialize(
                    sd::reference::batch_norm_by_input(in_double(dy), in_double(pass), in_double(sums))));

    const Shape channels{shape[3]};
    const auto weight = random_tensor<A, Device>(channels, 7);
    const auto bias = random_tensor<A, Device>(channels, 8);
    const auto factors = batch_norm_factors(moments.mean, moments.m2, moments.count, weight, bias, 1e-5);
    const auto expected_factors = sd::reference::batch_norm_factors(
        in_double(moments.mean), in_double(moments.m2), moments.count, in_double(weight), in_double(bias), 1e-5);
    check_close(factors.inverse_std, expected_factors.inverse_std);
    check_close(factors.scale, expected_factors.scale);
    check_close(factors.shift, expected_factors.shift);
    auto mean = random_tensor<A, Device>(channels, 9);
    auto variance = random_tensor<A, Device>(channels, 10, 0.5, 2);
    auto expected_mean = in_double(mean);
    auto expected_variance = in_double(variance);
    update_running_statistics(mean, variance, moments, 0.1);
    const sd::Moments<double> same{moments.count, in_double(moments.mean), in_double(moments.m2)};
    sd::reference::update_running_statistics(expected_mean, expected_variance, same, 0.1);
    check_close(mean, expected_mean);
    check_close(variance, expected_variance);
}

/// Of a mean that is 10000 times the deviation.
template <class T, class Device>
void check_moments_far_from_zero(const Shape& shape) {
    Tensor<T> x = random_tensor<T>(shape, 1);
    for (T& value : x) value += T(10000);
    const auto moments = batch_moments(sd::to_device<Device>(x));
    const auto expected = sd::reference::batch_moments(in_double(x));
    check_close(moments.mean, expected.mean);
    CHECK(relative_error(in_double(moments.m2), expected.m2) < (std::is_same_v<T, float> ? 1e-3 : 1e-9));
}

/// Sums over pixels may differ by `tolerance` times what rounding is granted elsewhere.
template <class T, class Device>
void check_layer_norm(const Shape& shape, std::uint64_t stream, double tolerance) {
    using A = sd::accumulate_t<T>;
    CAPTURE(shape);
    const Shape channels{shape[shape.rank() - 1]};
    const auto x = random_tensor<T, Device>(shape, stream, -2, 3);
    const auto dy = random_tensor<T, Device>(shape, stream + 1);
    const auto weight = random_tensor<A, Device>(channels, stream + 2);
    const auto bias = random_tensor<A, Device>(channels, stream + 3);
    sd::LayerNormStatistics<A, Device> statistics;
    sd::LayerNormStatistics<double> expected;
    const auto y = layer_norm_forward(x, weight, bias, 1e-2, &statistics);
    check_close(y,
                sd::reference::layer_norm_forward(in_double(x), in_double(weight), in_double(bias), 1e-2, &expected));
    check_close(statistics.mean, expected.mean);
    check_close(statistics.inverse_std, expected.inverse_std);
    CHECK(relative_error(in_double(layer_norm_forward(x, weight, bias, 1e-2)), in_double(y)) == 0);
    const auto gradient = layer_norm_backward(dy, x, weight, statistics);
    const auto theirs = sd::reference::layer_norm_backward(in_double(dy), in_double(x), in_double(weight), expected);
    check_close(gradient.dx, theirs.dx, channels[0] == 1 ? 10 * tolerance : 1);  // of zeros, rounding times inverse_std
    check_close(gradient.dweight, theirs.dweight, tolerance);
    check_close(gradient.dbias, theirs.dbias, tolerance);
}

/// All activations and kinds of pending tensors.
template <class T, class Device>
void check_activations(const Shape& shape) {
    const auto x = random_tensor<T, Device>(shape, 1, -8, 8);
    const auto dy = random_tensor<T, Device>(shape, 2);
    for (Index i = 0; i < activations; ++i) {
        const sd::Activation activation = activation_of(i);
        CAPTURE(sd::to_string(activation));
        const auto value = activation_forward(x, activation);
        check_close(value, sd::reference::activation_forward(in_double(x), activation));
        check_close(activation_by_input(dy, x, activation),
                    sd::reference::activation_by_input(in_double(dy), in_double(x), activation));
        Pending<T, Device> unscaled(x);  // as a convolution without a batch norm leaves it
        unscaled.activation = activation;
        check_close(materialize(unscaled), in_double(value));
        check_close(max_pool2d_forward(unscaled, {2, 2, 0}),
                    sd::reference::max_pool2d_forward<double>(in_double(value), {2, 2, 0}));
    }
    for (Index kind = 0; kind < pending_kinds; ++kind) {
        const auto pending = random_pending<T, Device>(shape, 3, kind);
        check_close(materialize(pending), sd::reference::materialize(in_double(pending)));
        const auto gradient = random_gradient<T, Device>(shape, 5, kind);
        check_close(materialize(gradient), sd::reference::materialize(in_double(gradient)));
    }
}

/// Sums, factors, averages and copies of `size` elements.
template <class T, class Device>
void check_elementwise(Index size) {
    using A = sd::accumulate_t<T>;
    CAPTURE(size);
    const auto x = random_tensor<T, Device>({size}, 1);
    const auto other = random_tensor<T, Device>({size}, 2);
    const auto expect = [&](const auto& fast, const auto& plain) {
        auto y = x.clone();
        auto expected = in_double(x).clone();
        fast(y);
        plain(expected);
        check_close(y, expected);
    };
    expect([&](auto& y) { add_to(y, other); }, [&](auto& y) { sd::reference::add_to(y, in_double(other)); });
    expect([&](auto& y) { scale_by(y, A(0.75)); }, [&](auto& y) { sd::reference::scale_by(y, 0.75); });
    expect([&](auto& y) { move_towards(y, other, A(0.25)); },
           [&](auto& y) { sd::reference::move_towards(y, in_double(other), 0.25); });
    expect([&](auto& y) { copy_elements(other, 1, size - 1, y, 0); },
           [&](auto& y) { sd::reference::copy_elements(in_double(other), 1, size - 1, y, 0); });
}

/// Of a short and a long tensor, whose norm is above 100.
template <class T, class Device>
void check_clip_norm(double max_norm) {
    CAPTURE(max_norm);
    std::vector<Tensor<T, Device>> tensors{random_tensor<T, Device>({3}, 1), random_tensor<T, Device>({70001}, 2)};
    std::vector<Tensor<double>> expected;
    for (const auto& tensor : tensors) expected.push_back(in_double(tensor).clone());
    const auto norm = clip_norm(std::span(tensors), max_norm);
    check_close(norm, sd::reference::clip_norm(std::span(expected), max_norm));
    for (std::size_t i = 0; i < 2; ++i) check_close(tensors[i], expected[i]);
    CHECK(in_double(norm)(0) > 100);
}

/// `i` turns through selections of the branch's samples and activations before the join.
template <class T, class Device>
void check_residual_join(const Shape& shape, int i, Draw& draw) {
    using A = sd::accumulate_t<T>;
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
    const auto shortcut = random_pending<T, Device>(shape, 1, draw(0, pending_kinds - 1));
    const auto branch =
        random_pending<T, Device>(sd::with_samples(shape, branch_samples), 4, draw(0, pending_kinds - 1));
    sd::join_output_t<T, Device> output;
    const auto y = residual_join_forward(shortcut, branch, selection, A(0.75), relu, &output);
    // Gates are applied in a tensor of their own, which is rounded.
    const auto own = [](const auto& x) { return in_double(ungated(x)); };
    check_close(y, sd::reference::residual_join_forward(own(shortcut), own(branch), selection, 0.75, relu));
    const auto dy = random_tensor<T, Device>(shape, 7);
    const auto before = random_pass<T, Device>(branch.shape(), 20, activation_of(i), true);
    sd::BatchNormSums<A, Device> sums;
    const auto expected = sd::reference::residual_join_backward<double>(in_double(dy), in_double(y), selection,
                                                                        branch_samples, 0.75, relu);
    for (const auto* pass : {static_cast<const sd::BatchNormPass<T, Device>*>(nullptr), &before}) {
        const auto gradient = residual_join_backward(dy, output, selection, branch_samples, A(0.75), relu, pass,
                                                     pass == nullptr ? nullptr : &sums);
        check_close(gradient.dshortcut, expected.dshortcut);
        check_close(gradient.dbranch, expected.dbranch);
        if (pass == nullptr) continue;
        check_close(sums, sd::reference::batch_norm_sums(in_double(gradient.dbranch), in_double(before)));
    }
    const auto whole = residual_join_backward(dy, output, {}, shape[0], A(1), relu);
    const auto expected_whole =
        sd::reference::residual_join_backward<double>(in_double(dy), in_double(y), {}, shape[0], 1.0, relu);
    check_close(whole.dshortcut, expected_whole.dshortcut);
    check_close(whole.dbranch, expected_whole.dbranch);
    check_close(add_selected(dy, branch.raw, selection),
                sd::reference::add_selected(in_double(dy), in_double(branch.raw), selection));
    const std::vector<Index> samples(5, shape[0] - 1);
    check_close(gather_samples(dy, samples), sd::reference::gather_samples(in_double(dy), samples));
}

/// `i` turns through the switches.
inline sd::Pool2dOptions random_pooling(int i, Draw& draw) {
    const Index kernel = draw(1, 4);
    return {kernel, draw(1, 3), draw(0, kernel / 2), i % 2 == 1, i % 3 != 1};
}

/// `i` turns through kinds of pending input.
template <class T, class Device>
void check_pooling(const Shape& shape, const sd::Pool2dOptions& options, int i) {
    CAPTURE(shape);
    CAPTURE(options.kernel);
    const auto x = random_pending<T, Device>(shape, 1, i % pending_kinds);
    const auto y = max_pool2d_forward(x, options);
    check_close(y, sd::reference::max_pool2d_forward(in_double(x), options));
    const auto dy = random_tensor<T, Device>(y.shape(), 4);
    // A device makes a gated tensor plain first: then the largest value is chosen among rounded ones.
    const bool rounds_first = !std::is_same_v<Device, sd::Cpu> && x.gate;
    const auto chosen_from = rounds_first ? Pending<T, Device>(materialize(x)) : x;
    check_close(max_pool2d_by_input(dy, x, options),
                sd::reference::max_pool2d_by_input(in_double(dy), in_double(chosen_from), options));
    check_close(avg_pool2d_forward(x.raw, options), sd::reference::avg_pool2d_forward(in_double(x.raw), options));
    check_close(avg_pool2d_by_input(dy, options, shape),
                sd::reference::avg_pool2d_by_input(in_double(dy), options, shape));
    const auto dmean = random_tensor<T, Device>({shape[0], shape[3]}, 5);
    check_close(global_avg_pool_forward(x), sd::reference::global_avg_pool_forward(in_double(x)));
    check_close(global_avg_pool_by_input(dmean, shape),
                sd::reference::global_avg_pool_by_input(in_double(dmean), shape));
}

/// `i` turns through kinds of pending input and activations.
template <class T, class Device>
void check_gate(const Shape& shape, int i) {
    CAPTURE(shape);
    const auto dy = random_tensor<T, Device>(shape, 1);
    const auto x = random_pending<T, Device>(shape, 2, i % pending_kinds);
    check_close(gate_sums(dy, x).of_gate, sd::reference::gate_sums(in_double(dy), in_double(x)).of_gate);
    const auto pass = random_pass<T, Device>(shape, 5, activation_of(i), true);
    const auto pass_in_double = in_double(pass);
    const auto sums = gate_sums(dy, pass.y, &pass);
    const auto expected = sd::reference::gate_sums(in_double(dy), pass_in_double.y, &pass_in_double);
    check_close(sums.of_gate, expected.of_gate);
    check_close(sums.of_norm, expected.of_norm);
    const sd::GateGradient<T, Device> gate{random_tensor<T, Device>(gate_shape(shape), 20),
                                           random_tensor<T, Device>(gate_shape(shape), 21)};
    const auto inverse_std = random_tensor<sd::accumulate_t<T>, Device>({shape[3]}, 22);
    check_close(batch_norm_sums(sums, gate, inverse_std),
                sd::reference::batch_norm_sums(in_double(sums), {in_double(gate.factor), in_double(gate.common)},
                                               in_double(inverse_std)));
}

/// `weight` (O, I) may be of values that T can hold, where a device multiplies in T.
template <class T, class Device>
void check_linear(Index samples, const Tensor<sd::accumulate_t<T>, Device>& weight) {
    const Index outputs = weight.extent(0);
    const auto x = random_tensor<T, Device>({samples, weight.extent(1)}, 1);
    const auto bias = random_tensor<sd::accumulate_t<T>, Device>({outputs}, 3);
    const auto dy = random_tensor<T, Device>({samples, outputs}, 4);
    check_close(linear_forward(x, weight, bias),
                sd::reference::linear_forward(in_double(x), in_double(weight), in_double(bias)));
    check_close(linear_by_input(dy, weight), sd::reference::linear_by_input(in_double(dy), in_double(weight)));
    check_close(linear_by_weight(dy, x), sd::reference::linear_by_weight(in_double(dy), in_double(x)));
    check_close(linear_by_bias(dy), sd::reference::linear_by_bias(in_double(dy)));
}

/// For labels and for probabilities.
template <class T, class Device>
void check_cross_entropy(Index samples, Index classes, Draw& draw) {
    const auto logits = random_tensor<T, Device>({samples, classes}, 4);
    const auto compare = [&](const auto& ours, const auto& theirs) {
        const auto expected = sd::reference::cross_entropy_by_input(in_double(logits), theirs, 0.1);
        const auto mean = cross_entropy_forward(logits, ours, 0.1);
        CHECK(static_cast<double>(mean) ==
              doctest::Approx(sd::reference::cross_entropy_forward(in_double(logits), theirs, 0.1)).epsilon(1e-5));
        check_close(cross_entropy_by_input(logits, ours, 0.1), expected);
        const auto both = cross_entropy(logits, ours, 0.1);
        if constexpr (Device::runs_beside_cpu) {
            CHECK(to_host(both.loss).data()[0] == mean);
        } else {
            CHECK(both.loss == mean);
        }
        check_close(both.dlogits, expected);
    };
    std::vector<Index> labels(static_cast<std::size_t>(samples));
    for (Index& label : labels) label = draw(0, classes - 1);
    const std::span<const Index> one_each(labels);
    compare(one_each, one_each);
    const auto target = random_tensor<T, Device>({samples, classes}, 5, 0, 1);
    compare(target, in_double(target));
}

/// Every kernel accepts a batch of no samples.
template <class Device>
void check_empty_batch() {
    using Pending = Pending<float, Device>;
    const auto is_zero = [](const auto& x) {
        for (const float value : sd::to_host(x)) CHECK(value == 0);
    };
    const Shape empty{0, 4, 4, 3};
    const Tensor<float, Device> x(empty);
    const Tensor<float, Device> dy(Shape{0, 4, 4, 5});
    const auto weight = random_tensor<float, Device>({5, 3, 3, 3}, 1);
    const sd::Conv2dOptions padded{.padding = 1};
    CHECK(conv2d_forward(Pending(x), weight, padded).shape() == dy.shape());
    const sd::PendingGradient<float, Device> gradient(dy);
    CHECK(conv2d_by_input(gradient, weight, padded, empty).shape() == empty);
    is_zero(conv2d_by_weight(Pending(x), gradient, padded, weight.shape()));
    CHECK(max_pool2d_forward(Pending(x), {2, 2, 0}).shape() == Shape{0, 2, 2, 3});
    CHECK(global_avg_pool_forward(Pending(x)).shape() == Shape{0, 3});
    CHECK(residual_join_forward(Pending(x), Pending(x), {}, 1.0F, true).shape() == empty);
    CHECK(batch_moments(x).count == 0);
    const auto channels = random_tensor<float, Device>({3}, 2);
    sd::LayerNormStatistics<float, Device> statistics;
    CHECK(layer_norm_forward(x, channels, channels, 1e-6, &statistics).shape() == empty);
    is_zero(layer_norm_backward(x, x, channels, statistics).dweight);

    const Tensor<float, Device> rows(Shape{0, 3});
    const Tensor<float, Device> logits(Shape{0, 5});
    const auto matrix = random_tensor<float, Device>({5, 3}, 2);
    CHECK(linear_forward(rows, matrix, random_tensor<float, Device>({5}, 3)).shape() == logits.shape());
    CHECK(linear_by_input(logits, matrix).shape() == rows.shape());
    is_zero(linear_by_weight(logits, rows));
    is_zero(linear_by_bias(logits));
    const std::span<const Index> labels;
    CHECK(cross_entropy_by_input(logits, labels, 0.1).shape() == logits.shape());
    CHECK(cross_entropy_by_input(logits, logits, 0.1).shape() == logits.shape());
    // There is no mean of nothing.
    CHECK_THROWS_WITH_AS((void)cross_entropy_forward(logits, labels, 0.1),
                         "cross_entropy_forward: shape of logits: got (0, 5), expected at least one sample",
                         std::invalid_argument);
    CHECK_THROWS_AS((void)cross_entropy(logits, labels, 0.1), std::invalid_argument);
    const Tensor<float, Device> nothing(Shape{0, 0});
    CHECK_THROWS_AS((void)cross_entropy_by_input(nothing, labels, 0.1), std::invalid_argument);
}

}  // namespace sd_test
