// Averages of weights and clipping of gradients in a run, and that a resumed run has the same bits with any optimizer.
#include "messages.hpp"
#include "saved_run.hpp"
#include "small_network.hpp"
#include "temporary_directory.hpp"

#include "sd/training.hpp"
#include "sd/train/checkpoint_saver.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace test_averaging {

using sd::Event;
using sd::Index;
using sd::Tensor;
using sd_test::At;
using sd_test::contains;
using sd_test::message_of;
using State = sd::State<double>;

namespace {

using Numbers = std::map<std::string, std::vector<double>>;

/// All parameters and running statistics, by name.
Numbers numbers_of(const State& state) {
    Numbers all;
    state.tensors.for_each([&](const std::string& name, const Tensor<double>& tensor) {
        all.emplace(name, std::vector<double>(tensor.begin(), tensor.end()));
    });
    return all;
}
/// All averages, by name.
Numbers averages_of(const State& state) {
    Numbers all;
    for (const auto& [name, tensor] : state.carried) {
        REQUIRE(name.starts_with("WeightAveraging."));
        all.emplace(name.substr(16), std::vector<double>(tensor.begin(), tensor.end()));
    }
    return all;
}

}  // namespace

// torch.Tensor.lerp_(g, 1 - 0.9) and torch.nn.utils.clip_grad_norm_([w, b], 0.5) of PyTorch 1.13 in double.
TEST_CASE("averages and clipped gradients, against PyTorch's numbers") {
    Tensor<double> average({3}, {1, -0.5, 0.25});
    for (const auto& g : {Tensor<double>({3}, {0.5, -1, 0.125}), Tensor<double>({3}, {0.25, 0.5, -0.75}),
                          Tensor<double>({3}, {-1.5, 0, 2}), Tensor<double>({3}, {0.375, -0.25, 1})}) {
        sd::move_towards(average, g, 1 - 0.9);
    }
    const auto check = [](const Tensor<double>& ours, const std::vector<double>& expected) {
        for (std::size_t i = 0; i < expected.size(); ++i) {
            CHECK(ours.data()[i] == doctest::Approx(expected[i]).epsilon(1e-14));
        }
    };
    check(average, {0.6153000000000001, -0.38545000000000007, 0.39238749999999994});
    std::vector<Tensor<double>> gradients{Tensor<double>({3}, {0.5, -1, 0.125}), Tensor<double>({2}, {1, -0.25})};
    check(sd::clip_norm(std::span(gradients), 0.5), {1.5258194519667128});
    check(gradients[0], {0.16384627672132815, -0.3276925534426563, 0.04096156918033204});
    check(gradients[1], {0.3276925534426563, -0.08192313836066407});
}

TEST_CASE("averages follow weights by their formula, at their interval, warmed up or not") {
    for (const sd::WeightAveragingOptions& options :
         {sd::WeightAveragingOptions{.decay = 0.75}, {.decay = 0.75, .interval = 2}, {.decay = 0.3, .warmup = true}}) {
        Numbers expected;
        Index updates = 0, checks = 0;
        sd_test::run_small_network(
            {.max_duration = "2ep",
             .algorithms = {At{Event::fit_start, [&](State& state) { expected = numbers_of(state); }},
                            sd::WeightAveraging(options),
                            At{Event::batch_end, [&](State& state) {
                                   const auto batch = static_cast<Index>(state.timestamp.batch);
                                   if (batch % options.interval == 0) {
                                       const auto n = static_cast<double>(updates++);
                                       const double decay =
                                           options.warmup ? std::min(options.decay, (1 + n) / (10 + n)) : options.decay;
                                       const Numbers now = numbers_of(state);
                                       for (auto& [name, values] : expected) {
                                           for (std::size_t i = 0; i < values.size(); ++i) {
                                               values[i] = decay * values[i] + (1 - decay) * now.at(name)[i];
                                           }
                                       }
                                   }
                                   const Numbers ours = averages_of(state);
                                   REQUIRE(ours.size() == expected.size());
                                   for (const auto& [name, values] : expected) {
                                       for (std::size_t i = 0; i < values.size(); ++i) {
                                           CHECK(ours.at(name)[i] == doctest::Approx(values[i]).epsilon(1e-12));
                                       }
                                   }
                                   ++checks;
                               }}}});
        CHECK(checks == 6);
        CHECK(updates == 6 / options.interval);
    }
}

TEST_CASE("evaluations are made with the averages, and training goes on with the weights, also after an exception") {
    const sd_test::Warnings fewer_than_8_blocks;
    sd_test::SmallNetwork<double> model;
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.1});
    Numbers weights, averages, in_evaluation;
    bool fails = false;
    const auto loader = sd_test::small_loader<double>(12);
    sd::Trainer trainer(model, optimizer, loader, loader,
                        {.algorithms = {sd::WeightAveraging({.decay = 0.5}),
                                        At{Event::batch_end,
                                           [&](State& state) {
                                               weights = numbers_of(state);
                                               averages = averages_of(state);
                                           }},
                                        At{Event::eval_batch_end, [&](State& state) {
                                               in_evaluation = numbers_of(state);
                                               if (fails) throw std::runtime_error("stop");
                                           }}}});
    // Before training begins there are none.
    const Numbers start = numbers_of(trainer.state());
    (void)trainer.evaluate();
    CHECK(in_evaluation == start);
    trainer.fit();
    CHECK(in_evaluation == averages);
    CHECK(in_evaluation != weights);
    CHECK(numbers_of(trainer.state()) == weights);
    in_evaluation = {};
    fails = true;
    CHECK_THROWS_WITH(trainer.evaluate(), "stop");
    CHECK(in_evaluation == averages);
    CHECK(numbers_of(trainer.state()) == weights);
    CHECK(averages_of(trainer.state()) == averages);
}

TEST_CASE("the gradients of a batch are clipped together, those of its microbatches once") {
    std::vector<double> before, after;
    const auto log = std::make_shared<sd_test::RecordingDestination>();
    const auto norm = [](State& state) {
        double squares = 0;
        for (const auto& parameter : state.optimizer.parameters()) {
            for (const double d : parameter->grad) squares += d * d;
        }
        return std::sqrt(squares);
    };
    const auto last = [](std::vector<double>& all, const auto& norm_of) {
        return At{Event::after_backward, [&all, norm_of](State& state) {
                      if (state.is_last_microbatch()) all.push_back(norm_of(state));
                  }};
    };
    sd_test::run_small_network({.max_duration = "1ep",
                                .algorithms = {last(before, norm), sd::GradientClipping(0.25), last(after, norm)},
                                .microbatches = 2,
                                .loggers = {log}});
    REQUIRE(after.size() == 3);
    std::vector<double> logged;
    for (const auto& record : log->records) {
        for (const auto& metric : record.metrics) {
            if (metric.name == "gradient_norm") logged.push_back(std::get<double>(metric.value));
        }
    }
    REQUIRE(logged.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(before[i] > 0.25);
        CHECK(logged[i] == doctest::Approx(before[i]).epsilon(1e-13));
        CHECK(after[i] == doctest::Approx(0.25).epsilon(1e-5));
    }
}

TEST_CASE("settings of both are refused outside their ranges, and told") {
    const double none = std::numeric_limits<double>::quiet_NaN();
    CHECK(contains(message_of([] { sd::GradientClipping(0); }), "max_norm: got 0, expected a finite number above 0"));
    CHECK(contains(message_of([&] { sd::GradientClipping{none}; }), "max_norm: got nan"));
    CHECK(contains(message_of([] { sd::WeightAveraging({.decay = 1}); }), "decay: got 1, expected a number from 0 to"));
    CHECK(contains(message_of([&] { sd::WeightAveraging({.decay = none}); }), "decay: got nan"));
    CHECK(contains(message_of([] { sd::WeightAveraging({.interval = 0}); }), "interval: got 0, expected 1 or more"));
    CHECK(sd::GradientClipping(0.5).settings(2) == sd::SettingTexts{{"max_norm", "0.5"}});
    CHECK(sd::WeightAveraging({.decay = 0.5, .interval = 3, .warmup = true}).settings(2) ==
          sd::SettingTexts{{"decay", "0.5"}, {"interval", "3"}, {"warmup", "true"}});
}

namespace {

/// A run with averages, clipping, parameter groups and blocks that are dropped now and then.
template <class Optimizer>
struct Run {
    explicit Run(const std::filesystem::path& directory, std::vector<sd::Algorithm<float>> more = {},
                 const typename Optimizer::Options& options = {})
        : model(sd::cifar_resnet<float>(8, {.num_classes = 3, .seed = 1})),
          optimizer(sd::parameter_groups(model, {{.match = "fc.", .learning_rate_factor = 2},
                                                 {.match_rank_at_most = 1, .weight_decay = 0}}),
                    options),
          trainer(model, optimizer, sd_test::SavedRun::loader(sd_test::Settings()),
                  sd_test::SavedRun::eval_loader(sd_test::Settings()),
                  {.max_duration = "3ep", .algorithms = algorithms(std::move(more)), .learning_rate = "cosine"}),
          saver(trainer, {.directory = directory, .interval = "1ep"}) {}

    static std::vector<sd::Algorithm<float>> algorithms(std::vector<sd::Algorithm<float>> more) {
        more.insert(more.begin(), {sd::StochasticDepth({.target_layer_name = "ResNetBasicBlock", .drop_rate = 0.5}),
                                   sd::WeightAveraging({.decay = 0.5}), sd::GradientClipping(1)});
        return more;
    }

    sd::BasicResNet<float> model;
    Optimizer optimizer;
    sd::Trainer<sd::BasicResNet<float>, sd_test::SavedRun::Loader> trainer;
    sd::CheckpointSaver<decltype(trainer)> saver;
};

}  // namespace

TEST_CASE_TEMPLATE("a run that is stopped and resumed has the same bits", O, sd::Sgd<float>, sd::AdamW<float>,
                   sd::Rmsprop<float>, sd::RmspropTf<float>) {
    const sd_test::Warnings warnings;
    typename O::Options options;
    if constexpr (requires { options.momentum; }) options.momentum = 0.9;
    const sd_test::TemporaryDirectory whole;
    sd::Score score;
    {
        Run<O> run(whole.path(), {}, options);
        CHECK(run.trainer.fit() == sd::FitEnd::finished);
        score = run.trainer.state().eval_score;
    }
    for (const std::uint64_t batch : {0U, 3U, 7U}) {
        CAPTURE(batch);
        const sd_test::TemporaryDirectory directory;
        {
            std::function<void()> stop;
            Run<O> run(directory.path(), {sd_test::StopAt{&stop, batch}}, options);
            stop = [&] { run.trainer.request_stop(); };
            CHECK(run.trainer.fit() == sd::FitEnd::stopped);
        }
        {
            Run<O> run(directory.path(), {}, options);
            REQUIRE(run.saver.resume().has_value());
            CHECK(run.trainer.fit() == sd::FitEnd::finished);
            CHECK(run.trainer.state().eval_score == score);
        }
        CHECK(sd_test::newest(directory.path()) == sd_test::newest(whole.path()));
    }
}

TEST_CASE("what belongs to a checkpoint's optimizer and algorithms is kept, refused or told") {
    sd_test::Warnings warnings;
    const sd_test::TemporaryDirectory directory;
    {
        Run<sd::AdamW<float>> run(directory.path());
        run.trainer.fit();
    }
    const auto newest = sd::CheckpointDirectory(directory.path(), 1).checkpoints().back();
    const sd::Checkpoint checkpoint = sd::read_checkpoint(newest);
    CHECK(checkpoint.optimizer.contains("fc.weight.step"));
    CHECK(checkpoint.carried.contains("WeightAveraging.fc.weight"));
    CHECK(checkpoint.carried.contains("WeightAveraging.bn1.running_mean"));
    CHECK(checkpoint.carried.entry("WeightAveraging.bn1.running_mean").bytes !=
          checkpoint.model.entry("bn1.running_mean").bytes);
    CHECK(checkpoint.settings.at("optimizer.name") == "AdamW");
    CHECK(contains(checkpoint.settings.at("optimizer.group.3"), "learning rate x 2, weight decay 0"));
    CHECK(checkpoint.settings.at("WeightAveraging.decay") == "0.5");

    {
        Run<sd::Sgd<float>> other(directory.path());
        CHECK(contains(sd_test::error_of<std::runtime_error>([&] { other.saver.resume(); }), "that Sgd trains"));
        CHECK(other.trainer.state().carried.empty());
    }

    warnings.messages.clear();
    Run<sd::AdamW<float>> changed(directory.path(), {}, {.beta1 = 0.8});
    REQUIRE(changed.saver.resume().has_value());
    CHECK(contains(warnings.messages.back(), "optimizer.beta1: 0.8 instead of 0.9"));
    CHECK(changed.trainer.state().carried.size() == checkpoint.carried.names().size());
}

}  // namespace test_averaging
