// Stochastic depth as an algorithm of a run: the warmup of its rates, what an evaluation sees, what it logs.
#include "messages.hpp"
#include "small_network.hpp"

#include "sd/training.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

namespace test_drop_warmup {

using sd::Event;
using sd_test::At;
using sd_test::run_small_network;
using sd_test::small_depth;
using sd_test::small_loader;
using sd_test::SmallNetwork;

namespace {

/// The drop rates that the three blocks have in the forward pass of every batch.
std::vector<std::vector<double>> rates_of(const sd::StochasticDepth& algorithm, const char* duration,
                                          const sd::Timestamp& from = {}) {
    std::vector<std::vector<double>> rates;
    run_small_network({.max_duration = duration,
                       .algorithms = {algorithm, At{Event::before_forward,
                                                    [&](sd::State<double>& state) {
                                                        rates.emplace_back();
                                                        for (const auto& block : state.model.blocks()) {
                                                            rates.back().push_back(block.policy().drop_rate);
                                                        }
                                                    }}}},
                      from);
    return rates;
}

}  // namespace

TEST_CASE("warmup of the drop rates: at batch t they are min(1, t / w) of the full ones") {
    using sd::DropDistribution;
    using sd::StochasticMethod;
    struct Warmup {
        sd::TimeOrFraction time;
        double batches;
    };
    // Runs of 9 batches, three an epoch, go past the end of each of these.
    const std::vector<Warmup> warmups{{"2ep", 6}, {"4ba", 4}, {"12sp", 3}, {"0.5dur", 4.5}, {0.5, 4.5}, {"0.5", 4.5}};
    for (const auto method : {StochasticMethod::block, StochasticMethod::sample}) {
        for (const auto distribution : {DropDistribution::uniform, DropDistribution::linear}) {
            for (const double rate : {0.0, 0.5, 1.0}) {
                const std::vector<double> full = distribution == DropDistribution::uniform
                                                     ? std::vector<double>{rate, rate, rate}
                                                     : std::vector<double>{0, rate / 2, rate};
                for (const Warmup& warmup : warmups) {
                    const auto rates =
                        rates_of(sd::StochasticDepth(small_depth(method, distribution, rate), warmup.time), "3ep");
                    REQUIRE(rates.size() == 9);
                    for (std::size_t t = 0; t < rates.size(); ++t) {
                        const double share = std::min(1.0, static_cast<double>(t) / warmup.batches);
                        CHECK(rates[t] == std::vector<double>{share * full[0], share * full[1], share * full[2]});
                    }
                    CHECK(rates[0] == std::vector<double>{0, 0, 0});
                    CHECK(rates[8] == full);
                }
                CHECK(rates_of(sd::StochasticDepth(small_depth(method, distribution, rate)), "1ba") ==
                      std::vector<std::vector<double>>{full});
            }
        }
    }
}

TEST_CASE("a run that goes on within the warmup, or after it, has the rates of one that did not stop") {
    const sd::StochasticDepth algorithm(small_depth(sd::StochasticMethod::sample, sd::DropDistribution::uniform, 0.8),
                                        "4ba");
    const auto whole = rates_of(algorithm, "3ep");
    for (const std::uint64_t batch : {1U, 2U, 3U, 4U, 7U}) {
        const sd::Timestamp from{batch / 3, batch, 4 * batch, batch % 3, 4 * (batch % 3)};
        const auto rest = rates_of(algorithm, "3ep", from);
        CHECK(rest == std::vector(whole.begin() + static_cast<std::ptrdiff_t>(batch), whole.end()));
    }
}

TEST_CASE("an evaluation has the rates of the last finished batch, wherever the run goes on") {
    const sd_test::Warnings fewer_than_8_blocks;
    const sd::StochasticDepth algorithm(small_depth(sd::StochasticMethod::sample, sd::DropDistribution::uniform, 0.8),
                                        "4ba");
    for (const std::uint64_t batch : {0U, 1U, 2U, 4U, 5U, 7U}) {
        SmallNetwork<double> model;
        sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.01});
        const auto loader = small_loader<double>(12);
        sd::Trainer trainer(model, optimizer, loader, loader, {.max_duration = "3ep", .algorithms = {algorithm}});
        trainer.state().timestamp = {batch / 3, batch, 4 * batch, batch % 3, 4 * (batch % 3)};
        (void)trainer.evaluate();
        const double finished = batch == 0 ? 0 : static_cast<double>(batch - 1);
        for (const auto& block : model.blocks()) {
            CHECK(block.policy().drop_rate() == 0.8 * std::min(1.0, finished / 4));
        }
    }
}

TEST_CASE("stochastic depth acts at the start, and at every batch while a warmup is set; what it logs") {
    const auto depth_options = small_depth(sd::StochasticMethod::block, sd::DropDistribution::linear, 0.5);
    const auto logged = [&](const sd::StochasticDepth& algorithm, std::vector<Event>& events) {
        const auto destination = std::make_shared<sd_test::RecordingDestination>();
        const sd_test::Warnings fewer_than_8_blocks;
        SmallNetwork<double> model;
        sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.01});
        sd::Trainer trainer(model, optimizer, small_loader<double>(12),
                            {.max_duration = "4ba", .algorithms = {algorithm}, .loggers = {destination}});
        trainer.fit();
        for (const auto& line : trainer.engine().trace()) {
            CHECK(line.algorithm == "StochasticDepth");
            if (line.applied) events.push_back(line.event);
        }
        CHECK(destination->values<std::int64_t>("stochastic_depth/num_stochastic_layers") ==
              std::vector<std::int64_t>{3});
        return destination->values<double>("stochastic_depth/drop_rate");
    };
    std::vector<Event> events;
    CHECK(logged(sd::StochasticDepth(depth_options), events) == std::vector<double>{0.5});
    CHECK(events == std::vector<Event>{Event::init});
    events.clear();
    // At the start, then before each batch.
    CHECK(logged(sd::StochasticDepth(depth_options, "2ba"), events) == std::vector<double>{0, 0, 0.25, 0.5, 0.5});
    CHECK(events == std::vector<Event>{Event::init, Event::fit_start, Event::batch_start, Event::batch_start,
                                       Event::batch_start, Event::batch_start});
}

TEST_CASE("where a run goes on, its first record has the rate of the next batch") {
    for (const std::uint64_t batch : {0U, 1U, 3U, 4U, 7U, 9U}) {
        const auto destination = std::make_shared<sd_test::RecordingDestination>();
        const sd_test::Warnings fewer_than_8_blocks;
        SmallNetwork<double> model;
        sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.01});
        sd::Trainer trainer(model, optimizer, small_loader<double>(12),
                            {.max_duration = "3ep",
                             .algorithms = {sd::StochasticDepth(
                                 small_depth(sd::StochasticMethod::block, sd::DropDistribution::uniform, 0.5), "4ba")},
                             .loggers = {destination}});
        trainer.state().timestamp = {batch / 3, batch, 4 * batch, batch % 3, 4 * (batch % 3)};
        trainer.fit();
        REQUIRE(destination->records.front().event == sd::LogEvent::fit_start);
        CAPTURE(batch);
        CHECK(destination->values<double>("stochastic_depth/drop_rate").front() ==
              0.5 * std::min(1.0, static_cast<double>(batch) / 4));
    }
}

TEST_CASE("stochastic depth leaves masks alone that were given, once its rates stand still") {
    const sd_test::Warnings fewer_than_8_blocks;
    SmallNetwork<double> model;
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.01});
    sd::Trainer trainer(model, optimizer, small_loader<double>(12),
                        {.max_duration = "4ba",
                         .algorithms = {sd::StochasticDepth(
                             small_depth(sd::StochasticMethod::sample, sd::DropDistribution::uniform, 0.5), "1ba")}});
    const sd::Mask given{1, 0, 0, 1};
    std::vector<bool> is_given;
    trainer.add(At{Event::batch_end, [&](sd::State<double>&) {
                       is_given.push_back(model.blocks()[1].mask() == given);
                       model.blocks()[1].set_mask(given);
                   }});
    trainer.fit();
    CHECK(is_given == std::vector<bool>{false, false, true, true});
}

TEST_CASE("what a run is too short for is warned of, before it begins") {
    // Three epochs of three batches.
    const auto warnings_of = [](const char* schedule, const sd::TimeOrFraction& drop_warmup) {
        const sd_test::Warnings warnings;
        SmallNetwork<double> model;
        sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.01});
        const sd::Trainer trainer(
            model, optimizer, small_loader<double>(12),
            {.max_duration = "3ep",
             .algorithms = {sd::StochasticDepth(
                 small_depth(sd::StochasticMethod::sample, sd::DropDistribution::uniform, 0.5), drop_warmup)},
             .learning_rate = schedule});
        std::vector<std::string> found;
        for (const std::string& message : warnings.messages) {
            if (message.find("the run's 9 ") != std::string::npos) found.push_back(message);
        }
        return found;
    };
    using Words = std::vector<std::string>;
    CHECK(warnings_of("warmup:5ep,cosine", "3ep") ==
          Words{"learning rate: warmup: got 5ep, expected at most the run's 9 batches: the full learning rate is never "
                "reached"});
    CHECK(warnings_of("warmup:3ep,cosine", 1.0) == Words{"learning rate: warmup: got 3ep, expected fewer batches than "
                                                         "the run's 9 but one: the cosine never begins"});
    CHECK(
        warnings_of("warmup:37sp,multistep:2ep,80ep,0.99dur:0.1", "9ba") ==
        Words{"learning rate: warmup: got 37sp, expected at most the run's 9 batches: the full learning rate is never "
              "reached",
              "learning rate: milestone: got 80ep, expected one before the last of the run's 9 batches: it never comes",
              "learning rate: milestone: got 0.99dur, expected one before the last of the run's 9 batches: it never "
              "comes"});
    CHECK(warnings_of("constant", "10ba") ==
          Words{"StochasticDepth: drop_warmup: got 10ba, expected at most the run's 9 batches: the full drop rates are "
                "never reached"});
    CHECK(warnings_of("warmup:9ba,multistep:8ba,0.5dur:0.1", 0.5).empty());
}

}  // namespace test_drop_warmup
