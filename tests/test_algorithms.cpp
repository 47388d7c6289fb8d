// Algorithms of a training run: label smoothing, mixup, users' own; their settings; the engine.
#include "messages.hpp"
#include "random.hpp"
#include "small_network.hpp"

#include "sd/training.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <numbers>
#include <span>
#include <string>
#include <vector>

namespace test_algorithms {

using sd::Event;
using sd::Index;
using sd_test::At;
using sd_test::contains;
using sd_test::message_of;
using sd_test::run_small_network;
using sd_test::small_depth;
using sd_test::small_loader;
using sd_test::SmallNetwork;

namespace {

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

TEST_CASE("algorithms tell the settings that decide the numbers, of ranks where those do") {
    using sd::StochasticMethod;
    const auto told = [](const sd::Algorithm<double>& algorithm, const char* key, Index ranks) {
        return algorithm.settings(ranks).at(key);
    };
    const sd::StochasticDepth alike(small_depth(StochasticMethod::block, sd::DropDistribution::linear, 0.5), "2ep");
    CHECK(told(alike, "drop_rate", 1) == "0.5");
    CHECK(told(alike, "drop_warmup", 1) == "2ep");
    CHECK(told(alike, "skipped_gradient", 1) == "none");
    CHECK(alike.settings(4) == alike.settings(1));
    auto options = small_depth(StochasticMethod::block, sd::DropDistribution::linear, 0.5);
    options.use_same_gpu_seed = false;
    const sd::StochasticDepth own(options);
    CHECK(own.settings(1).at("use_same_gpu_seed") == "true");  // one rank has nobody to differ from
    CHECK(own.settings(2) != own.settings(4));
    CHECK(sd::LabelSmoothing(0.25).settings(4) == sd::SettingTexts{{"smoothing", "0.25"}});
    CHECK(sd::Mixup(0.5).settings(4) == sd::SettingTexts{{"alpha", "0.5"}, {"parts", "4"}});
    CHECK(sd::Algorithm<double>(HalfGradients()).settings(4).empty());

    const sd::Engine<double> engine({sd::LabelSmoothing(0.25), HalfGradients(), sd::Mixup(0.5), sd::Mixup(1)});
    CHECK(engine.settings(2) ==
          sd::SettingTexts{{"LabelSmoothing.smoothing", "0.25"}, {"Mixup.alpha", "0.5, 1"}, {"Mixup.parts", "2, 2"}});
}

TEST_CASE("settings of algorithms outside their ranges are refused") {
    CHECK(contains(message_of([] { sd::StochasticDepth({.drop_rate = 1.5}); }), "drop_rate: got 1.5"));
    CHECK(contains(message_of([] { sd::StochasticDepth({}, 1.5); }), "1.5"));
    CHECK(contains(message_of([] { sd::StochasticDepth({}, "5"); }), "5ep"));
    CHECK(contains(message_of([] { sd::LabelSmoothing(1.5); }), "smoothing: got 1.5, expected a number from 0 to 1"));
    CHECK(contains(message_of([] { sd::Mixup(0); }), "alpha: got 0, expected a finite number above 0"));
    // A model without blocks of that name, and a name that is none at all.
    const sd_test::Warnings warnings;
    run_small_network(
        {.max_duration = "1ba", .algorithms = {sd::StochasticDepth({.target_layer_name = "ResNetBasicBlock"}, "2ba")}});
    REQUIRE(warnings.messages.size() == 0);  // told to the handler of the run
    CHECK(contains(
        message_of([] { run_small_network({.algorithms = {sd::StochasticDepth({.target_layer_name = "x"})}}); }),
        "\"x\""));
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
    run_small_network({.max_duration = "1ba",
                       .algorithms = {sd::LabelSmoothing(0.2),
                                      At{Event::after_loss, [&](sd::State<double>& state) {
                                             const std::span<const Index> labels(state.batch.labels);
                                             expected = sd::reference::cross_entropy_forward(state.logits, labels, 0.2);
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
    run_small_network(
        {.max_duration = "2ep",
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
                                   // The partner is the sample with which the mixture can be explained, pixel by pixel.
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

TEST_CASE("cutmix: a box of a partner, targets by the box's area") {
    const auto loader = small_loader<double>(12);
    const sd::CutMix cutmix(1.0);
    std::set<double> shares;
    run_small_network(
        {.max_duration = "2ep",
         .algorithms = {cutmix,
                        At{Event::after_loss,
                           [&](sd::State<double>& state) {
                               const auto plain = loader.load(static_cast<Index>(state.timestamp.epoch),
                                                              static_cast<Index>(state.timestamp.batch_in_epoch));
                               const sd::ImageBox box = cutmix.box(8, 8, 7, state.timestamp.batch);
                               const double share = 1 - static_cast<double>(box.area()) / 64;
                               shares.insert(share);
                               for (Index n = 0; n < 4; ++n) {
                                   // the partner by the targets, then every pixel by the partner
                                   int explained = 0;
                                   for (Index k = 0; k < 4; ++k) {
                                       bool same = true;
                                       for (Index h = 0; h < 8; ++h) {
                                           for (Index w = 0; w < 8; ++w) {
                                               const Index from = box.contains(h, w) ? k : n;
                                               same = same &&
                                                      state.batch.images(n, h, w, 0) == plain.images(from, h, w, 0) &&
                                                      state.batch.images(n, h, w, 2) == plain.images(from, h, w, 2);
                                           }
                                       }
                                       for (Index c = 0; same && c < 4; ++c) {
                                           const double own =
                                               plain.labels[static_cast<std::size_t>(n)] == c ? share : 0;
                                           const double other =
                                               plain.labels[static_cast<std::size_t>(k)] == c ? 1 - share : 0;
                                           same = std::abs(state.batch.targets(n, c) - own - other) < 1e-14;
                                       }
                                       explained += same ? 1 : 0;
                                   }
                                   CHECK(explained >= 1);
                               }
                           }}},
         .seed = 7});
    CHECK(shares.size() > 2);
}

TEST_CASE("cutmix: boxes are in the image, of the stated size away from its edges, centred everywhere") {
    const sd::CutMix cutmix(1.0);
    std::set<Index> rows;
    int inside = 0;
    double area = 0;
    constexpr std::uint64_t steps = 4000;
    for (std::uint64_t step = 0; step < steps; ++step) {
        const sd::ImageBox box = cutmix.box(64, 32, sd_test::seed, step);
        CHECK(box.top >= 0);
        CHECK(box.left >= 0);
        CHECK(box.bottom <= 64);
        CHECK(box.right <= 32);
        if (box.top > 0 && box.bottom < 64 && box.left > 0 && box.right < 32 && box.area() > 0) {
            ++inside;
            rows.insert((box.top + box.bottom) / 2);
            const double lambda = sd::symmetric_beta_from(sd_test::seed, sd::Stream::cutmix, step, 1.0);
            CHECK(box.bottom - box.top == 2 * static_cast<Index>(std::sqrt(1 - lambda) * 32));
            CHECK(box.right - box.left == 2 * static_cast<Index>(std::sqrt(1 - lambda) * 16));
        }
        area += static_cast<double>(box.area()) / (64 * 32 * steps);
    }
    CHECK(inside > 500);
    CHECK(rows.size() > 50);
    // 200,000 boxes drawn by torchvision's formula with Python's random numbers: 0.3041; four standard errors of ours
    CHECK(area == doctest::Approx(0.3041).epsilon(0.055));
    CHECK(contains(message_of([] { sd::CutMix(0); }), "alpha: got 0, expected a finite number above 0"));
}

TEST_CASE("mixup or cutmix: one of them for each batch") {
    const auto destination = std::make_shared<sd_test::RecordingDestination>();
    run_small_network(
        {.max_duration = "10ep", .algorithms = {sd::MixupOrCutMix()}, .seed = 7, .loggers = {destination}});
    const auto mixups = destination->values<double>("mixup/lambda").size();
    const auto cutmixes = destination->values<double>("cutmix/lambda").size();
    CHECK(mixups + cutmixes == 30);
    CHECK(mixups > 5);
    CHECK(cutmixes > 5);
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
    run_small_network({.max_duration = "1ba", .algorithms = {say("zero "), one, copy, halving}});
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

}  // namespace test_algorithms
