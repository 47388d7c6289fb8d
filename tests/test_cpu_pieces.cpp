// Shapes that the kernels cut into several pieces: against the plain loops, and the same bits for any number of
// threads, more than there are pieces among them.
#include "conv2d_case.hpp"
#include "kernel_inputs.hpp"
#include "same_bits.hpp"
#include "use_tile_machine.hpp"

#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace test_cpu_pieces {

using sd::Index;
using sd::Pending;
using sd::Shape;
using sd::Tensor;
using sd_test::check_close;
using sd_test::check_threads;
using sd_test::in_double;
using sd_test::random_gradient;
using sd_test::random_pass;
using sd_test::random_pending;
using sd_test::random_tensor;

namespace {

struct Case {
    std::string cut;
    Shape x, weight;
    sd::Conv2dOptions options;
};

// Cuts depend on the width of vectors and on the type; the extents are such that all of them make these.
const Case cases[] = {
    {"rows of Winograd's tiles, groups in turn", {2, 31, 29, 72}, {80, 36, 3, 3}, {.padding = 1, .groups = 2}},
    {"parts of rows, with dilation", {1, 5, 900, 24}, {20, 24, 3, 3}, {.padding = 2, .dilation = 2}},
    {"parts of rows, with stride", {1, 5, 1401, 24}, {20, 24, 3, 3}, {.stride = 2, .padding = 1}},
    {"parts of the one row of a 1x1 kernel", {3, 40, 41, 40}, {25, 40, 1, 1}, {}},
    {"less than the cache holds, for groups", {1, 70, 71, 96}, {96, 32, 1, 1}, {.groups = 3}},
    {"single pixels of a 1x1 kernel with stride", {2, 45, 44, 20}, {50, 20, 1, 1}, {.stride = 2}},
    {"the first layer", {2, 61, 62, 3}, {20, 3, 7, 7}, {.stride = 2, .padding = 3}},
    {"depth by input", {2, 5, 5, 70}, {1200, 70, 3, 3}, {.padding = 2, .dilation = 2}},
    {"panels of weights", {1, 3, 3, 20}, {530, 20, 3, 3}, {.stride = 2, .padding = 1}},
    {"panels of weights by Winograd's tiles", {1, 3, 3, 24}, {530, 24, 3, 3}, {.padding = 1}},
    {"taps and positions a multiple of 4096 bytes apart", {1, 4, 4, 128}, {128, 128, 3, 3}, {.padding = 1}},
    {"the same with a stride", {1, 9, 9, 128}, {128, 128, 3, 3}, {.stride = 2, .padding = 1}},
    {"one pixel", {1, 1, 1, 1}, {1, 1, 1, 1}, {}},
};

}  // namespace

TEST_CASE_TEMPLATE("conv2d in several pieces", T, float, double, sd::bfloat16) {
    const sd_test::UseTileMachine floats(nullptr);
    Index kind = 0;
    for (const Case& one : cases) {
        CAPTURE(one.cut);
        const sd_test::Conv2dCase<T> conv2d(one.x, one.weight, one.options, 2 + 3 * kind++);
        conv2d.check(10);
        check_threads([&] { return conv2d.run().all(); });
    }
}

// Output channels of groups that go past the caches, in whole lines or half ones.
TEST_CASE("groups of a tensor that goes past the caches") {
    const auto x = random_tensor<float>({1, 261, 260, 16}, 1);
    for (const Index groups : {2, 4}) {
        const auto weight = random_tensor<float>({96, 16 / groups, 1, 1}, 2);
        check_close(sd::conv2d_forward<float>(x, weight, {.groups = groups}),
                    sd::reference::conv2d_forward<double>(in_double(x), in_double(weight), {.groups = groups}));
    }
}

// Each sample is cut, so that sums of a piece must find their own place, also where samples are dropped; one sample of
// the branch joins nothing.
TEST_CASE_TEMPLATE("sweeps in several pieces", T, float, double, sd::bfloat16) {
    const Shape shape{4, 30, 31, 70};
    const std::vector<Index> selection{1, -1, 0, 3};
    const Pending<T> shortcut = random_pending<T>(shape, 1, 1);
    const Pending<T> branch = random_pending<T>(shape, 4, 1);
    const auto dy = random_gradient<T>(shape, 7, 2);
    const auto pass = random_pass<T>(shape, 20, sd::Activation::relu, true);
    const auto before = random_pass<T>(shape, 30, sd::Activation::relu, true);
    using A = sd::accumulate_t<T>;
    struct Results {
        Tensor<T> y, value, gradient, activated, by_input;
        sd::Moments<A> moments;
        sd::BatchNormSums<A> sums, join_sums;
        sd::ResidualJoinGradient<T> join;
        [[nodiscard]] std::vector<Tensor<double>> all() const {
            return {in_double(y),
                    in_double(value),
                    in_double(gradient),
                    in_double(activated),
                    in_double(by_input),
                    in_double(moments.mean),
                    in_double(moments.m2),
                    in_double(sums.dbias),
                    in_double(sums.dweight),
                    in_double(join_sums.dweight),
                    in_double(join_sums.dbias),
                    in_double(join.dshortcut),
                    in_double(join.dbranch)};
        }
    };
    const auto run = [&] {
        Results results;
        results.y = sd::residual_join_forward(shortcut, branch, selection, A(0.75), true);
        results.join =
            sd::residual_join_backward<T>(dy.dy, results.y, selection, 4, A(0.75), true, &before, &results.join_sums);
        results.value = sd::materialize(shortcut);
        results.gradient = sd::materialize(dy);
        results.activated = sd::activation_forward(shortcut.raw, sd::Activation::gelu);
        results.by_input = sd::activation_by_input(dy.dy, shortcut.raw, sd::Activation::silu);
        results.moments = sd::batch_moments(shortcut.raw);
        results.sums = sd::batch_norm_sums(dy.dy, pass);
        return results;
    };
    sd::poison_pool();
    const Results results = run();
    check_close(results.y,
                sd::reference::residual_join_forward(in_double(shortcut), in_double(branch), selection, 0.75, true));
    const auto join =
        sd::reference::residual_join_backward<double>(in_double(dy.dy), in_double(results.y), selection, 4, 0.75, true);
    check_close(results.join.dshortcut, join.dshortcut);
    check_close(results.join.dbranch, join.dbranch);
    check_close(results.join_sums, sd::reference::batch_norm_sums(in_double(results.join.dbranch), in_double(before)));
    check_close(results.value, sd::reference::materialize(in_double(shortcut)));
    check_close(results.gradient, sd::reference::materialize(in_double(dy)));
    check_close(results.activated, sd::reference::activation_forward(in_double(shortcut.raw), sd::Activation::gelu));
    check_close(results.by_input,
                sd::reference::activation_by_input(in_double(dy.dy), in_double(shortcut.raw), sd::Activation::silu));
    const auto moments = sd::reference::batch_moments(in_double(shortcut.raw));
    check_close(results.moments.mean, moments.mean);
    check_close(results.moments.m2, moments.m2);
    check_close(results.sums, sd::reference::batch_norm_sums(in_double(dy.dy), in_double(pass)));
    check_threads([&] { return run().all(); });
}

}  // namespace test_cpu_pieces
