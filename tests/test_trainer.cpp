// The training loop: order of events, where a run ends, what it logs, going on in mid-epoch, microbatches, errors.
#include "largest_difference.hpp"
#include "messages.hpp"
#include "small_network.hpp"

#include "sd/training.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_trainer {

using sd::Event;
using sd_test::contains;
using sd_test::message_of;
using sd_test::RecordingDestination;
using sd_test::small_loader;
using sd_test::SmallNetwork;

namespace {

using State = sd::State<double>;

/// Calls a function at every event.
struct Observer {
    std::function<void(Event, State&)> use;

    bool match(Event, const State&) const { return true; }
    void apply(Event event, State& state, sd::Logger&) { use(event, state); }
};

/// A run of the small network on 12 images, three batches an epoch, with everything that is drawn at random.
struct Run {
    explicit Run(sd::TrainerOptions<double> options, double momentum = 0, double learning_rate = 0.05)
        : optimizer(model.parameters(), {.learning_rate = learning_rate, .momentum = momentum}),
          trainer(model, optimizer, small_loader<double>(12), small_loader<double>(6), with_depth(std::move(options))) {
    }

    static sd::TrainerOptions<double> with_depth(sd::TrainerOptions<double> options) {
        const sd_test::Warnings fewer_than_8_blocks;
        options.algorithms.insert(options.algorithms.begin(), depth());
        return options;
    }
    static sd::StochasticDepth depth() {
        return sd::StochasticDepth(
            {.target_layer_name = "ConvBranch", .stochastic_method = sd::StochasticMethod::sample, .drop_rate = 0.5},
            "0.5dur");
    }

    sd_test::Warnings warnings;
    SmallNetwork<double> model;
    sd::Sgd<double> optimizer;
    sd::Trainer<SmallNetwork<double>, sd::DataLoader<sd::InMemoryDataset, double>> trainer;
};

}  // namespace

TEST_CASE("the order of events of two epochs of three batches, with an evaluation of two batches each") {
    std::vector<std::string> events;
    Run run({.max_duration = "2ep",
             .algorithms = {Observer{[&](Event event, State&) { events.push_back(to_string(event)); }}}});
    CHECK(run.trainer.fit() == sd::FitEnd::finished);
    std::vector<std::string> expected{"init", "fit_start"};
    const auto expect = [&](int times, std::initializer_list<const char*> names) {
        for (int i = 0; i < times; ++i) expected.insert(expected.end(), names.begin(), names.end());
    };
    for (int epoch = 0; epoch < 2; ++epoch) {
        expect(1, {"epoch_start"});
        expect(3, {"batch_start", "before_forward", "after_forward", "before_loss", "after_loss", "before_backward",
                   "after_backward", "batch_end", "batch_checkpoint"});
        expect(1, {"epoch_end", "eval_start"});
        expect(2, {"eval_batch_start", "eval_before_forward", "eval_after_forward", "eval_batch_end"});
        expect(1, {"eval_end", "epoch_checkpoint"});
    }
    expect(1, {"fit_end"});
    CHECK(events == expected);
}

TEST_CASE("the timestamp advances just before batch_end and epoch_end") {
    std::vector<sd::Timestamp> ends;
    std::vector<std::uint64_t> batches;
    Run run({.max_duration = "1ep", .algorithms = {Observer{[&](Event event, State& state) {
                                        if (event == Event::batch_end || event == Event::epoch_end)
                                            ends.push_back(state.timestamp);
                                        if (event == Event::after_backward) batches.push_back(state.timestamp.batch);
                                    }}}});
    run.trainer.fit();
    CHECK(batches == std::vector<std::uint64_t>{0, 1, 2});
    const std::vector<sd::Timestamp> expected{{0, 1, 4, 1, 4}, {0, 2, 8, 2, 8}, {0, 3, 12, 3, 12}, {1, 3, 12, 0, 0}};
    CHECK(ends == expected);
}

TEST_CASE("a run ends after its duration in epochs, batches or samples, and is evaluated then") {
    const auto end_of = [](const char* duration) {
        int evaluations = 0;
        Run run({.max_duration = duration, .algorithms = {Observer{[&](Event event, State&) {
                                               evaluations += event == Event::eval_end ? 1 : 0;
                                           }}}});
        CHECK(run.trainer.fit() == sd::FitEnd::finished);
        const sd::Timestamp& t = run.trainer.state().timestamp;
        return std::vector<std::uint64_t>{t.epoch, t.batch, t.sample, t.batch_in_epoch,
                                          static_cast<std::uint64_t>(evaluations)};
    };
    using Numbers = std::vector<std::uint64_t>;
    CHECK(end_of("2ep") == Numbers{2, 6, 24, 0, 2});
    CHECK(end_of("3ba") == Numbers{1, 3, 12, 0, 1});
    CHECK(end_of("4ba") == Numbers{1, 4, 16, 1, 2});
    CHECK(end_of("12sp") == Numbers{1, 3, 12, 0, 1});
    CHECK(end_of("13sp") == Numbers{1, 4, 16, 1, 2});
}

TEST_CASE("evaluations come at their interval and at the end of the run") {
    const auto evaluations = [](const char* interval, const char* duration) {
        std::vector<std::uint64_t> batches;
        Run run({.max_duration = duration,
                 .algorithms = {Observer{[&](Event event, State& state) {
                     if (event == Event::eval_start) batches.push_back(state.timestamp.batch);
                 }}},
                 .eval_interval = interval});
        run.trainer.fit();
        return batches;
    };
    using Batches = std::vector<std::uint64_t>;
    CHECK(evaluations("2ba", "2ep") == Batches{2, 4, 6, 6});  // of batch 6, and of the run's end
    CHECK(evaluations("2ep", "3ep") == Batches{6, 9});
    CHECK(evaluations("12sp", "7ba") == Batches{3, 6, 7});
    CHECK(evaluations("0.5dur", "8ba") == Batches{4, 8});
}

TEST_CASE("what is logged, and when") {
    const auto destination = std::make_shared<RecordingDestination>();
    Run run({.max_duration = "4ba", .learning_rate = "multistep:2ba:0.5", .loggers = {destination}});
    run.trainer.fit();
    std::vector<std::string> records;
    for (const auto& record : destination->records) {
        std::string names;
        for (const auto& metric : record.metrics) names += ' ' + metric.name;
        records.push_back(sd::text(to_string(record.event), ' ', record.timestamp.batch, names));
    }
    const std::string batch =
        " stochastic_depth/drop_rate loss/train accuracy/train top5_accuracy/train learning_rate images_per_second"
        " stochastic_depth/drop_rates stochastic_depth/kept_fraction";
    const std::string evaluation = " loss/eval accuracy/eval top5_accuracy/eval";
    const std::vector<std::string> expected{
        "fit_start 0 stochastic_depth/num_stochastic_layers stochastic_depth/drop_rate",
        "batch 1" + batch,
        "batch 2" + batch,
        "batch 3" + batch,
        "epoch 3 loss/train_epoch accuracy/train_epoch top5_accuracy/train_epoch images_per_second",
        "evaluation 3" + evaluation,
        "batch 4" + batch,
        "evaluation 4" + evaluation,
        "fit_end 4"};
    CHECK(records == expected);
    CHECK(destination->values<std::int64_t>("stochastic_depth/num_stochastic_layers") == std::vector<std::int64_t>{3});
    CHECK(destination->values<double>("learning_rate") == std::vector<double>{0.05, 0.05, 0.025, 0.025});
    const auto losses = destination->values<double>("loss/train");
    REQUIRE(losses.size() == 4);
    CHECK(destination->values<double>("loss/train_epoch").at(0) ==
          doctest::Approx((losses[0] + losses[1] + losses[2]) / 3).epsilon(1e-14));
    CHECK(destination->values<double>("top5_accuracy/train") == std::vector<double>(4, 1.0));  // of four classes
    CHECK(destination->values<double>("loss/eval").back() == run.trainer.evaluate().loss());

    // Of four samples a block keeps 0, 1/4, ... or 1; the first batch has no drop rate yet, nor has the first block
    // ever.
    const auto rates = destination->values<std::vector<double>>("stochastic_depth/drop_rates");
    const auto kept = destination->values<std::vector<double>>("stochastic_depth/kept_fraction");
    CHECK(rates[0] == std::vector<double>{0, 0, 0});
    CHECK(rates[3] == std::vector<double>{0, 0.25, 0.5});
    CHECK(kept[0] == std::vector<double>{1, 1, 1});
    sd::Index expected_kept = 0;
    for (std::uint32_t n = 0; n < 4; ++n) expected_kept += sd::keeps_branch(0.5, 0, 3, 2, n) ? 1 : 0;
    CHECK(kept[3][2] == static_cast<double>(expected_kept) / 4);
}

TEST_CASE("a run goes on from any batch as if it had not been interrupted") {
    using Numbers = std::vector<double>;
    std::vector<Numbers> numbers;   // after each batch
    std::vector<sd::Score> scores;  // of the epoch up to there
    std::vector<sd::Timestamp> stamps;
    const sd::TrainerOptions<double> options{.max_duration = "2ep", .algorithms = {sd::Mixup()}, .seed = 3};
    Run whole(options);
    whole.trainer.add(Observer{[&](Event event, State& state) {
        if (event != Event::batch_checkpoint) return;
        numbers.push_back(whole.model.numbers());
        scores.push_back(state.epoch_score);
        stamps.push_back(state.timestamp);
    }});
    whole.trainer.fit();
    REQUIRE(numbers.size() == 6);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        Run rest(options);
        const double* number = numbers[i].data();
        for (const auto& parameter : rest.model.parameters()) {
            std::copy_n(number, parameter->value.size(), parameter->value.begin());
            number += parameter->value.size();
        }
        rest.trainer.state().timestamp = stamps[i];
        rest.trainer.state().epoch_score = scores[i];
        std::vector<Event> events;
        rest.trainer.add(Observer{[&](Event event, State&) { events.push_back(event); }});
        rest.trainer.fit();
        CHECK(rest.model.numbers() == numbers.back());
        CHECK(rest.trainer.state().timestamp == whole.trainer.state().timestamp);
        if (i == 5) continue;  // nothing was left to do
        REQUIRE(events.size() > 1);
        const bool within_epoch = stamps[i].batch_in_epoch > 0;
        CHECK((events[1] == Event::epoch_start) == !within_epoch);
    }
}

TEST_CASE("a requested stop finishes the batch, lets it be saved, and can be followed by the rest") {
    Run whole({.max_duration = "2ep"}, 0.9);
    whole.trainer.fit();

    Run run({.max_duration = "2ep"}, 0.9);
    std::vector<std::string> seen;
    bool stop = true;
    run.trainer.add(Observer{[&](Event event, State& state) {
        if (event == Event::before_forward && state.timestamp.batch == 1 && stop) run.trainer.request_stop();
        if (event == Event::batch_checkpoint || event == Event::fit_end) {
            seen.push_back(sd::text(to_string(event), ' ', state.timestamp.batch, state.stopping ? " stopping" : ""));
        }
    }});
    CHECK(run.trainer.fit() == sd::FitEnd::stopped);
    CHECK(seen == std::vector<std::string>{"batch_checkpoint 1", "batch_checkpoint 2 stopping"});
    stop = false;
    CHECK(run.trainer.fit() == sd::FitEnd::finished);
    CHECK(seen.back() == "fit_end 6");
    CHECK(run.model.numbers() == whole.model.numbers());
}

TEST_CASE("microbatches give the update of the whole batch, masks, mixup and smoothing included") {
    for (const auto compute : {sd::Compute::all, sd::Compute::survivors}) {
        const auto train = [&](sd::Index microbatches) {
            const sd_test::Warnings warnings;
            SmallNetwork<double> model;
            sd::Sgd<double> optimizer(model.parameters(),
                                      {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01});
            const auto loader = small_loader<double>(12, 7);  // batches of 7 and 5
            sd::Trainer trainer(model, optimizer, loader,
                                {.max_duration = "3ep",
                                 .algorithms = {sd::StochasticDepth({.target_layer_name = "ConvBranch",
                                                                     .stochastic_method = sd::StochasticMethod::sample,
                                                                     .drop_rate = 0.6,
                                                                     .compute = compute}),
                                                sd::LabelSmoothing(0.1), sd::Mixup(0.4)},
                                 .microbatches = microbatches});
            trainer.fit();
            return model.numbers();
        };
        const auto whole = train(1);
        for (const sd::Index microbatches : {2, 3, 7}) {
            CHECK(sd_test::largest_difference(train(microbatches), whole) < 1e-14);
        }
    }
}

TEST_CASE("a comparison of numbers sees one that is none") {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK(sd_test::largest_difference({1, 2, 3}, {1, 4, 2.5}) == 2);
    CHECK(std::isinf(sd_test::largest_difference({1, nan, 3}, {1, 2, 3})));
    CHECK(std::isinf(sd_test::largest_difference({1, 2, nan}, {2, 2, nan})));
}

TEST_CASE("a loss that is not finite stops the run before the optimizer steps") {
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        Run run({.max_duration = "2ep"});
        std::vector<double> before;
        run.trainer.add(Observer{[&](Event event, State& state) {
            if (event == Event::batch_checkpoint) before = run.model.numbers();
            if (event == Event::after_forward && state.timestamp.batch == 2) state.logits.fill(bad);
        }});
        std::string message;
        try {
            run.trainer.fit();
        } catch (const std::runtime_error& error) {
            message = error.what();
        }
        CHECK(contains(message, "loss at batch 2: got "));
        CHECK(contains(message, "smaller learning rate (now 0.05)"));
        CHECK(run.model.numbers() == before);
        CHECK(run.trainer.state().timestamp.batch == 2);
    }
}

TEST_CASE("the optimizer has its own learning rate again after a run, however it ended") {
    const auto rates_of = [](const std::shared_ptr<RecordingDestination>& destination) {
        return destination->values<double>("learning_rate");
    };
    SmallNetwork<double> model;
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.05});
    const auto loader = small_loader<double>(12);
    const auto destination = std::make_shared<RecordingDestination>();
    const sd::TrainerOptions<double> options{
        .max_duration = "4ba", .learning_rate = "multistep:1ba:0.5", .loggers = {destination}};
    for (int run = 0; run < 2; ++run) {
        destination->records.clear();
        sd::Trainer trainer(model, optimizer, loader, options);
        trainer.fit();
        CHECK(rates_of(destination) == std::vector<double>{0.05, 0.025, 0.025, 0.025});
        CHECK(optimizer.options().learning_rate == 0.05);
    }
    sd::Trainer failing(model, optimizer, loader, options);
    failing.add(Observer{[](Event event, State& state) {
        if (event == Event::batch_end && state.timestamp.batch == 2) throw std::runtime_error("enough");
    }});
    CHECK_THROWS_WITH(failing.fit(), "enough");
    CHECK(optimizer.options().learning_rate == 0.05);
}

TEST_CASE("a loader that gives fewer or more batches than it says is refused before a batch too many is trained") {
    struct Loader {
        sd::DataLoader<sd::InMemoryDataset, double> loader;
        sd::Index more;

        sd::Index batches() const { return loader.batches() - more; }
        sd::Index samples() const { return loader.samples() - 4 * more; }
        sd::Index batch_size() const { return 4; }
        sd::Index num_classes() const { return loader.num_classes(); }
        auto epoch(sd::Index epoch, sd::Index first) const { return loader.epoch(epoch, first); }
    };
    const auto refusal = [](sd::Index more) {
        SmallNetwork<double> model;
        sd::Sgd<double> optimizer(model.parameters());
        sd::Trainer trainer(model, optimizer, Loader{small_loader<double>(12), more}, {.max_duration = "2ep"});
        const std::string message = message_of([&] { trainer.fit(); });
        CHECK(trainer.state().timestamp.batch == static_cast<std::uint64_t>(3 - std::max<sd::Index>(more, 0)));
        return message;
    };
    CHECK(contains(refusal(1), "batches of an epoch that the loader gave: got more than 2, expected 2"));
    CHECK(contains(refusal(-1), "batches of an epoch that the loader gave: got 3, expected 4"));
}

TEST_CASE("settings outside their ranges are refused") {
    const auto refusal = [](const sd::TrainerOptions<double>& options) {
        return message_of([&] { Run run(options); });
    };
    CHECK(contains(refusal({.microbatches = 0}), "microbatches: got 0, expected 1 or more"));
    CHECK(contains(refusal({.max_duration = "0ep"}), "max_duration: got 0ep"));
    CHECK(contains(refusal({.max_duration = "0.5dur"}), "max_duration: got 0.5dur"));
    CHECK(contains(refusal({.eval_interval = "0ba"}), "eval_interval: got 0ba, expected more than 0"));
    Run beyond({.max_duration = "2ep"});
    beyond.trainer.state().timestamp.batch_in_epoch = 4;
    CHECK(contains(message_of([&] { beyond.trainer.fit(); }), "the loader gave: got 4, expected 3"));
    SmallNetwork<double> model;
    sd::Sgd<double> optimizer(model.parameters());
    sd::Trainer trainer(model, optimizer, small_loader<double>(4));
    CHECK(contains(message_of([&] { (void)trainer.evaluate(); }), "loader for evaluation"));
    CHECK(contains(message_of([&] {
                       const auto empty = sd::DataLoader<sd::InMemoryDataset, double>(
                           sd_test::small_images(3), {.batch_size = 4, .drop_last = true});
                       sd::Trainer(model, optimizer, empty);
                   }),
                   "0 batches"));
}

TEST_CASE("an epoch can begin at any batch, prefetched or not") {
    const auto loader = small_loader<float>(18);
    const sd::PrefetchLoader ahead(loader, {.workers = 2, .ahead = 2});
    for (sd::Index first = 0; first <= loader.batches(); ++first) {
        std::vector<float> expected, plain, prefetched;
        const auto append = [](std::vector<float>& all, const auto& batch) {
            all.insert(all.end(), batch.images.begin(), batch.images.end());
        };
        for (sd::Index i = first; i < loader.batches(); ++i) append(expected, loader.load(1, i));
        for (const auto& batch : loader.epoch(1, first)) append(plain, batch);
        for (const auto& batch : ahead.epoch(1, first)) append(prefetched, batch);
        CHECK(plain == expected);
        CHECK(prefetched == expected);
    }
    CHECK(contains(message_of([&] { (void)loader.epoch(0, 6); }), "first batch: got 6, expected 0 to 5"));
    CHECK(contains(message_of([&] { (void)ahead.epoch(0, -1); }), "first batch: got -1, expected 0 to 5"));
    CHECK(loader.samples() == 18);
    CHECK(sd::DataLoader(sd_test::small_images(18), {.batch_size = 4, .drop_last = true}).samples() == 16);
}

}  // namespace test_trainer
