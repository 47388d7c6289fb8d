// What is asked of every platform, in little: kernels against plain loops, gradients, a network that trains. Its masks are
// asked for by test_play_masks.cpp, which is built beside it.
#include "conv2d_case.hpp"
#include "small_network.hpp"

#include "sd/testing/gradcheck.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <span>

using sd::Index;
using sd_test::Conv2dCase;

TEST_CASE("convolutions agree with plain loops") {
    // Plain and Winograd's tiles with parts of tiles left over, strides, groups, depthwise.
    Conv2dCase<float>({2, 9, 7, 19}, {21, 19, 3, 3}, {.padding = 1}, 0).check();
    Conv2dCase<float>({1, 6, 15, 5}, {37, 5, 1, 1}, {}, 1).check();
    Conv2dCase<float>({2, 9, 8, 12}, {6, 6, 3, 3}, {.stride = 2, .padding = 1, .groups = 2}, 2).check();
    Conv2dCase<float>({2, 7, 9, 11}, {11, 1, 5, 5}, {.padding = 2, .groups = 11}, 3).check();
}

TEST_CASE("gradients agree with differences and dual numbers") {
    const auto report = sd::testing::gradcheck(
        []<class T>() {
            sd::Initializer initializer(1);
            sd::StochasticResidual<sd::BasicBlock<T>, sd::SamplePolicy> block(
                sd::BasicBlock<T>({.in_channels = 9, .planes = 9}, initializer), {.drop_rate = 0.5});
            block.set_mask(sd::Mask{1, 0, 1});
            return block;
        },
        {3, 4, 5, 9});
    CAPTURE(report);
    CHECK(report.passed());
}

TEST_CASE("a network with sample-wise stochastic depth trains as elsewhere") {
    sd_test::SmallNetwork<float> model;
    sd::set_warning_handler({});  // the network is small on purpose
    sd::apply_stochastic_depth(model,
                               sd_test::small_depth(sd::StochasticMethod::sample, sd::DropDistribution::linear, 0.5));
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.03, .momentum = 0.9});
    const sd::DataLoader loader(sd_test::small_images(64), {.batch_size = 16, .seed = 42});
    double loss = 0;  // the last one is what x86 and g++ 12 give
    for (std::uint64_t step = 0; step < 24; ++step) {
        const auto batch = loader.load(static_cast<Index>(step) / 4, static_cast<Index>(step) % 4);
        const std::span<const Index> labels(batch.labels);
        optimizer.zero_grad();
        const auto logits = model.forward(batch.images, sd::Context::train({.step = step, .seed = 42}));
        loss = sd::cross_entropy_forward(logits, labels, 0.0);
        model.backward(sd::cross_entropy_by_input(logits, labels, 0.0));
        optimizer.step();
    }
    CHECK(loss == doctest::Approx(1.3668687).epsilon(1e-4));
}
