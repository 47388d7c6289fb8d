// Algorithms of a training run: stochastic depth with its warmup, label smoothing, mixup, users' own; the engine; learning
// rates.
#include "messages.hpp"
#include "random.hpp"
#include "small_network.hpp"

#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <numbers>
#include <span>
#include <string>
#include <vector>

using sd::Event;
using sd::Index;
using sd_test::contains;
using sd_test::message_of;
using sd_test::small_loader;
using sd_test::SmallNetwork;

namespace {

/// Calls a function at one event; a user's algorithm for models of doubles.
struct At {
    Event event;
    std::function<void(sd::State<double>&)> use;

    bool match(Event now, const sd::State<double>&) const { return now == event; }
    void apply(Event, sd::State<double>& state, sd::Logger&) { use(state); }
};

/// Runs the small network on three batches an epoch with these options, from that timestamp on.
void run(sd::TrainerOptions<double> options, const sd::Timestamp& from = {}) {
    const sd_test::Warnings fewer_than_8_blocks;
    SmallNetwork<double> model;
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.01});
    sd::Trainer trainer(model, optimizer, small_loader<double>(12), std::move(options));
    trainer.state().timestamp = from;
    trainer.fit();
}

/// The drop rates that the three blocks have in the forward pass of every batch.
std::vector<std::vector<double>> rates_of(const sd::StochasticDepth& algorithm, const char* duration,
                                          const sd::Timestamp& from = {}) {
    std::vector<std::vector<double>> rates;
    run({.max_duration = duration,
         .algorithms = {algorithm, At{Event::before_forward,
                                      [&](sd::State<double>& state) {
                                          rates.emplace_back();
                                          for (const auto& block : state.model.blocks()) {
                                              rates.back().push_back(block.policy->drop_rate());
                                          }
                                      }}}},
        from);
    return rates;
}

sd::StochasticDepthOptions depth(sd::StochasticMethod method, sd::DropDistribution distribution, double drop_rate) {
    return {.target_layer_name = "ConvBranch",
            .stochastic_method = method,
            .drop_rate = drop_rate,
            .drop_distribution = distribution};
}

/// For a template algorithm by value: scales gradients of any type.
struct HalfGradients {
    template <class T>
    bool match(Event event, const sd::State<T>& state) const {
        return event == Event::after_backward && state.is_last_microbatch();
    }
    template <class T>
    void apply(Event, sd::State<T>& state, sd::Logger& logger) {
        for (const auto& parameter : state.optimizer.parameters()) {
            for (T& d : parameter->grad) d = d / T(2);
        }
        logger.log("times", ++times);
    }
    int times = 0;
};

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
                        rates_of(sd::StochasticDepth(depth(method, distribution, rate), warmup.time), "3ep");
                    REQUIRE(rates.size() == 9);
                    for (std::size_t t = 0; t < rates.size(); ++t) {
                        const double share = std::min(1.0, static_cast<double>(t) / warmup.batches);
                        CHECK(rates[t] == std::vector<double>{share * full[0], share * full[1], share * full[2]});
                    }
                    CHECK(rates[0] == std::vector<double>{0, 0, 0});
                    CHECK(rates[8] == full);
                }
                CHECK(rates_of(sd::StochasticDepth(depth(method, distribution, rate)), "1ba") ==
                      std::vector<std::vector<double>>{full});
            }
        }
    }
}

TEST_CASE("a run that goes on within the warmup, or after it, has the rates of one that did not stop") {
    const sd::StochasticDepth algorithm(depth(sd::StochasticMethod::sample, sd::DropDistribution::uniform, 0.8), "4ba");
    const auto whole = rates_of(algorithm, "3ep");
    for (const std::uint64_t batch : {1U, 2U, 3U, 4U, 7U}) {
        const sd::Timestamp from{batch / 3, batch, 4 * batch, batch % 3, 4 * (batch % 3)};
        const auto rest = rates_of(algorithm, "3ep", from);
        CHECK(rest == std::vector(whole.begin() + static_cast<std::ptrdiff_t>(batch), whole.end()));
    }
}

TEST_CASE("stochastic depth acts at the start, and at every batch while a warmup is set; what it logs") {
    const auto depth_options = depth(sd::StochasticMethod::block, sd::DropDistribution::linear, 0.5);
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
    CHECK(events == std::vector<Event>{Event::init, Event::batch_start, Event::batch_start, Event::batch_start,
                                       Event::batch_start});
}

TEST_CASE("stochastic depth leaves masks alone that were given, once its rates stand still") {
    const sd_test::Warnings fewer_than_8_blocks;
    SmallNetwork<double> model;
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.01});
    sd::Trainer trainer(model, optimizer, small_loader<double>(12),
                        {.max_duration = "4ba",
                         .algorithms = {sd::StochasticDepth(
                             depth(sd::StochasticMethod::sample, sd::DropDistribution::uniform, 0.5), "1ba")}});
    const sd::Mask given{1, 0, 0, 1};
    std::vector<bool> is_given;
    trainer.add(At{Event::batch_end, [&](sd::State<double>&) {
                       is_given.push_back(model.blocks()[1].mask() == given);
                       model.blocks()[1].set_mask(given);
                   }});
    trainer.fit();
    CHECK(is_given == std::vector<bool>{false, false, true, true});
}

TEST_CASE("settings of algorithms outside their ranges are refused") {
    CHECK(contains(message_of([] { sd::StochasticDepth({.drop_rate = 1.5}); }), "drop_rate: got 1.5"));
    CHECK(contains(message_of([] { sd::StochasticDepth({}, 1.5); }), "1.5"));
    CHECK(contains(message_of([] { sd::StochasticDepth({}, "5"); }), "5ep"));
    CHECK(contains(message_of([] { sd::LabelSmoothing(1.5); }), "smoothing: got 1.5, expected a number from 0 to 1"));
    CHECK(contains(message_of([] { sd::Mixup(0); }), "alpha: got 0, expected a finite number above 0"));
    // A model without blocks of that name, and a name that is none at all.
    const sd_test::Warnings warnings;
    run({.max_duration = "1ba", .algorithms = {sd::StochasticDepth({.target_layer_name = "ResNetBasicBlock"}, "2ba")}});
    REQUIRE(warnings.messages.size() == 0);  // told to the handler of the run
    CHECK(
        contains(message_of([] { run({.algorithms = {sd::StochasticDepth({.target_layer_name = "x"})}}); }), "\"x\""));
}

// torch.nn.functional.cross_entropy(x, t, label_smoothing=s) of PyTorch 2.15 in double, with t the one-hot labels for
// s alone, and 0.3 h + 0.7 h[partner] of the one-hot labels h for mixup; gradients by torch.autograd.grad.
TEST_CASE("the loss of smoothed and of mixed labels, against PyTorch's numbers") {
    const sd::Tensor<double> logits({3, 3}, {0.5, -1.0, 2.0, 1.5, 0.25, -0.75, -0.5, 0.0, 1.0});
    const std::vector<Index> labels{2, 0, 1};
    const std::span<const Index> classes(labels);
    CHECK(sd::cross_entropy_forward(logits, classes, 0.0) == doctest::Approx(0.6787842300574419).epsilon(1e-14));
    CHECK(sd::cross_entropy_forward(logits, classes, 0.1) == doctest::Approx(0.7621175633907753).epsilon(1e-14));

    const std::vector<Index> partner{1, 2, 0};
    const auto targets = sd::mix_samples(sd::one_hot_like(logits, classes, 3), partner, 0.3);
    CHECK(sd::cross_entropy_forward(logits, targets, 0.0) == doctest::Approx(1.0871175633907753).epsilon(1e-14));
    CHECK(sd::cross_entropy_forward(logits, targets, 0.1) == doctest::Approx(1.1296175633907755).epsilon(1e-14));
    const std::vector<double> gradient{-0.16268098039776552, 0.0019264133124513726, 0.16075456708531416,
                                       0.1383690026059105,   -0.15249890977856057,  0.01412990717265006,
                                       0.03563701661091838,  -0.02403647857039477,  -0.011600538040523627};
    const auto dlogits = sd::cross_entropy_by_input(logits, targets, 0.1);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
        CHECK(dlogits.data()[i] == doctest::Approx(gradient[i]).epsilon(1e-13));
    }
}

TEST_CASE("label smoothing is what the training loss uses, and no evaluation") {
    double expected = 0, loss = 0;
    run({.max_duration = "1ba",
         .algorithms = {sd::LabelSmoothing(0.2), At{Event::after_loss, [&](sd::State<double>& state) {
                                                        const std::span<const Index> labels(state.batch.labels);
                                                        expected = sd::reference::cross_entropy_forward(state.logits,
                                                                                                        labels, 0.2);
                                                        loss = state.loss;
                                                    }}}});
    CHECK(loss == expected);
    CHECK(loss != 0);

    SmallNetwork<double> model;
    sd::Sgd<double> optimizer(model.parameters());
    const auto loader = small_loader<double>(4);
    sd::Trainer plain(model, optimizer, loader, loader);
    sd::Trainer smoothed(model, optimizer, loader, loader, {.algorithms = {sd::LabelSmoothing(0.2)}});
    CHECK(plain.evaluate() == smoothed.evaluate());
}

TEST_CASE("mixup mixes images and targets alike, otherwise in every batch, and the loss sees it") {
    const auto loader = small_loader<double>(12);
    std::vector<std::vector<Index>> partners;
    std::vector<double> shares;
    const auto destination = std::make_shared<sd_test::RecordingDestination>();
    run({.max_duration = "2ep",
         .algorithms = {sd::Mixup(1.0),
                        At{Event::after_loss,
                           [&](sd::State<double>& state) {
                               const auto plain = loader.load(static_cast<Index>(state.timestamp.epoch),
                                                              static_cast<Index>(state.timestamp.batch_in_epoch));
                               CHECK(state.batch.labels == plain.labels);
                               const double share =
                                   sd::symmetric_beta_from(7, sd::Stream::mixup, state.timestamp.batch, 1.0);
                               const auto slab = plain.images.size() / 4;
                               std::vector<Index> partner;
                               for (Index n = 0; n < 4; ++n) {
                                   const double* mixed = state.batch.images.data() + n * slab;
                                   // The partner is the sample of the batch with which the mixture can be explained, pixel by pixel.
                                   for (Index k = 0; k < 4; ++k) {
                                       double distance = 0;
                                       for (Index i = 0; i < slab; ++i) {
                                           const double both = share * plain.images.data()[n * slab + i] +
                                                               (1 - share) * plain.images.data()[k * slab + i];
                                           distance = std::max(distance, std::abs(mixed[i] - both));
                                       }
                                       if (distance < 1e-12) partner.push_back(k);
                                   }
                                   REQUIRE(partner.size() == static_cast<std::size_t>(n + 1));
                                   const Index own = plain.labels[static_cast<std::size_t>(n)];
                                   const Index other = plain.labels[static_cast<std::size_t>(partner.back())];
                                   for (Index c = 0; c < 4; ++c) {
                                       const double target = (c == own ? share : 0) + (c == other ? 1 - share : 0);
                                       CHECK(state.batch.targets(n, c) == doctest::Approx(target).epsilon(1e-14));
                                   }
                               }
                               CHECK(state.loss ==
                                     sd::reference::cross_entropy_forward(state.logits, state.batch.targets, 0.0));
                               std::vector<Index> sorted = partner;
                               std::sort(sorted.begin(), sorted.end());
                               CHECK(sorted == std::vector<Index>{0, 1, 2, 3});
                               partners.push_back(partner);
                               shares.push_back(share);
                           }}},
         .seed = 7,
         .loggers = {destination}});
    REQUIRE(partners.size() == 6);
    CHECK(std::count(partners.begin(), partners.end(), partners[0]) < 6);
    std::sort(shares.begin(), shares.end());
    CHECK(std::adjacent_find(shares.begin(), shares.end()) == shares.end());
    auto logged = destination->values<double>("mixup/lambda");
    std::sort(logged.begin(), logged.end());
    CHECK(logged == shares);
}

TEST_CASE("Beta numbers are distributed as such") {
    constexpr std::size_t count = 20000;
    const auto draw = [](double alpha) {
        std::vector<double> numbers(count);
        for (std::size_t i = 0; i < count; ++i) {
            numbers[i] = sd::symmetric_beta_from(sd_test::seed, sd::Stream::mixup, i, alpha);
        }
        std::sort(numbers.begin(), numbers.end());
        return numbers;
    };
    // Kolmogorov and Smirnov: the largest distance from the distribution function, closed for these alphas, is above
    // 1.95 / sqrt(count) in one of a thousand trials.
    const std::map<double, std::function<double(double)>> distribution{
        {0.5, [](double x) { return 2 / std::numbers::pi * std::asin(std::sqrt(x)); }},
        {1.0, [](double x) { return x; }},
        {2.0, [](double x) { return x * x * (3 - 2 * x); }}};
    for (const auto& [alpha, function] : distribution) {
        const auto numbers = draw(alpha);
        double distance = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const double empirical = (static_cast<double>(i) + 0.5) / count;
            distance = std::max(distance, std::abs(function(numbers[i]) - empirical));
        }
        CHECK(distance < 1.95 / std::sqrt(count));
    }
    // Mean 1/2, variance 1 / (4 (2 alpha + 1)), each within five of its standard errors.
    const auto numbers = draw(0.2);
    double mean = 0, square = 0;
    for (const double x : numbers) {
        mean += x / count;
        square += (x - 0.5) * (x - 0.5) / count;
    }
    CHECK(numbers.front() >= 0);
    CHECK(numbers.back() <= 1);
    CHECK(std::abs(mean - 0.5) < 5 * std::sqrt(1 / (4 * 1.4) / count));
    CHECK(std::abs(square - 1 / (4 * 1.4)) < 5 * 0.25 / std::sqrt(count));
    for (std::uint64_t i = 0; i < 100; ++i) {  // so extreme that both gammas are below every double
        const double x = sd::symmetric_beta_from(1, sd::Stream::mixup, i, 1e-4);
        CHECK((x >= 0 && x <= 1));
    }
    CHECK_THROWS_AS((void)sd::symmetric_beta_from(1, sd::Stream::mixup, 0, 0), std::invalid_argument);
}

TEST_CASE("algorithms act in their order, by value, whatever their type") {
    std::string order;
    const auto say = [&](const char* word) {
        return At{Event::fit_start, [&order, word](sd::State<double>&) { order += word; }};
    };
    HalfGradients halving;
    sd::Algorithm<double> one = say("one ");
    const sd::Algorithm<double> copy = one;
    one = say("two ");
    run({.max_duration = "1ba", .algorithms = {say("zero "), one, copy, halving}});
    CHECK(order == "zero two one ");
    CHECK(halving.times == 0);  // a copy did the work

    // Twice the learning rate makes up for it.
    const auto train = [](double learning_rate, std::vector<sd::Algorithm<double>> algorithms, Index microbatches) {
        SmallNetwork<double> model;
        sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = learning_rate});
        const auto destination = std::make_shared<sd_test::RecordingDestination>();
        sd::Trainer trainer(model, optimizer, small_loader<double>(12),
                            {.max_duration = "3ba",
                             .algorithms = std::move(algorithms),
                             .microbatches = microbatches,
                             .loggers = {destination}});
        trainer.fit();
        CHECK(destination->values<std::int64_t>("times").size() ==
              (trainer.engine().trace()[0].algorithm.empty() ? 0 : 3));
        return model.numbers();
    };
    const auto plain = train(0.125, {}, 1);
    CHECK(train(0.25, {halving}, 1) == plain);
    const auto parts = train(0.25, {halving}, 2);
    for (std::size_t i = 0; i < plain.size(); ++i) CHECK(parts[i] == doctest::Approx(plain[i]).epsilon(1e-12));
}

TEST_CASE("the trace names event, batch, algorithm and whether it acted, the last lines of a long run") {
    const sd_test::Warnings fewer_than_8_blocks;
    SmallNetwork<double> model;
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.01});
    sd::Trainer trainer(model, optimizer, small_loader<double>(12),
                        {.max_duration = "100ep", .algorithms = {sd::LabelSmoothing(), HalfGradients()}});
    auto trace = trainer.engine().trace();
    REQUIRE(trace.size() == 2);
    CHECK(trace[0].event == Event::init);
    CHECK(trace[0].algorithm == "LabelSmoothing");
    CHECK(trace[0].applied);
    CHECK(contains(std::string(trace[1].algorithm), "HalfGradients"));
    CHECK_FALSE(trace[1].applied);
    trainer.fit();
    trace = trainer.engine().trace();
    CHECK(trace.size() == sd::Engine<double>::trace_length);
    CHECK(trace.back().event == Event::fit_end);
    CHECK(trace.back().batch == 300);
    CHECK(std::is_sorted(trace.begin(), trace.end(), [](const auto& a, const auto& b) { return a.batch < b.batch; }));
    CHECK(std::count_if(trace.begin(), trace.end(), [](const auto& line) {
              return line.applied && line.event == Event::after_backward && line.batch == 299;
          }) == 1);
}

// Ten steps of PyTorch 2.15's schedulers from a learning rate of 1: MultiStepLR(milestones=[4, 7], gamma=0.1);
// CosineAnnealingLR(T_max=10); LinearLR(start_factor=1/4, total_iters=3); SequentialLR of that and
// CosineAnnealingLR(T_max=6) at 4; ChainedScheduler of it and MultiStepLR(milestones=[2, 7], gamma=0.5).
TEST_CASE("learning rates against PyTorch's schedulers") {
    const sd::RunLength length = sd::run_length("10ba", 5, 20, 4);
    const std::map<std::string, std::vector<double>> expected{
        {"constant", std::vector<double>(10, 1.0)},
        {"multistep:0.4dur,7ba:0.1", {1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01}},
        {"multistep:7ba,16sp:0.1", {1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01}},
        {"multistep:1ep:0.5", {1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5}},
        {"cosine",
         {1.0, 0.9755282581475768, 0.9045084971874737, 0.7938926261462366, 0.6545084971874737, 0.5, 0.34549150281252633,
          0.2061073738537635, 0.09549150281252633, 0.024471741852423234}},
        {"warmup:4ba,constant", {0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1}},
        {"warmup:0.4dur,cosine",
         {0.25, 0.5, 0.75, 1, 1, 0.9330127018922194, 0.75, 0.5, 0.2500000000000001, 0.06698729810778065}},
        {"warmup:4ba,multistep:2ba,7ba:0.5", {0.25, 0.5, 0.375, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25}},
        {"warmup:20ba,cosine", {0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5}}};
    for (const auto& [name, factors] : expected) {
        const sd::LearningRateSchedule schedule(name);
        CHECK(to_string(schedule) == name);
        sd::Timestamp timestamp;
        for (const double factor : factors) {
            CAPTURE(name);
            CHECK(schedule.factor(timestamp, length) == doctest::Approx(factor).epsilon(1e-14));
            timestamp.to_next_batch(4);
        }
    }
    for (const char* junk : {"", "linear", "cosine,", "warmup:5ep", "warmup:5ep,", "warmup:5,cosine", "multistep",
                             "multistep:0.1", "multistep::0.1", "multistep:5ep", "multistep:5ep,:0.1",
                             "multistep:5ep:-1", "multistep:5ep:nan", "multistep:5ep:0.1x", "cosine:1", " cosine"}) {
        CAPTURE(junk);
        CHECK(message_of([&] { sd::LearningRateSchedule schedule{junk}; }) != "accepted");
    }
    CHECK(contains(message_of([] { sd::LearningRateSchedule("linear"); }), "constant, cosine or multistep:"));
    CHECK(contains(message_of([] { sd::LearningRateSchedule(sd::MultiStepLearningRate{}); }), "milestones"));
}

TEST_CASE("accuracies count labels among the largest logits, and never one that is not a number") {
    const double nan = std::nan("");
    const sd::Tensor<double> logits({5, 6}, {1,   2,   3,   4,   5,   6,   //
                                             6,   6,   6,   6,   6,   6,   //
                                             1,   nan, 1,   1,   1,   1,   //
                                             0,   -1,  -2,  -3,  -4,  -5,  //
                                             nan, nan, nan, nan, nan, nan});
    const auto count = [&](std::vector<Index> labels, Index k) { return sd::count_in_top(logits, labels, k); };
    CHECK(count({5, 0, 1, 0, 0}, 1) == 3);  // of equal ones the first
    CHECK(count({0, 4, 1, 4, 0}, 5) == 2);
    CHECK(count({0, 5, 1, 5, 3}, 5) == 0);
    CHECK(count({0, 5, 0, 5, 3}, 6) == 4);
    sd::Score score;
    score.add(sd::Tensor<double>({2, 6}, {1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6}), std::vector<Index>{5, 1}, 0.25);
    score.add(sd::Tensor<double>({1, 6}, {1, 2, 3, 4, 5, 6}), std::vector<Index>{0}, 1.0);
    CHECK(score.loss() == 0.5);
    CHECK(score.accuracy() == doctest::Approx(1.0 / 3));
    CHECK(score.top5_accuracy() == doctest::Approx(2.0 / 3));
    CHECK_THROWS_AS((void)count({0, 1, 2, 3, 6}, 1), std::invalid_argument);
    CHECK_THROWS_AS((void)count({0}, 1), std::invalid_argument);
}
