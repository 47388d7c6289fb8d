// The floor that everything stands on, beside tensors: Philox, parallel loops, parameters, parts of a batch, warnings.
#include "messages.hpp"
#include "random.hpp"

#include "sd/core/batch_part.hpp"
#include "sd/core/communicator.hpp"
#include "sd/core/join.hpp"
#include "sd/core/parallel.hpp"
#include "sd/core/parameter.hpp"
#include "sd/core/philox.hpp"
#include "sd/core/warning.hpp"
#include "sd/core/window.hpp"
#include "sd/cpu/elementwise.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace test_core {

using sd::Index;
using sd::Shape;
using sd::Tensor;
using sd_test::contains;
using sd_test::message_of;

namespace {

// Sets the number of threads back at the end of a test.
struct ThreadsRestored {
    int before = sd::num_threads();
    ~ThreadsRestored() { sd::set_num_threads(before); }
};

}  // namespace

TEST_CASE("philox: known answers") {
    CHECK(sd::philox4x32_10({0, 0, 0, 0}, {0, 0}) ==
          sd::PhiloxCounter{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U});
    constexpr std::uint32_t ones = 0xffffffffU;
    CHECK(sd::philox4x32_10({ones, ones, ones, ones}, {ones, ones}) ==
          sd::PhiloxCounter{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU});
    CHECK(sd::philox4x32_10({0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}, {0xa4093822U, 0x299f31d0U}) ==
          sd::PhiloxCounter{0xd16cfe09U, 0x94fdcceb, 0x5001e420U, 0x24126ea1U});
    static_assert(sd::philox4x32_10({0, 0, 0, 0}, {0, 0})[0] == 0x6627e8d5U);
}

TEST_CASE("philox: where seed, stream, step, block and index go") {
    const std::uint64_t seed = 0x0123456789abcdefULL;
    const std::uint64_t step = 0xff112233445566ULL | (0x77ULL << 56);  // the highest 8 bits are not used
    CHECK(sd::random_words(seed, sd::Stream::augmentation, step, 5, 9) ==
          sd::philox4x32_10({9, 5, 0x33445566U, 0xff112202U}, {0x89abcdefU, 0x01234567U}));
}

TEST_CASE("philox: numbers from words") {
    CHECK(sd::uniform_from(0) == 0.0);
    CHECK(sd::uniform_from(0x80000000U) == 0.5);
    CHECK(sd::uniform_from(0xffffffffU) < 1.0);
    CHECK(sd::uniform_below(0, 10) == 0);
    CHECK(sd::uniform_below(0xffffffffU, 10) == 9);
    CHECK(sd::uniform_below(0x80000000U, 10) == 5);
    CHECK(std::isfinite(sd::normal_from(0, 0)));
    CHECK(std::isfinite(sd::normal_from(0xffffffffU, 0xffffffffU)));
    constexpr int draws = 20000;
    double sum = 0;
    double squares = 0;
    for (std::uint32_t i = 0; i < draws; ++i) {
        const auto words = sd::random_words(sd_test::seed, sd::Stream::initialization, 0, 0, i);
        const double value = sd::normal_from(words[0], words[1]);
        sum += value;
        squares += value * value;
    }
    CHECK(std::abs(sum / draws) < 5 / std::sqrt(double{draws}));
    CHECK(std::abs(squares / draws - 1) < 5 * std::sqrt(2.0 / draws));
}

TEST_CASE("parallel_for: every index once, for any number of threads") {
    const ThreadsRestored restored;
    for (const int threads : {1, 2, 3, 5}) {
        sd::set_num_threads(threads);
        for (const Index count : {0, 1, 2, 100}) {
            std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
            sd::parallel_for(count, [&](Index i) { ++calls[static_cast<std::size_t>(i)]; });
            for (const auto& number : calls) CHECK(number == 1);
        }
    }
    CHECK(contains(message_of([] { sd::set_num_threads(0); }), "got 0, expected 1 or more"));
}

TEST_CASE("parallel_for: the exception of the lowest index") {
    const ThreadsRestored restored;
    for (const int threads : {1, 2, 3}) {
        sd::set_num_threads(threads);
        for (int repeat = 0; repeat < 20; ++repeat) {
            const auto run = [] {
                sd::parallel_for(100, [](Index i) {
                    if (i % 30 == 7) throw std::runtime_error(std::to_string(i));
                });
            };
            CHECK_THROWS_WITH_AS(run(), "7", std::runtime_error);
        }
    }
}

TEST_CASE("parallel_for: a loop inside a loop") {
    const ThreadsRestored restored;
    sd::set_num_threads(2);
    std::atomic<Index> sum = 0;
    sd::parallel_for(10, [&](Index i) { sd::parallel_for(10, [&](Index j) { sum += i * j; }); });
    CHECK(sum == 45 * 45);
}

TEST_CASE("parallel_ranges: cuts depend on the size alone") {
    const ThreadsRestored restored;
    const auto values = sd_test::random_tensor<float>({1000}, 1);
    std::vector<float> first;
    for (const int threads : {1, 2, 3}) {
        sd::set_num_threads(threads);
        std::vector<float> sums(8);
        sd::parallel_ranges(1000, 130, [&](Index begin, Index end) {
            CHECK(begin % 130 == 0);
            CHECK(end == std::min<Index>(begin + 130, 1000));
            for (Index i = begin; i < end; ++i) sums[static_cast<std::size_t>(begin / 130)] += values(i);
        });
        if (threads == 1) first = sums;
        CHECK(sums == first);
    }
    sd::parallel_ranges(0, 10, [](Index, Index) { FAIL("nothing to do"); });
}

TEST_CASE("parameter: a gradient that was not received differs from zeros") {
    sd::Parameter<float> parameter(Tensor<float>(Shape{2}, {1, 2}));
    parameter.name = "layer.weight";
    CHECK_FALSE(parameter.has_grad);
    const Tensor<float> gradient(Shape{2}, {3, 4});
    parameter.add_grad(gradient);
    CHECK(parameter.has_grad);
    CHECK_FALSE(parameter.grad.shares_storage_with(gradient));
    parameter.add_grad(gradient);
    CHECK(parameter.grad(0) == 6);
    CHECK(parameter.grad(1) == 8);
    CHECK(gradient(0) == 3);
    parameter.zero_grad();
    CHECK_FALSE(parameter.has_grad);
    parameter.add_grad(gradient);
    CHECK(parameter.grad(1) == 4);
    CHECK(message_of([&] { parameter.add_grad(Tensor<float>(Shape{3})); }) ==
          "layer.weight: shape of gradient: got (3), expected (2)");
}

TEST_CASE("windows: counts and refused settings") {
    CHECK(sd::detail::window_count("here", 224, 7, 2, 3, 1) == 112);
    CHECK(sd::detail::window_count("here", 5, 3, 1, 2, 2) == 5);
    CHECK(sd::detail::window_count("here", 3, 3, 5, 0, 1) == 1);
    CHECK(contains(message_of([] { (void)sd::detail::window_count("here", 2, 3, 1, 0, 1); }),
                   "got 2, expected at least"));
    CHECK(sd::detail::pool2d_shape("pool", {2, 112, 112, 64}, {3, 2, 1}) == Shape{2, 56, 56, 64});
    CHECK(contains(message_of([] {
                       (void)sd::detail::pool2d_shape("pool", {1, 4, 4, 1}, {2, 2, 2});
                   }),
                   "padding: got 2"));
    CHECK(contains(message_of([] {
                       (void)sd::detail::pool2d_shape("pool", {1, 4, 4, 1}, {2, 0, 0});
                   }),
                   "stride: got 0"));
    CHECK(contains(message_of([] {
                       (void)sd::detail::pool2d_shape("pool", {1, 4, 4, 1}, {0, 1, 0});
                   }),
                   "kernel: got 0"));
    CHECK(contains(message_of([] { (void)sd::detail::pool2d_shape("pool", {4, 4, 1}, {}); }), "4 dimensions"));
}

TEST_CASE("windows: settings whose products no Index holds are refused") {
    const Index huge = std::numeric_limits<Index>::max();
    const Shape x{1, 8, 8, 4}, weight{4, 4, 3, 3};
    const auto refusal = [&](const sd::Conv2dOptions& options) {
        return message_of([&] { sd::Conv2dGeometry(x, weight, options); });
    };
    for (const Index large : {huge, huge / 2 + 1, huge / 4}) {
        CAPTURE(large);
        CHECK(contains(refusal({.padding = large}), "padding: got "));
        CHECK(contains(refusal({.dilation = large}), "dilation: got "));
        CHECK(contains(refusal({.groups = large}), "channels of x: got 4, expected 4 x "));
    }
    CHECK(
        contains(message_of([&] { (void)sd::detail::pool2d_shape("pool", x, {.kernel = huge, .padding = huge / 2}); }),
                 "padding: got "));
    CHECK(refusal({.stride = huge, .padding = 1}) == "accepted");
}

TEST_CASE("branch samples: refused") {
    const std::vector<Index> good = {1, -1, 0};
    CHECK_NOTHROW(sd::detail::expect_branch_samples("join", good, 3, 2));
    CHECK_NOTHROW(sd::detail::expect_branch_samples("join", {}, 3, 3));
    CHECK(contains(message_of([&] { sd::detail::expect_branch_samples("join", {}, 3, 2); }), "got 2, expected 3"));
    CHECK(contains(message_of([&] { sd::detail::expect_branch_samples("join", good, 4, 2); }), "got 3, expected 4"));
    CHECK(contains(message_of([&] { sd::detail::expect_branch_samples("join", good, 3, 1); }),
                   "got 1, expected -1 to 0"));
    const std::vector<Index> bad = {-2};
    CHECK(contains(message_of([&] { sd::detail::expect_branch_samples("join", bad, 1, 1); }), "got -2"));
    CHECK(sd::detail::branch_sample_of({}, 5) == 5);
    CHECK(sd::detail::branch_sample_of(good, 1) == -1);
}

TEST_CASE("parts of a batch: contiguous, in rank order, the first ones larger") {
    const auto counts = [](Index samples, Index ranks) {
        std::string list;
        Index first = 0;
        for (Index rank = 0; rank < ranks; ++rank) {
            const sd::BatchPart part = sd::part_of_rank(samples, rank, ranks);
            CHECK(part.first == first);
            first += part.count;
            list += sd::text(part.count, ' ');
        }
        CHECK(first == samples);
        return list;
    };
    CHECK(counts(64, 4) == "16 16 16 16 ");
    CHECK(counts(11, 4) == "3 3 3 2 ");
    CHECK(counts(2, 4) == "1 1 0 0 ");
    CHECK(counts(0, 2) == "0 0 ");
    CHECK_THROWS_AS((void)sd::part_of_rank(-1, 0, 1), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::part_of_rank(1, 1, 1), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::part_of_rank(1, 0, 0), std::invalid_argument);
}

TEST_CASE("a process alone is the communicator's one rank") {
    sd::Communicator alone;
    CHECK(alone.rank() == 0);
    CHECK(alone.size() == 1);
    std::vector<float> numbers{1, 2, 3};
    alone.broadcast(std::span(numbers));
    alone.start_sum(std::span(numbers))->finish();
    std::vector<float> all(3);
    alone.all_gather(std::span<const float>(numbers), std::span(all));
    CHECK(all == std::vector<float>{1, 2, 3});
    CHECK(alone.traffic().bytes_sent == 0);
    CHECK_THROWS_AS(alone.all_gather(std::span<const float>(numbers), std::span(all).first(2)), std::invalid_argument);
    std::vector<int> other(1);
    CHECK_THROWS_AS((void)alone.start_sum(std::span(other)), std::invalid_argument);
}

TEST_CASE("warnings go to the handler") {
    std::vector<std::string> messages;
    const auto before = sd::set_warning_handler([&](const std::string& message) { messages.push_back(message); });
    sd::warn("odd but allowed");
    sd::set_warning_handler(nullptr);
    sd::warn("nobody listens");
    sd::set_warning_handler(before);
    CHECK(messages == std::vector<std::string>{"odd but allowed"});
}

}  // namespace test_core
