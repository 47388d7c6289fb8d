// A convolution in all directions, with all that it gathers, by the kernels and by the plain loops.
#pragma once

#include "kernel_inputs.hpp"

#include "sd/cpu/conv2d.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace sd_test {

/// Inputs of one convolution on the CPU, drawn at random.
template <class T>
class Conv2dCase {
    using A = sd::accumulate_t<T>;

public:
    /// What the kernels make of the inputs.
    struct Results {
        Tensor<T> y, y_alone, folded, dx, dx_alone;  ///< `alone`: nothing was gathered on the way
        Tensor<A> dweight;
        sd::Moments<A> moments;
        sd::BatchNormSums<A> sums;

        [[nodiscard]] std::vector<Tensor<double>> all() const {
            return {in_double(y),
                    in_double(y_alone),
                    in_double(folded),
                    in_double(dx),
                    in_double(dx_alone),
                    in_double(dweight),
                    in_double(moments.mean),
                    in_double(moments.m2),
                    in_double(sums.dweight),
                    in_double(sums.dbias)};
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
          before(random_pass<T>(x_shape, 30, activation, true)) {}

    [[nodiscard]] Results run() const {
        Results results;
        results.y = sd::conv2d_forward(x, weight, options, &results.moments);
        results.y_alone = sd::conv2d_forward(x, weight, options);
        results.folded = sd::conv2d_batch_norm_forward(x, weight, options, scale, shift, activation);
        results.dx = sd::conv2d_by_input<T>(dy, weight, options, x.shape(), &before, &results.sums);
        results.dx_alone = sd::conv2d_by_input<T>(dy, weight, options, x.shape());
        results.dweight = sd::conv2d_by_weight<T>(x, dy, options, weight.shape());
        return results;
    }

    /// Compares all results with those of the plain loops in double. What is summed over all pixels may differ by
    /// `tolerance` times what rounding is granted elsewhere.
    void check(double tolerance = 1) const {
        CAPTURE(x.shape());
        CAPTURE(weight.shape());
        CAPTURE(options.stride);
        CAPTURE(options.padding);
        CAPTURE(options.dilation);
        CAPTURE(options.groups);
        const Results results = run();
        const Pending<double> x_in_double = in_double(x);
        const Tensor<double> weight_in_double = in_double(weight);
        const sd::PendingGradient<double> dy_in_double = in_double(dy);
        check_close(results.y, sd::reference::conv2d_forward(x_in_double, weight_in_double, options));
        check_close(results.y_alone, in_double(results.y));
        const auto moments = sd::reference::batch_moments(in_double(results.y));
        CHECK(results.moments.count == moments.count);
        check_close(results.moments.mean, moments.mean, tolerance);
        check_close(results.moments.m2, moments.m2, tolerance);
        check_close(results.folded,
                    sd::reference::conv2d_batch_norm_forward(x_in_double, weight_in_double, options, in_double(scale),
                                                             in_double(shift), activation));
        const auto before_in_double = in_double(before);
        const auto dx = sd::reference::conv2d_by_input<double>(dy_in_double, weight_in_double, options, x.shape());
        check_close(results.dx_alone, dx);
        CHECK(results.sums.of_written);
        Tensor<double> before_activation(dx.shape());
        for (Index i = 0; i < dx.size(); ++i) {
            const auto& y = before_in_double.y;
            before_activation.data()[i] = sd::activation_gradient(
                y.activation, dx.data()[i], y.before_activation(y.raw.data()[i], i % y.channels()));
        }
        check_close(results.dx, before_activation);
        auto written = before_in_double;
        written.y.activation = sd::Activation::none;
        const auto sums = sd::reference::batch_norm_sums(in_double(results.dx), written);
        check_close(results.sums.dweight, sums.dweight, tolerance);
        check_close(results.sums.dbias, sums.dbias, tolerance);
        check_close(results.dweight,
                    sd::reference::conv2d_by_weight<double>(x_in_double, dy_in_double, options, weight.shape()),
                    tolerance);
    }

    sd::Conv2dOptions options;
    sd::Activation
        activation;  ///< at the end of the convolution with batch norm folded in, and of the batch norm before
    Pending<T> x;
    Tensor<A> weight, scale, shift;
    sd::PendingGradient<T> dy;
    sd::BatchNormPass<T> before;
};

}  // namespace sd_test
