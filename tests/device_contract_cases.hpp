// What every device promises, through the contract's names alone: copies, numbers on their way, late scores, steps as
// graphs, kernels found by their arguments, choices. ContractDevices is a std::tuple of the devices that the including
// unit tests.
#pragma once

#include "sd/training.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace device_contract {

using Numbers = std::vector<double>;

template <class T, class Device>
Numbers numbers(const sd::Tensor<T, Device>& x) {
    const sd::Tensor<T> own = sd::to_host(x);
    return {own.begin(), own.end()};
}

template <class Device>
sd::Tensor<double, Device> on(const sd::Shape& shape, std::initializer_list<double> values) {
    return sd::to_device<Device>(sd::Tensor<double>(shape, values));
}

/// Writes down the batches whose scores it is told of.
template <class Scores>
struct Told {
    std::vector<std::uint64_t>& batches;

    void read_loss(const typename Scores::Batch&, double) const {}
    void read_score(typename Scores::Batch&) const {}
    void read_record(const typename Scores::Batch& batch) const { batches.push_back(batch.number); }
};

}  // namespace device_contract

TEST_CASE_TEMPLATE_DEFINE("device: elements come back as they were copied there", Device, device_copies) {
    using device_contract::Numbers;
    using device_contract::numbers;
    static_assert(sd::ComputeDevice<Device> && sd::HasKernels<Device, float> && sd::HasKernels<Device, double>);
    const sd::Tensor<double> source({2, 3}, {1, -2, 3.5, 0, 5, -6});
    const auto there = sd::to_device<Device>(source);
    CHECK(there.shape() == source.shape());
    CHECK(numbers(there) == Numbers{1, -2, 3.5, 0, 5, -6});
    CHECK(decltype(there)::on_processor == Device::in_cpu_memory);

    auto copy = there.clone();
    CHECK(copy.is_only_handle());
    copy.fill(7);
    CHECK(numbers(copy) == Numbers(6, 7));
    CHECK(numbers(there) == numbers(source));
    const auto handle = copy;
    CHECK_FALSE(copy.is_only_handle());
    Numbers others{6, 5, 4, 3, 2, 1};
    copy.write(others.data());
    others.assign(6, 0);  // which the device may not be reading any more
    CHECK(numbers(handle) == Numbers{6, 5, 4, 3, 2, 1});

    CHECK_FALSE(sd::to_host(sd::to_device<Device>(sd::Tensor<double>())));
    CHECK(sd::to_host(sd::to_device<Device>(sd::Tensor<double>({0, 3}))).shape() == sd::Shape{0, 3});
    const auto roomy = sd::Tensor<double, Device>::empty({1, 3}, 6);
    CHECK(roomy.in_room({2, 3}).shares_storage_with(roomy));
    CHECK(numbers(sd::to_device<Device>(sd::Tensor<sd::Index>({2}, {1, -1}))) == Numbers{1, -1});
}

TEST_CASE_TEMPLATE_DEFINE("device: numbers on their way are those of when they were asked for", Device,
                          device_readback) {
    auto x = device_contract::on<Device>({2}, {1, 2});
    sd::Readback<double, Device> first(x);
    x.fill(3);
    sd::Readback<double, Device> second(x);
    sd::Readback<double, Device> moved = std::move(second);
    const auto read = [](auto& readback) {
        const std::span<const double> got = readback.get();
        return device_contract::Numbers(got.begin(), got.end());
    };
    CHECK(read(moved) == device_contract::Numbers{3, 3});
    CHECK(read(first) == device_contract::Numbers{1, 2});
    CHECK(read(first) == device_contract::Numbers{1, 2});
}

TEST_CASE_TEMPLATE_DEFINE("device: a late score is the loss and the counts of its batch", Device, device_scores) {
    // Softmax of (log 6, log 2, 0, 0) is (0.6, 0.2, 0.1, 0.1). The labels are first, second and last.
    const double row[] = {std::log(6.0), std::log(2.0), 0, 0};
    sd::Tensor<double> logits({3, 4});
    for (sd::Index i = 0; i < logits.size(); ++i) logits.data()[i] = row[i % 4];
    const std::vector<sd::Index> classes{0, 1, 3};
    const std::span<const sd::Index> labels(classes);
    const auto there = sd::to_device<Device>(logits);
    const auto given = cross_entropy(there, labels);
    sd::LateScore<Device> late(score_numbers(there, labels, given.loss), classes.size());
    const double expected = -(std::log(0.6) + std::log(0.2) + std::log(0.1)) / 3;
    CHECK(late.loss() == doctest::Approx(expected).epsilon(1e-12));
    CHECK(late.score().loss_sum == doctest::Approx(3 * expected).epsilon(1e-12));
    CHECK(late.score().correct == 1);
    CHECK(late.score().correct_in_top5 == 3);
    CHECK(late.score().samples == 3);

    // A batch is read at once where nothing runs beside the CPU, else when the next one has been started.
    using Scores = sd::LateScores<Device, int>;
    Scores scores;
    std::vector<std::uint64_t> told;
    for (std::uint64_t batch = 0; batch < 3; ++batch) {
        scores.begin(batch, 0.1);
        scores.add({score_numbers(there, labels, given.loss), classes.size()});
        scores.finish();
        scores.close(0);
        scores.read(sd::detail::scores_are_late<Device>, device_contract::Told<Scores>{told});
        CHECK(told.size() == (Device::runs_beside_cpu ? batch : batch + 1));
    }
    scores.read(0, device_contract::Told<Scores>{told});
    CHECK(told == std::vector<std::uint64_t>{0, 1, 2});
}

TEST_CASE_TEMPLATE_DEFINE("device: a step as a graph starts what it would start without", Device, device_steps) {
    using device_contract::numbers;
    const auto run = [](auto start) {  // x = x + share (target - x), by another share in every step
        auto x = device_contract::on<Device>({3}, {1, 2, 4});
        const auto target = device_contract::on<Device>({3}, {0, 8, -4});
        for (const double share : {0.5, 0.25, 1.0, 0.5}) {
            start([&] {
                move_towards(x, target, share);
                add_to(x, target);
            });
        }
        return numbers(x);
    };
    sd::StepGraph<Device> graph;
    const auto without = run([](const auto& work) { work(); });
    CHECK(run([&](const auto& work) { graph.run(work); }) == without);
    device_contract::Numbers expected{1, 2, 4};
    for (const double share : {0.5, 0.25, 1.0, 0.5}) {
        const double target[] = {0, 8, -4};
        for (std::size_t i = 0; i < 3; ++i) expected[i] += share * (target[i] - expected[i]) + target[i];
    }
    CHECK(without == expected);

    // Of a step that fails, a device that replays steps starts nothing.
    auto x = device_contract::on<Device>({1}, {1});
    CHECK_THROWS_WITH_AS(graph.run([&] {
        scale_by(x, 2.0);
        throw std::runtime_error("in the middle");
    }),
                         "in the middle", std::runtime_error);
    CHECK(numbers(x) == device_contract::Numbers{Device::replays_steps ? 1.0 : 2.0});
    graph.run([&] { scale_by(x, 8.0); });
    CHECK(numbers(x) == device_contract::Numbers{Device::replays_steps ? 8.0 : 16.0});
}

TEST_CASE_TEMPLATE_DEFINE("device: choices come back from their text", Device, device_choices) {
    const std::string words = sd::DeviceChoices<Device>::so_far().text();
    const auto again = sd::DeviceChoices<Device>::parse(words, "here");
    again.use();
    CHECK(again.text() == words);
    CHECK(sd::DeviceChoices<Device>::so_far().text() == words);
    if (!sd::DeviceChoices<Device>::are_made) CHECK(words.empty());
}

TEST_CASE_TEMPLATE_APPLY(device_copies, ContractDevices);
TEST_CASE_TEMPLATE_APPLY(device_readback, ContractDevices);
TEST_CASE_TEMPLATE_APPLY(device_scores, ContractDevices);
TEST_CASE_TEMPLATE_APPLY(device_steps, ContractDevices);
TEST_CASE_TEMPLATE_APPLY(device_choices, ContractDevices);
