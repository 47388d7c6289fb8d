// Weights as kernels of evaluation keep them: found again while nothing changed, never used once something did.
#include "random.hpp"
#include "same_bits.hpp"
#include "use_tile_machine.hpp"

#include <sd/sd.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace test_kept_weights {

namespace {

using sd::Context;
using sd::Index;
using sd::Tensor;
using sd_test::random_tensor;

template <class Network>
using float_of = sd::accumulate_t<typename Network::value_type>;

std::uint64_t fingerprint(const std::vector<float>& numbers) {
    sd::cpu::Fingerprint result;
    result.add(numbers.data(), static_cast<Index>(numbers.size()));
    return result.value();
}

/// Products of all kinds: 1x1, 3x3 with stride 1 and 2, groups, columns that are read as channels, depthwise.
template <class T>
auto network() {
    sd::Initializer initializer(5);
    const auto conv = [&](Index in, Index out, Index kernel, const sd::Conv2dOptions& options) {
        return sd::Conv2d<T>(in, out, kernel, options, initializer);
    };
    return sd::Sequential{sd::named("first", conv(3, 16, 7, {.stride = 2, .padding = 3})),
                          sd::named("norm", sd::BatchNorm2d<T>(16)),
                          sd::named("relu", sd::Relu<T>()),
                          sd::named("same", conv(16, 24, 3, {.padding = 1})),
                          sd::named("strided", conv(24, 32, 3, {.stride = 2, .padding = 1, .bias = true})),
                          sd::named("grouped", conv(32, 32, 3, {.padding = 1, .groups = 4})),
                          sd::named("depthwise", conv(32, 32, 3, {.padding = 1, .groups = 32})),
                          sd::named("pointwise", conv(32, 40, 1, {}))};
}

/// The numbers of all parameters and statistics.
template <class Network>
std::vector<Tensor<float_of<Network>>> state_of(Network& network) {
    std::vector<Tensor<float_of<Network>>> result;
    sd::for_each_state(
        network, [&](const std::string&, auto& parameter) { result.push_back(parameter->value); },
        [&](const std::string&, auto& buffer) {
            if constexpr (requires { buffer.data(); }) result.push_back(buffer);
        });
    return result;
}

/// Evaluates once with what is kept and once with a network that has kept nothing.
template <class Network>
bool agrees_with_new(Network& network, const Tensor<typename Network::value_type>& x) {
    using T = typename Network::value_type;
    auto fresh = test_kept_weights::network<T>();
    auto target = state_of(fresh);
    const auto source = state_of(network);
    for (std::size_t i = 0; i < source.size(); ++i) std::copy(source[i].begin(), source[i].end(), target[i].begin());
    return sd_test::same_bits<T>({network.forward(x, Context::eval())}, {fresh.forward(x, Context::eval())});
}

}  // namespace

TEST_CASE("a fingerprint is of every bit and of the order") {
    constexpr std::size_t count = 70001;  // more than one range, and a rest
    std::vector<float> numbers(count);
    for (std::size_t i = 0; i < count; ++i) numbers[i] = static_cast<float>(i % 977) * 0.25F + 1;
    const std::uint64_t before = fingerprint(numbers);
    CHECK(fingerprint(numbers) == before);
    CHECK(fingerprint(std::vector<float>(numbers.begin(), numbers.end() - 1)) != before);
    for (const std::size_t i : {std::size_t{0}, std::size_t{63}, std::size_t{40000}, count - 1}) {
        CAPTURE(i);
        auto changed = numbers;
        changed[i] = -changed[i];
        CHECK(fingerprint(changed) != before);
        for (const std::size_t apart : {1U, 16U, 64U, 128U}) {  // as far as words that share a lane
            CAPTURE(apart);
            const std::size_t other = i >= apart ? i - apart : i + apart;
            changed[other] = -numbers[other];
            CHECK(fingerprint(changed) != before);
            changed[other] = numbers[other];
            auto swapped = numbers;
            std::swap(swapped[i], swapped[other]);
            CHECK(fingerprint(swapped) != before);
        }
    }
    for (float& number : numbers) number = -number;
    CHECK(fingerprint(numbers) != before);
    const int threads = sd::num_threads();
    sd::set_num_threads(3);
    for (float& number : numbers) number = -number;
    CHECK(fingerprint(numbers) == before);
    sd::set_num_threads(threads);
}

TEST_CASE("what was made is found again under its key, of its type and at its place alone") {
    sd::KeptWeights kept;
    int made = 0;
    const auto get = [&](std::size_t place, std::uint64_t key) {
        return *kept.get<int>(place, key, [&] { return ++made; });
    };
    CHECK(get(0, 7) == 1);
    CHECK(get(0, 7) == 1);
    CHECK(get(2, 7) == 2);
    CHECK(get(0, 8) == 3);
    CHECK(get(0, 7) == 4);
    CHECK(get(2, 7) == 2);
    CHECK(*kept.get<double>(2, 7, [] { return 0.5; }) == 0.5);
    CHECK(get(2, 7) == 5);
    sd::KeptWeights moved = std::move(kept);
    CHECK(*moved.get<int>(2, 7, [] { return 0; }) == 5);
    moved.clear();
    CHECK(*moved.get<int>(2, 7, [] { return 0; }) == 0);
}

TEST_CASE_TEMPLATE("evaluation sees every change of a parameter or of statistics", T, float, double, sd::bfloat16) {
    for (const auto* machine : {static_cast<const sd::cpu::TileMachine*>(nullptr), sd::cpu::tile_machine()}) {
        const sd_test::UseTileMachine use(machine);
        CAPTURE(sd::cpu::tile_machine_name());
        auto net = network<T>();
        const auto x = random_tensor<T>({2, 24, 24, 3}, 1);
        const auto wide = random_tensor<T>({3, 24, 40, 3}, 2);
        CHECK(agrees_with_new(net, x));
        CHECK(agrees_with_new(net, x));
        CHECK(agrees_with_new(net, wide));
        CHECK(agrees_with_new(net, x));
        for (auto& numbers : state_of(net)) {
            const auto before = net.forward(x, Context::eval());
            for (auto& number : numbers) number = number / 2 + 1;
            CHECK(agrees_with_new(net, x));
            CHECK_FALSE(sd_test::same_bits<T>({net.forward(x, Context::eval())}, {before}));
        }
        (void)net.forward(x, Context::train({.step = 0, .seed = 1}));  // moves running statistics
        CHECK(agrees_with_new(net, x));
    }
}

TEST_CASE_TEMPLATE("a linear layer in evaluation sees every change of its weight and bias", T, float, sd::bfloat16) {
    using A = sd::accumulate_t<T>;
    sd::Linear<T> layer(random_tensor<A>({7, 40}, 1), random_tensor<A>({7}, 2));
    const auto x = random_tensor<T>({3, 40}, 3);
    const auto agrees_with_new = [&] {
        sd::Linear<T> fresh(layer.weight()->value, layer.bias()->value);
        return sd_test::same_bits<T>({layer.forward(x, Context::eval())}, {fresh.forward(x, Context::eval())});
    };
    CHECK(agrees_with_new());
    CHECK(agrees_with_new());
    for (const auto& parameter : {layer.weight(), layer.bias()}) {
        const auto before = layer.forward(x, Context::eval());
        for (A& number : parameter->value) number = number / 2 + 1;
        CHECK(agrees_with_new());
        CHECK_FALSE(sd_test::same_bits<T>({layer.forward(x, Context::eval())}, {before}));
    }
}

TEST_CASE("several threads evaluate one network that has kept nothing yet") {
    auto net = network<float>();
    const auto x = random_tensor<float>({1, 24, 24, 3}, 1);
    const auto expected = network<float>().forward(x, Context::eval());
    std::vector<Tensor<float>> results(4);
    std::vector<std::thread> threads;
    for (auto& result : results) threads.emplace_back([&] { result = net.forward(x, Context::eval()); });
    for (auto& thread : threads) thread.join();
    for (const auto& result : results) CHECK(sd_test::same_bits<float>({result}, {expected}));
}

}  // namespace test_kept_weights
