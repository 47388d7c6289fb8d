// The reference kernels of pending tensors and the residual join: numbers worked out by hand, and every backward
// against its forward.
#include "kernel_gradient.hpp"

#include "sd/reference/pending.hpp"
#include "sd/reference/residual_join.hpp"

#include <span>
#include <stdexcept>
#include <vector>

namespace test_reference_residual_join {

namespace reference = sd::reference;

TEST_CASE("materialize") {
    const Tensor<double> x(Shape{1, 4}, {-2, 0, 3, not_a_number});
    CHECK(reference::materialize(Pending<double>(x)).shares_storage_with(x));
    const auto pending = reference::materialize(
        Pending<double>(Tensor<double>(Shape{2, 2}, {1, 2, 3, 4}), Tensor<double>(Shape{2}, {1, -1}),
                        Tensor<double>(Shape{2}, {-2, 3}), sd::Activation::relu));
    check_equal(pending, Tensor<double>(Shape{2, 2}, {0, 1, 1, 0}));
}

TEST_CASE("residual join: a selection, not a product") {
    const Pending<double> shortcut(Tensor<double>(Shape{3, 1, 1, 1}, {1, -2, 3}));
    const Pending<double> branch(Tensor<double>(Shape{3, 1, 1, 1}, {10, not_a_number, infinity}));
    const std::vector<Index> first_only = {0, -1, -1};
    check_equal(reference::residual_join_forward(shortcut, branch, first_only, 0.5, true),
                Tensor<double>(Shape{3, 1, 1, 1}, {6, 0, 3}));
    check_equal(reference::residual_join_forward(shortcut, branch, first_only, 0.5, false),
                Tensor<double>(Shape{3, 1, 1, 1}, {6, -2, 3}));

    // A branch that ran for two samples, in another order.
    const Pending<double> survivors(Tensor<double>(Shape{2, 1, 1, 1}, {100, 200}));
    const std::vector<Index> swapped = {1, -1, 0};
    check_equal(reference::residual_join_forward(shortcut, survivors, swapped, 1.0, false),
                Tensor<double>(Shape{3, 1, 1, 1}, {201, -2, 103}));

    // A branch that ran for none.
    const Pending<double> nobody(Tensor<double>(Shape{0, 1, 1, 1}));
    const std::vector<Index> dropped = {-1, -1, -1};
    check_equal(reference::residual_join_forward(shortcut, nobody, dropped, 1.0, false), shortcut.raw);

    const Tensor<double> dy(Shape{3, 1, 1, 1}, {1, 2, 4});
    const Tensor<double> y(Shape{3, 1, 1, 1}, {5, 0, 3});
    const auto gradient = reference::residual_join_backward(dy, y, swapped, 3, 0.5, true);
    check_equal(gradient.dshortcut, Tensor<double>(Shape{3, 1, 1, 1}, {1, 0, 4}));
    check_equal(gradient.dbranch, Tensor<double>(Shape{3, 1, 1, 1}, {2, 0.5, 0}));
    const auto linear = reference::residual_join_backward(dy, y, {}, 3, 0.5, false);
    check_equal(linear.dshortcut, dy);
    check_equal(linear.dbranch, Tensor<double>(Shape{3, 1, 1, 1}, {0.5, 1, 2}));
    const auto none = reference::residual_join_backward(dy, y, dropped, 0, 0.5, false);
    CHECK(none.dbranch.shape() == Shape{0, 1, 1, 1});
}

TEST_CASE("residual join: gradients") {
    const auto shortcut = random_tensor<double>({4, 2, 3, 2}, 1);
    const auto branch = random_tensor<double>({3, 2, 3, 2}, 2);
    const auto scale = random_tensor<double>({2}, 3, 0.5, 2);
    const auto shift = random_tensor<double>({2}, 4);
    const std::vector<Index> mask = {2, -1, 0, -1};
    for (const bool relu : {false, true}) {
        CAPTURE(relu);
        const auto y =
            reference::residual_join_forward(Pending<double>(shortcut), Pending<double>(branch), mask, 0.7, relu);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::residual_join_forward(Pending<N>(v), Pending<N>(in<N>(branch)), mask, N(0.7), relu);
            },
            [&](const Tensor<double>& dy) {
                return reference::residual_join_backward(dy, y, mask, 3, 0.7, relu).dshortcut;
            },
            shortcut);
        check_gradient(
            [&]<class N>(const Tensor<N>& v) {
                return reference::residual_join_forward(Pending<N>(in<N>(shortcut)), Pending<N>(v), mask, N(0.7), relu);
            },
            [&](const Tensor<double>& dy) {
                return reference::residual_join_backward(dy, y, mask, 3, 0.7, relu).dbranch;
            },
            branch);
        // Pending inputs are what their plain values are.
        const auto pending_shortcut = pending_in(shortcut, scale, shift, sd::Activation::relu);
        const auto pending_branch = pending_in(branch, shift, scale, sd::Activation::none);
        check_equal(
            reference::residual_join_forward(pending_shortcut, pending_branch, mask, 0.7, relu),
            reference::residual_join_forward(Pending<double>(reference::materialize(pending_shortcut)),
                                             Pending<double>(reference::materialize(pending_branch)), mask, 0.7, relu));
    }
}

TEST_CASE("residual join: refused shapes and samples") {
    const Pending<double> shortcut(Tensor<double>(Shape{2, 2, 2, 3}));
    const Pending<double> other_channels(Tensor<double>(Shape{2, 2, 2, 4}));
    const Pending<double> three(Tensor<double>(Shape{3, 2, 2, 3}));
    const std::vector<Index> outside = {0, 3};
    const std::vector<Index> past_last = {2};
    const std::vector<Index> short_list = {0};
    const auto join = [&](const Pending<double>& branch, std::span<const Index> samples) {
        (void)reference::residual_join_forward(shortcut, branch, samples, 1.0, true);
    };
    CHECK_THROWS_AS(join(other_channels, {}), std::invalid_argument);
    CHECK_THROWS_AS(join(three, {}), std::invalid_argument);
    CHECK_THROWS_AS(join(three, outside), std::invalid_argument);
    CHECK_THROWS_AS(join(three, short_list), std::invalid_argument);
    const Tensor<double> y(Shape{2, 2, 2, 3});
    CHECK_THROWS_AS((void)reference::residual_join_backward(three.raw, y, {}, 2, 1.0, true), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::residual_join_backward(y, y, outside, 3, 1.0, true), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::gather_samples(y, outside), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::gather_samples(y, past_last), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::add_selected(y, three.raw, outside), std::invalid_argument);
    CHECK_THROWS_AS((void)reference::add_selected(y, other_channels.raw, {}), std::invalid_argument);
}

TEST_CASE("gather_samples and add_selected") {
    const Tensor<double> x(Shape{3, 2}, {1, 2, 3, 4, 5, 6});
    const std::vector<Index> kept = {2, 0};
    const auto gathered = reference::gather_samples(x, kept);
    check_equal(gathered, Tensor<double>(Shape{2, 2}, {5, 6, 1, 2}));
    CHECK(reference::gather_samples(x, std::span<const Index>{}).shape() == Shape{0, 2});
    const std::vector<Index> back = {1, -1, 0};
    check_equal(reference::add_selected(x, gathered, back), Tensor<double>(Shape{3, 2}, {2, 4, 3, 4, 10, 12}));
    check_equal(reference::add_selected(x, x, {}), Tensor<double>(Shape{3, 2}, {2, 4, 6, 8, 10, 12}));
    CHECK(x(0, 0) == 1);
}

}  // namespace test_reference_residual_join
