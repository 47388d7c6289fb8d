// A convolution in all directions, with all that it gathers, by the kernels and by the plain loops.
#pragma once

#include "kernel_inputs.hpp"

#include "sd/cpu/conv2d.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

namespace sd_test {

/// Inputs of one convolution on the CPU, drawn at random.
template <class T>
class Conv2dCase {
    using A = sd::accumulate_t<T>;

public:
    /// What the kernels make of the inputs.
    struct Results {
        Tensor<T> y, y_alone, folded, joined, dx, dx_alone, dx_joined;  ///< `alone`: nothing was gathered on the way
        Tensor<A> dweight;
        sd::Moments<A> moments;
        sd::BatchNormSums<A> sums;

        [[nodiscard]] std::vector<Tensor<double>> all() const {
            return {in_double(y),          in_double(y_alone),      in_double(folded),
                    in_double(joined),     in_double(dx),           in_double(dx_alone),
                    in_double(dx_joined),  in_double(dweight),      in_double(moments.mean),
                    in_double(moments.m2), in_double(sums.dweight), in_double(sums.dbias)};
        }
    };

    /// `kind` turns through kinds of pending input, all pairs of x and dy, and through activations.
    Conv2dCase(const Shape& x_shape, const Shape& weight_shape, const sd::Conv2dOptions& settings, Index kind)
        : options(settings),
          activation(activation_of(kind)),
          x(random_pending<T>(x_shape, 1, kind % pending_kinds)),
          weight(random_tensor<A>(weight_shape, 4)),
          scale(random_tensor<A>({weight_shape[0]}, 10)),
          shift(random_tensor<A>({weight_shape[0]}, 11)),
          dy(random_gradient<T>(sd::Conv2dGeometry(x_shape, weight_shape, options).output_shape(), 20,
                                (kind + kind / pending_kinds) % pending_kinds)),
          join{random_pending<T>(sd::Conv2dGeometry(x_shape, weight_shape, options).output_shape(), 40,
                                 kind / 2 % pending_kinds),
               A(0.5), kind % 2 == 0},
          before(random_pass<T>(x_shape, 30, activation, true)),
          dshortcut(random_tensor<T>(x_shape, 50)) {}

    [[nodiscard]] Results run() const {
        Results results;
        results.y = sd::conv2d_forward(x, weight, options, &results.moments);
        results.y_alone = sd::conv2d_forward(x, weight, options);
        results.folded = sd::conv2d_batch_norm_forward(x, weight, options, scale, shift, activation);
        results.joined = sd::conv2d_join_forward(x, weight, options, scale, shift, join);
        results.dx = sd::conv2d_by_input<T>(dy, weight, options, x.shape(), &before, &results.sums);
        results.dx_alone = sd::conv2d_by_input<T>(dy, weight, options, x.shape());
        results.dx_joined = sd::conv2d_join_by_input<T>(dy, weight, options, dshortcut);
        results.dweight = sd::conv2d_by_weight<T>(x, dy, options, weight.shape());
        return results;
    }

    /// What is multiplied, in double.
    struct Operands {
        Pending<double> x;
        Tensor<double> weight, folded;  ///< folded: times the scale of a batch norm
        sd::PendingGradient<double> dy;
    };

    /// The inputs as they are.
    [[nodiscard]] Operands exact_operands() const {
        return {in_double(x), in_double(weight), folded([&](Index o, Index i) {
                    return static_cast<double>(weight.data()[i]) * static_cast<double>(scale.data()[o]);
                }),
                in_double(dy)};
    }

    /// The inputs with everything pending applied, rounded to T.
    [[nodiscard]] Operands rounded_operands() const {
        const auto rounded = [](A value) { return static_cast<double>(static_cast<A>(T(value))); };
        Tensor<double> rounded_weight(weight.shape());
        std::transform(weight.begin(), weight.end(), rounded_weight.data(), rounded);
        return {in_double(materialize(x)), rounded_weight,
                folded([&](Index o, Index i) { return rounded(scale.data()[o] * weight.data()[i]); }),
                in_double(materialize(dy))};
    }

    /// Compares all results with those of the plain loops in double. What is summed over all pixels may differ by
    /// `tolerance` times what rounding is granted elsewhere.
    void check(double tolerance = 1) const {
        check(exact_operands(), tolerance, [](const auto& got, const Tensor<double>& expected, double granted) {
            check_close(got, expected, granted);
        });
    }

    /// The same, with products compared by compare(got, expected, tolerance).
    template <class Compare>
    void check(const Operands& operands, double tolerance, const Compare& compare) const {
        CAPTURE(x.shape());
        CAPTURE(weight.shape());
        CAPTURE(options.stride);
        CAPTURE(options.padding);
        CAPTURE(options.dilation);
        CAPTURE(options.groups);
        const Results results = run();
        compare(results.y, sd::reference::conv2d_forward(operands.x, operands.weight, options), 1);
        check_close(results.y_alone, in_double(results.y));
        const auto moments = sd::reference::batch_moments(in_double(results.y));
        CHECK(results.moments.count == moments.count);
        check_close(results.moments.mean, moments.mean, tolerance);
        check_close(results.moments.m2, moments.m2, tolerance);
        compare(results.folded,
                sd::reference::conv2d_batch_norm_forward(operands.x, operands.folded, options,
                                                         Tensor<double>::full(scale.shape(), 1), in_double(shift),
                                                         activation),
                1);
        compare(results.joined,
                sd::reference::conv2d_join_forward<double>(
                    operands.x, operands.folded, options, Tensor<double>::full(scale.shape(), 1), in_double(shift),
                    {in_double(materialize(join.shortcut)), static_cast<double>(join.branch_scale), join.relu}),
                1);
        const auto before_in_double = in_double(before);
        const auto dx = sd::reference::conv2d_by_input<double>(operands.dy, operands.weight, options, x.shape());
        compare(results.dx_alone, dx, 1);
        compare(results.dx_joined, sd::reference::add_selected(in_double(dshortcut), dx, {}), 1);
        CHECK(results.sums.of_written);
        Tensor<double> before_activation(dx.shape());
        for (Index i = 0; i < dx.size(); ++i) {
            const auto& y = before_in_double.y;
            before_activation.data()[i] = sd::activation_gradient(
                y.activation, dx.data()[i], y.before_activation(y.raw.data()[i], i % y.channels()));
        }
        compare(results.dx, before_activation, 1);
        auto written = before_in_double;
        written.y.activation = sd::Activation::none;
        const auto sums = sd::reference::batch_norm_sums(in_double(results.dx), written);
        check_close(results.sums.dweight, sums.dweight, tolerance);
        check_close(results.sums.dbias, sums.dbias, tolerance);
        compare(results.dweight,
                sd::reference::conv2d_by_weight<double>(operands.x, operands.dy, options, weight.shape()), tolerance);
    }

    sd::Conv2dOptions options;
    sd::Activation
        activation;  ///< at the end of the convolution with batch norm folded in, and of the batch norm before
    Pending<T> x;
    Tensor<A> weight, scale, shift;
    sd::PendingGradient<T> dy;
    sd::ResidualJoin<T> join;  ///< of a scale that no rounding of the weights sees
    sd::BatchNormPass<T> before;
    Tensor<T> dshortcut;

private:
    /// value(o, i) is element i of the weight, of output channel o.
    template <class Value>
    [[nodiscard]] Tensor<double> folded(const Value& value) const {
        Tensor<double> result(weight.shape());
        const Index size = weight.size() / std::max<Index>(1, weight.extent(0));
        for (Index i = 0; i < weight.size(); ++i) result.data()[i] = value(i / size, i);
        return result;
    }
};

}  // namespace sd_test
