// The trainer on a device, emulated: scores that come late, and what must not wait for them.
#include "cuda_emulator.hpp"

#include "messages.hpp"
#include "random.hpp"
#include "small_network.hpp"

#include "sd/device/kernels.hpp"
#include "sd/device/write_arguments.hpp"
#include "sd/training.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
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

const sd::StochasticDepthOptions sample_wise{
    .target_layer_name = "ResNetBasicBlock", .stochastic_method = sd::StochasticMethod::sample, .drop_rate = 0.5};

/// A run of a small network, on 12 images three batches an epoch.
struct Run {
    explicit Run(sd::TrainerOptions<float, Emulator> options, const sd::StochasticDepthOptions& depth = sample_wise,
                 sd::Index image_count = 12)
        : model({.layers = {1, 1}, .planes = {4, 8}, .stem_channels = 4, .stem = sd::Stem::cifar},
                {.num_classes = 10, .seed = 7}),
          optimizer(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9}),
          trainer(model, optimizer, Batches(images(image_count)), Batches(images(8)),
                  with_depth(std::move(options), depth)) {}

    sd::TrainerOptions<float, Emulator> with_depth(sd::TrainerOptions<float, Emulator> options,
                                                   const sd::StochasticDepthOptions& depth) {
        options.loggers = {log};
        options.algorithms.insert(options.algorithms.begin(), sd::StochasticDepth(depth, "3ba"));
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

    /// Parameters and momentum, in a row.
    [[nodiscard]] std::vector<float> numbers() {
        std::vector<float> all;
        const auto append = [&](const sd::Tensor<float, Emulator>& x) {
            const auto own = sd::to_host(x);
            all.insert(all.end(), own.begin(), own.end());
        };
        sd::for_each_state(
            model, [&](const std::string&, const auto& parameter) { append(parameter->value); },
            [&]<class Buffer>(const std::string&, const Buffer& buffer) {
                if constexpr (!std::is_same_v<Buffer, std::int64_t>) append(buffer);
            });
        for (const auto& [name, buffer] : optimizer.state_dict()) append(buffer);
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
    sd::TrainerOptions<float, Emulator> options{.max_duration = "2ep"};
    SUBCASE("stochastic depth alone") {}
    SUBCASE("algorithms that look at no scores") {
        options.algorithms = {sd::GradientClipping(0.5), sd::WeightAveraging({.decay = 0.5})};
    }
    Run run(options);
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

TEST_CASE("batches on a device are the loader's, whether the data set is kept there or not") {
    const auto dataset = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(11, 10, 8, 6, 42));
    for (const bool augments : {false, true}) {
        for (const sd::Index rank : {0, 1}) {
            sd::LoaderOptions options{.batch_size = 4, .shuffle = augments, .seed = 42, .rank = rank, .ranks = 2};
            if (augments) options.augmentation = sd::Augmentation{.padding = 3, .random_erasing = 0.5};
            const Images loader(dataset, options);
            for (const std::size_t bytes : {std::size_t{0}, std::size_t{1} << 30}) {
                CAPTURE(augments);
                CAPTURE(bytes);
                const sd::PrefetchLoader prefetch(loader);
                using Batches =
                    sd::DeviceLoader<sd::bfloat16, Emulator, sd::PrefetchLoader<sd::InMemoryDataset, float>>;
                std::optional<Batches> device_loader(std::in_place, prefetch, sd::DeviceLoaderOptions{bytes});
                CHECK(device_loader->is_resident() == (bytes > 0));
                auto epoch = device_loader->epoch(2, 1);
                device_loader.reset();  // the epoch goes on without it
                sd::Index number = 1;
                for (auto& batch : epoch) {
                    const auto expected = loader.load(2, number++);
                    const auto own = sd::to_host(batch.images);
                    CHECK(batch.labels == expected.labels);
                    CHECK(own.shape() == expected.images.shape());
                    CHECK(std::equal(own.begin(), own.end(), expected.images.begin(),
                                     [](sd::bfloat16 a, float b) { return a.bits() == sd::bfloat16(b).bits(); }));
                }
                CHECK(number == 3);
            }
        }
    }
}

TEST_CASE("a data set is kept on a device if it fits in what is allowed, to the byte") {
    const sd::DeviceLoader<float, Emulator, Images> fits(images(11), {.resident_bytes = 11 * 8 * 8 * 3 * 4});
    const sd::DeviceLoader<float, Emulator, Images> does_not(images(11), {.resident_bytes = 11 * 8 * 8 * 3 * 4 - 1});
    CHECK(fits.is_resident());
    CHECK_FALSE(does_not.is_resident());
}

TEST_CASE("an epoch on a device may end early, or at once") {
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{1} << 30}) {
        const sd::DeviceLoader<float, Emulator, Images> loader(images(11), {.resident_bytes = bytes});
        int batches = 0;
        for (auto& batch : loader.epoch(0, 0)) {
            CHECK(batch.images.extent(0) == 4);
            if (++batches == 2) break;
        }
        for (auto& batch : loader.epoch(0, 3)) batches += 100 * static_cast<int>(batch.labels.size());
        CHECK(batches == 2);
    }
}

TEST_CASE("a step that starts as one graph trains as one that does not, and the graph's kernels do not change") {
    struct Method {
        const char* name;
        sd::StochasticMethod method;
        double drop_rate;
        sd::Compute compute;
        sd::Scaling scaling;
        bool has_graph;
    };
    using enum sd::StochasticMethod;
    for (const Method& method : {Method{"plain", sample, 0, sd::Compute::all, sd::Scaling::inference, true},
                                 Method{"sample", sample, 0.3, sd::Compute::all, sd::Scaling::inference, true},
                                 Method{"sample, scaled", sample, 0.3, sd::Compute::all, sd::Scaling::train, true},
                                 Method{"survivors", sample, 0.3, sd::Compute::survivors, sd::Scaling::train, false},
                                 Method{"block", block, 0.3, sd::Compute::all, sd::Scaling::inference, false}}) {
        CAPTURE(method.name);
        const sd::StochasticDepthOptions depth{.target_layer_name = "ResNetBasicBlock",
                                               .stochastic_method = method.method,
                                               .drop_rate = method.drop_rate,
                                               .compute = method.compute,
                                               .scaling = method.scaling};
        sd::TrainerOptions<float, Emulator> options{
            .max_duration = "5ep", .learning_rate = "cosine", .microbatches = 2, .eval_interval = "2ep"};
        const auto run = [&](bool graph) {
            options.step_graph = graph;
            return std::make_unique<Run>(options, depth, 15);  // three batches of 4 and one of 3
        };
        const auto without = run(false);
        without->trainer.fit();
        CHECK(Emulator::graphs.empty());
        const auto with = run(true);
        with->trainer.fit();
        const auto graphs = std::exchange(Emulator::graphs, {});
        CHECK(with->lines() == without->lines());
        CHECK(with->numbers() == without->numbers());
        REQUIRE(graphs.size() == (method.has_graph ? 18 : 0));  // all but those of the first batch of each size
        std::set<std::vector<std::string>> of_four, of_three;
        for (std::size_t batch = 1, i = 0; i < graphs.size(); ++batch) {
            if (batch == 3) continue;
            (batch % 4 == 3 ? of_three : of_four).insert(graphs[i++]);
        }
        CHECK(of_four.size() == (method.has_graph ? 1 : 0));
        CHECK(of_three.size() == (method.has_graph ? 1 : 0));
    }
}

TEST_CASE("a recorded step may not read from the device") {
    Run run({.max_duration = "2ep", .step_graph = true});
    run.trainer.add(At{Event::after_loss, [](State& state) { (void)sd::to_host(state.logits); }});
    CHECK_THROWS_WITH(run.trainer.fit(), "read in a recorded step");
    CHECK(run.log->records.size() == 2);  // of the start and of the first batch, which has no graph
    Emulator::graphs.clear();
}

TEST_CASE("graphs are for devices that have them") {
    sd_test::SmallNetwork<float> model;
    sd::Sgd<float> optimizer(model.parameters());
    using Trainer = sd::Trainer<sd_test::SmallNetwork<float>, Images>;
    const std::string message =
        sd_test::message_of([&] { Trainer trainer(model, optimizer, images(4), {.step_graph = true}); });
    CHECK(
        sd_test::contains(message, "step_graph: got true, expected false, or one rank with a device that has graphs"));
}

TEST_CASE("few numbers travel with a kernel, byte by byte") {
    for (const std::size_t bytes : {0U, 1U, 1024U, 1025U, 16384U, 16385U, 40000U}) {
        CAPTURE(bytes);
        std::vector<unsigned char> source(bytes);
        for (std::size_t i = 0; i < bytes; ++i) source[i] = static_cast<unsigned char>(i * 7 + i / 256);
        auto target = sd::Tensor<unsigned char, Emulator>::empty({static_cast<sd::Index>(bytes) + 1});
        sd::cuda::write_by_arguments<Emulator>(source.data(), bytes, target.data());
        const auto written = sd::to_host(target);
        CHECK(std::equal(source.begin(), source.end(), written.begin()));
        CHECK(written.data()[bytes] == 0xFF);  // as the emulator left it
    }
}

TEST_CASE("mixed samples and targets are the processor's") {
    const auto x = sd_test::random_tensor<double>({5, 3, 2, 3}, 1);
    const std::vector<sd::Index> partner{3, 0, 2, 4, 1}, labels{0, 6, 3, 3, 2};
    const std::span<const sd::Index> partners(partner), classes(labels);
    const auto on_device = sd::to_device<Emulator>(x);
    const auto mixed = sd::to_host(sd::mix_samples(on_device, partners, 0.3));
    CHECK(sd_test::relative_error(mixed, sd::mix_samples(x, partners, 0.3)) < 1e-15);
    const sd::ImageBox box{.top = 1, .left = 0, .bottom = 3, .right = 1};
    const auto pasted = sd::to_host(sd::paste_samples(on_device, partners, box));
    CHECK(sd_test::relative_error(pasted, sd::paste_samples(x, partners, box)) == 0);
    const auto targets = sd::one_hot_like(x, classes, 7);
    CHECK(sd_test::relative_error(sd::to_host(sd::one_hot_like(on_device, classes, 7)), targets) == 0);
    const auto half = sd::converted<sd::bfloat16>(on_device);
    const auto half_mixed = sd::to_host_numbers(sd::mix_samples(half, partners, 0.3));
    for (sd::Index i = 0; i < x.size(); ++i)
        CHECK(half_mixed.data()[i] == doctest::Approx(mixed.data()[i]).epsilon(0.02));
}

TEST_CASE("a run with mixup, smoothing, clipping and averages has a device's losses as the CPU's") {
    const auto losses = []<class Device>(Device) {
        const sd_test::Warnings warnings;
        using Model = sd::BasicResNet<double, Device>;
        using Doubles = sd::DataLoader<sd::InMemoryDataset, double>;
        Model model({.layers = {1, 1}, .planes = {4, 8}, .stem_channels = 4, .stem = sd::Stem::cifar},
                    {.num_classes = 10, .seed = 7});
        sd::AdamW<double, Device> optimizer(sd::parameter_groups(model, {{.match_rank_at_most = 1, .weight_decay = 0}}),
                                            {.learning_rate = 0.01, .eps = 1e-3});
        const auto log = std::make_shared<RecordingDestination>();
        const Doubles loader(std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(12, 10, 8, 8, 42)),
                             {.batch_size = 4, .seed = 42});
        const auto fit = [&](const auto& batches) {
            sd::Trainer trainer(model, optimizer, batches, batches,
                                {.max_duration = "5ba",
                                 .algorithms = {sd::Mixup(0.4), sd::LabelSmoothing(0.1), sd::GradientClipping(0.5),
                                                sd::WeightAveraging({.decay = 0.5})},
                                 .seed = 3,
                                 .microbatches = 2,
                                 .loggers = {log}});
            trainer.fit();
        };
        if constexpr (std::is_same_v<Device, sd::Cpu>) {
            fit(loader);
        } else {
            fit(sd::DeviceLoader<double, Device, Doubles>(loader));
        }
        auto all = log->values<double>("loss/train");
        for (const double loss : log->values<double>("loss/eval")) all.push_back(loss);
        return all;
    };
    const auto ours = losses(Emulator());
    const auto theirs = losses(sd::Cpu());
    REQUIRE(ours.size() == 7);  // five batches, two evaluations
    REQUIRE(theirs.size() == 7);
    for (std::size_t i = 0; i < ours.size(); ++i) CHECK(ours[i] == doctest::Approx(theirs[i]).epsilon(1e-9));
}
