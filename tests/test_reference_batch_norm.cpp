// The reference kernels of batch norm: numbers worked out by hand, and every backward against its forward.
#include "kernel_gradient.hpp"

#include "sd/reference/batch_norm.hpp"
#include "sd/reference/pending.hpp"

#include <cmath>
#include <span>
#include <stdexcept>
#include <vector>

namespace test_reference_batch_norm {

namespace reference = sd::reference;

namespace {

// Batch norm as a layer has it, eps 1e-5.
template <class N>
sd::BatchNormPass<N> batch_norm(const Tensor<N>& z, const Tensor<N>& weight, const Tensor<N>& bias,
                                sd::Activation activation) {
    using std::sqrt;
    const auto moments = reference::batch_moments(z);
    const Index channels = weight.size();
    Tensor<N> inverse_std(Shape{channels});
    Tensor<N> scale(Shape{channels});
    Tensor<N> shift(Shape{channels});
    for (Index c = 0; c < channels; ++c) {
        const N variance = moments.m2(c) / N(static_cast<double>(moments.count));
        inverse_std(c) = N(1.0) / sqrt(variance + N(1e-5));
        scale(c) = weight(c) * inverse_std(c);
        shift(c) = bias(c) - moments.mean(c) * scale(c);
    }
    return {Pending<N>(z, scale, shift, activation), moments.mean, inverse_std};
}

}  // namespace

TEST_CASE("batch_moments: by hand, far from zero, empty") {
    const Tensor<double> x(Shape{2, 1, 2, 2}, {1, 10, 2, 10, 3, 10, 4, 14});
    const auto moments = reference::batch_moments(x);
    CHECK(moments.count == 4);
    check_equal(moments.mean, Tensor<double>(Shape{2}, {2.5, 11}));
    check_equal(moments.m2, Tensor<double>(Shape{2}, {5, 12}));

    const Tensor<float> far(Shape{4, 1}, {1000000, 1000001, 1000002, 1000003});
    const auto far_moments = reference::batch_moments(far);
    CHECK(far_moments.mean(0) == 1000001.5F);
    CHECK(far_moments.m2(0) == 5);

    const auto none = reference::batch_moments(Tensor<double>(Shape{0, 2, 2, 3}));
    CHECK(none.count == 0);
    check_equal(none.mean, Tensor<double>(Shape{3}));
    check_equal(none.m2, Tensor<double>(Shape{3}));
}

TEST_CASE("batch norm: gradients through the batch's own statistics") {
    for (const auto& one : sd::detail::EnumNames<sd::Activation>::names) {
        const sd::Activation activation = one.value;
        CAPTURE(one.name);
        const auto z = random_tensor<double>({3, 2, 2, 4}, 1, -2, 3);
        const auto weight = random_tensor<double>({4}, 2, 3, 6);  // to the ends of relu6 and hardswish
        const auto bias = random_tensor<double>({4}, 3);
        const auto out = batch_norm(z, weight, bias, activation);
        const auto sums = [&](const Tensor<double>& dy) { return reference::batch_norm_sums(dy, out); };
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::materialize(batch_norm(v, in<N>(weight), in<N>(bias), activation).y);
            },
            [&](const Tensor<double>& dy) {
                return reference::materialize(reference::batch_norm_by_input(dy, out, sums(dy)));
            },
            z);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::materialize(batch_norm(in<N>(z), v, in<N>(bias), activation).y);
            },
            [&](const Tensor<double>& dy) { return sums(dy).dweight; }, weight);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::materialize(batch_norm(in<N>(z), in<N>(weight), v, activation).y);
            },
            [&](const Tensor<double>& dy) { return sums(dy).dbias; }, bias);
    }
}

TEST_CASE("batch norm: constant statistics, the gradient is scale times dy") {
    const auto z = random_tensor<double>({2, 3, 1, 2}, 1);
    const Tensor<double> mean(Shape{2}, {0.1, -0.2});
    const Tensor<double> inverse_std(Shape{2}, {2, 0.5});
    const Tensor<double> scale(Shape{2}, {3, -1});
    const Tensor<double> shift(Shape{2}, {0.3, 0.4});
    check_gradient(
        [&]<class N>(const Tensor<N>& v) {
            return reference::materialize(pending_in(v, scale, shift, sd::Activation::relu));
        },
        [&](const Tensor<double>& dy) {
            const sd::BatchNormPass<double> pass{pending_in(z, scale, shift, sd::Activation::relu), mean, inverse_std,
                                                 false};
            return reference::materialize(
                reference::batch_norm_by_input(dy, pass, reference::batch_norm_sums(dy, pass)));
        },
        z);
}

TEST_CASE("batch norm: one value a channel becomes the bias and passes no gradient") {
    const Tensor<double> z(Shape{1, 1, 1, 2}, {5, -3});
    const Tensor<double> bias(Shape{2}, {0.5, -0.5});
    const auto out = batch_norm(z, Tensor<double>::full({2}, 2.0), bias, sd::Activation::none);
    CHECK(relative_error(reference::materialize(out.y), bias.reshape({1, 1, 1, 2})) < 1e-12);
    const Tensor<double> dy(Shape{1, 1, 1, 2}, {7, 11});
    const auto sums = reference::batch_norm_sums(dy, out);
    check_equal(sums.dbias, Tensor<double>(Shape{2}, {7, 11}));
    check_equal(sums.dweight, Tensor<double>(Shape{2}));
    check_equal(reference::materialize(reference::batch_norm_by_input(dy, out, sums)), Tensor<double>(z.shape()));
}

TEST_CASE("batch norm: refused shapes") {
    const auto z = random_tensor<double>({2, 2, 2, 3}, 1);
    const Tensor<double> three = Tensor<double>::full({3}, 1.0);
    const Tensor<double> two = Tensor<double>::full({2}, 1.0);
    const Pending<double> y(z, three, three, sd::Activation::none);
    const sd::BatchNormPass<double> pass{y, three, three};
    CHECK_THROWS_AS((void)reference::batch_norm_sums(two, pass), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::batch_norm_sums(z, {y, two, three}), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::batch_norm_sums(z, {y, three, two}), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::batch_norm_sums(z, {Pending<double>(z), three, three}), std::invalid_argument);
    const sd::BatchNormSums<double> sums{three, three};
    CHECK_THROWS_AS((void)reference::batch_norm_by_input(z, pass, {two, three}), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::batch_norm_by_input(z, {y, two, three}, sums), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::PendingGradient<double>(two, y, three, three, three), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::PendingGradient<double>(z, y, three, two, three), std::invalid_argument);
}

}  // namespace test_reference_batch_norm
