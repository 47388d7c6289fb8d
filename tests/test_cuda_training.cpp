// The trainer on a device, emulated: scores that come late, and what must not wait for them.
#include "cuda_emulator.hpp"

#include "messages.hpp"
#include "small_network.hpp"

#include "sd/cuda/kernels.hpp"
#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace {

using sd::Event;
using sd_test::Emulator;
using sd_test::RecordingDestination;
using Images = sd::DataLoader<sd::InMemoryDataset>;
using State = sd::State<float, Emulator>;

/// Calls a function at one event.
struct At {
    Event event;
    std::function<void(State&)> use;

    bool match(Event now, const State&) const { return now == event; }
    void apply(Event, State& state, sd::Logger&) { use(state); }
};

Images images(sd::Index count) {
    return Images(std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(count, 10, 8, 8, 42)),
                  {.batch_size = 4, .seed = 42});
}

/// A run of a small network on 12 images, three batches an epoch.
struct Run {
    explicit Run(sd::TrainerOptions<float, Emulator> options)
        : model({.layers = {1, 1}, .planes = {4, 8}, .stem_channels = 4, .stem = sd::Stem::cifar},
                {.num_classes = 10, .seed = 7}),
          optimizer(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9}),
          trainer(model, optimizer, Batches(images(12)), Batches(images(8)), with_depth(std::move(options))) {}

    sd::TrainerOptions<float, Emulator> with_depth(sd::TrainerOptions<float, Emulator> options) {
        options.loggers = {log};
        options.algorithms.insert(options.algorithms.begin(),
                                  sd::StochasticDepth({.target_layer_name = "ResNetBasicBlock",
                                                       .stochastic_method = sd::StochasticMethod::sample,
                                                       .drop_rate = 0.5},
                                                      "3ba"));
        return options;
    }
    /// What was logged, but for speeds.
    [[nodiscard]] std::vector<std::string> lines() const {
        std::vector<std::string> all;
        for (const auto& record : log->records) {
            std::string line = sd::text(to_string(record.event), ' ', record.timestamp.batch);
            for (const auto& metric : record.metrics) {
                if (metric.name == "images_per_second") continue;
                line += sd::text(' ', metric.name, '=');
                if (const auto* list = std::get_if<std::vector<double>>(&metric.value)) {
                    for (const double value : *list) line += sd::text(value, ',');
                } else if (const auto* number = std::get_if<double>(&metric.value)) {
                    line += sd::text(std::bit_cast<std::uint64_t>(*number));
                }
            }
            all.push_back(line);
        }
        return all;
    }

    using Batches = sd::DeviceLoader<float, Emulator, Images>;
    sd_test::Warnings warnings;
    std::shared_ptr<RecordingDestination> log = std::make_shared<RecordingDestination>();
    sd::BasicResNet<float, Emulator> model;
    sd::Sgd<float, Emulator> optimizer;
    sd::Trainer<sd::BasicResNet<float, Emulator>, Batches> trainer;
};

}  // namespace

TEST_CASE("scores that are read late are logged as those that are read at once, in the same order") {
    for (const sd::Index microbatches : {1, 2}) {
        CAPTURE(microbatches);
        const sd::TrainerOptions<float, Emulator> options{.max_duration = "8ba", .microbatches = microbatches};
        Run late(options);
        late.trainer.fit();
        Run at_once(options);
        int after_loss = 0;
        at_once.trainer.add(At{Event::after_loss, [&](State&) {
                                   CHECK(Emulator::under_way == 0);
                                   ++after_loss;
                               }});
        at_once.trainer.fit();
        CHECK(after_loss == 8 * microbatches);
        CHECK(late.lines().size() == 15);  // start, 8 batches, 2 epochs, an evaluation after each and at the end, end
        CHECK(late.lines() == at_once.lines());
        CHECK(late.trainer.state().epoch_score == at_once.trainer.state().epoch_score);
        CHECK(late.trainer.state().loss == at_once.trainer.state().loss);
    }
}

TEST_CASE("training and evaluation wait for nothing but scores, and for those a batch late") {
    Run run({.max_duration = "2ep"});
    std::vector<int> training, evaluation;
    run.trainer.add(At{Event::batch_start, [&](State&) { training.push_back(Emulator::under_way); }});
    run.trainer.add(At{Event::eval_before_forward, [&](State&) { evaluation.push_back(Emulator::under_way); }});
    const int reads = Emulator::reads;
    run.trainer.fit();
    CHECK(Emulator::reads == reads);
    CHECK(Emulator::under_way == 0);
    CHECK(training == std::vector<int>{0, 1, 1, 0, 1, 1});
    CHECK(evaluation == std::vector<int>{0, 1, 0, 1});
}

TEST_CASE("a loss that is not finite is told late, by its batch; no checkpoint and no record comes after it") {
    for (const bool saves_every_batch : {false, true}) {
        CAPTURE(saves_every_batch);
        Run run({.max_duration = "2ep"});
        std::vector<std::uint64_t> saved;
        run.trainer.add(At{Event::batch_start, [](State& state) {
                               if (state.timestamp.batch == 1) {
                                   state.batch.images.fill(std::numeric_limits<float>::quiet_NaN());
                               }
                           }});
        const auto save = [&](State& state) { saved.push_back(state.timestamp.batch); };
        if (saves_every_batch) run.trainer.add(At{Event::batch_checkpoint, save});
        run.trainer.add(At{Event::epoch_checkpoint, save});
        std::string message;
        try {
            run.trainer.fit();
        } catch (const std::runtime_error& error) {
            message = error.what();
        }
        CHECK(sd_test::contains(message, "loss at batch 1: got nan"));
        CHECK(sd_test::contains(message, "the optimizer has stepped since"));
        CHECK(sd_test::contains(message, "smaller learning rate (now 0.05)"));
        CHECK(saved == (saves_every_batch ? std::vector<std::uint64_t>{1} : std::vector<std::uint64_t>{}));
        CHECK(run.trainer.state().timestamp.batch == 2);
        CHECK(run.log->records.size() == 2);  // of the start and of batch 0
        CHECK(run.log->records.back().timestamp.batch == 1);
        CHECK(Emulator::under_way == 0);
    }
}

TEST_CASE("what was trained before a failure is logged") {
    Run run({.max_duration = "2ep"});
    run.trainer.add(At{Event::batch_start, [](State& state) {
                           if (state.timestamp.batch == 2) throw std::runtime_error("planted");
                       }});
    CHECK_THROWS_WITH(run.trainer.fit(), "planted");
    CHECK(run.log->records.size() == 3);
    CHECK(run.log->records.back().timestamp.batch == 2);
    CHECK(Emulator::under_way == 0);
}

TEST_CASE("a requested stop leaves nothing unread") {
    Run run({.max_duration = "2ep"});
    run.trainer.add(At{Event::batch_start, [&](State& state) {
                           if (state.timestamp.batch == 1) run.trainer.request_stop();
                       }});
    CHECK(run.trainer.fit() == sd::FitEnd::stopped);
    CHECK(Emulator::under_way == 0);
    CHECK(run.log->records.size() == 4);  // of the start, of two batches, and of the end
}

TEST_CASE("batches reach the device as they are, two under way, whatever becomes of the processor's tensor") {
    sd::cuda::Staging<float, Emulator> staging;
    std::vector<sd::Tensor<float, Emulator>> brought;
    std::vector<sd::Tensor<sd::bfloat16, Emulator>> rounded;
    const std::vector<sd::Shape> shapes{{2, 3}, {2, 3}, {1, 3}, {2, 3}, {0, 3}};
    sd::Tensor<float> x;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        x = sd::Tensor<float>::full(shapes[i], static_cast<float>(i));
        brought.push_back(staging.bring<float>(x));
        rounded.push_back(staging.bring<sd::bfloat16>(x));
        x.fill(-1);
    }
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        CHECK(brought[i].shape() == shapes[i]);
        for (const float value : sd::to_host(brought[i])) CHECK(value == static_cast<float>(i));
        for (const float value : sd::to_host_numbers(rounded[i])) CHECK(value == static_cast<float>(i));
    }
}

TEST_CASE("an epoch on the device may end early, and gives the loader's batches") {
    const Images loader = images(10);
    std::optional<sd::DeviceLoader<float, Emulator, Images>> device_loader(loader);
    auto epoch = device_loader->epoch(1, 1);
    device_loader.reset();  // the epoch goes on without it
    sd::Index number = 1;
    for (auto& batch : epoch) {
        const auto expected = loader.load(1, number++);
        const auto own = sd::to_host(batch.images);
        CHECK(batch.labels == expected.labels);
        CHECK(own.shape() == expected.images.shape());
        CHECK(std::equal(own.begin(), own.end(), expected.images.begin()));
        if (number == 3) break;
    }
    CHECK(number == 3);
}
