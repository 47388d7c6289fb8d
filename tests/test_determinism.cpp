// Same seed, same bits: 20 training steps for any number of threads.
#include "random.hpp"

#include "sd/cpu/cross_entropy.hpp"
#include "sd/models/resnet_variants.hpp"
#include "sd/stochastic_depth/surgery.hpp"
#include "sd/optim/sgd.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

namespace test_determinism {

using sd::Index;
using sd::Tensor;

namespace {

// All bits of parameters, buffers and losses after 20 steps.
std::vector<std::uint32_t> train(const std::optional<sd::StochasticDepthOptions>& options, int threads) {
    sd::set_num_threads(threads);
    auto model = sd::cifar_bottleneck_resnet<float>(20, {.num_classes = 5, .seed = sd_test::seed});
    if (options) sd::apply_stochastic_depth(model, *options);
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 1e-4});
    std::vector<std::uint32_t> bits;
    const auto keep = [&](float value) {
        std::uint32_t word = 0;
        std::memcpy(&word, &value, sizeof word);
        bits.push_back(word);
    };
    for (std::uint64_t step = 0; step < 20; ++step) {
        const Tensor<float> x = sd_test::random_tensor<float>({6, 16, 16, 3}, 100 + step);
        const std::vector<Index> labels = {0, 1, 2, 3, 4, 0};
        optimizer.zero_grad();
        const Tensor<float> logits = model.forward(x, sd::Context::train({.step = step, .seed = sd_test::seed}));
        keep(sd::cross_entropy_forward(logits, std::span<const Index>(labels), 0.1));
        model.backward(sd::cross_entropy_by_input(logits, std::span<const Index>(labels), 0.1));
        optimizer.step();
    }
    sd::for_each_state(
        model,
        [&](const std::string&, auto& parameter) {
            for (const float value : parameter->value) keep(value);
        },
        [&]<class Buffer>(const std::string&, Buffer& buffer) {
            if constexpr (std::is_same_v<Buffer, Tensor<float>>) {
                for (const float value : buffer) keep(value);
            }
        });
    return bits;
}

}  // namespace

TEST_CASE("20 steps give the same bits on 1, 2 and 3 threads, for all methods") {
    using enum sd::StochasticMethod;
    const std::vector<std::optional<sd::StochasticDepthOptions>> methods = {
        std::nullopt, sd::StochasticDepthOptions{.stochastic_method = block, .drop_rate = 0.5},
        sd::StochasticDepthOptions{.stochastic_method = sample, .drop_rate = 0.5},
        sd::StochasticDepthOptions{.stochastic_method = sample,
                                   .drop_rate = 0.5,
                                   .compute = sd::Compute::survivors,
                                   .scaling = sd::Scaling::train}};
    std::vector<std::vector<std::uint32_t>> results;
    for (const auto& options : methods) {
        const auto one = train(options, 1);
        CHECK(train(options, 2) == one);
        CHECK(train(options, 3) == one);
        results.push_back(one);
    }
    // The comparison above means nothing if the runs do not depend on what they should.
    for (std::size_t i = 1; i < results.size(); ++i) CHECK(results[i] != results[0]);
}

}  // namespace test_determinism
