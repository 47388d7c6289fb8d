// A run of few and small batches that is saved as it goes on, with everything that is drawn at random.
#pragma once

#include "temporary_directory.hpp"

#include "sd/training.hpp"
#include "sd/train/checkpoint_saver.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace sd_test {

/// Lines of what was told, but for the speed. As a file of metrics does, it forgets what a run that goes on tells
/// again, and an end of the run that was none.
class Told : public sd::LogDestination {
public:
    void start(const sd::RunLength&, const sd::LogRecord& record) override {
        const std::pair last(record.timestamp.epoch, record.timestamp.batch);
        const auto is_told_again = [&](const Line& line) {
            const std::pair here(line.epoch, line.batch);
            return line.values.starts_with("fit_end") || here > last ||
                   (here == last && line.values.starts_with("evaluation") && record.evaluation_is_pending);
        };
        lines.erase(std::find_if(lines.begin(), lines.end(), is_told_again), lines.end());
    }
    void write(const sd::LogRecord& record) override {
        std::ostringstream values;
        values << sd::to_string(record.event);
        for (const sd::Metric& metric : record.metrics) {
            if (metric.name == "images_per_second") continue;
            values << ' ' << metric.name;
            if (const auto* number = std::get_if<double>(&metric.value)) values << std::hexfloat << *number;
            if (const auto* numbers = std::get_if<std::vector<double>>(&metric.value)) {
                for (const double number : *numbers) values << ' ' << std::hexfloat << number;
            }
        }
        lines.push_back({record.timestamp.epoch, record.timestamp.batch, values.str()});
    }
    void flush() override { ++flushes; }

    struct Line {
        std::uint64_t epoch, batch;
        std::string values;
        friend bool operator==(const Line&, const Line&) = default;
    };
    std::vector<Line> lines;
    int flushes = 0;
};

/// Calls `stop` in the batch of that number.
struct StopAt {
    std::function<void()>* stop;
    std::uint64_t batch;
    bool match(sd::Event event, const sd::State<float>& state) const {
        return event == sd::Event::after_forward && state.timestamp.batch == batch;
    }
    void apply(sd::Event, sd::State<float>&, sd::Logger&) const { (*stop)(); }
};

/// What a run can be given.
struct Settings {
    sd::StochasticMethod method = sd::StochasticMethod::sample;
    std::string policy = {};
    sd::Compute compute = sd::Compute::all;
    sd::Time duration = "3ep";
    sd::Time interval = "2ba";
    sd::Index batch_size = 4;
    sd::Index microbatches = 1;
    double learning_rate = 0.05;
    std::uint64_t seed = 42;
    std::uint64_t loader_seed = 42;
    bool shuffle = true;
    std::optional<sd::Augmentation> augmentation = sd::Augmentation{.padding = 1};
    double drop_rate = 0.5;
    sd::TimeOrFraction drop_warmup = "5ba";
    sd::Time eval_interval = "1ep";
    sd::Index classes = 3;
    sd::Index keep = 2;
    sd::Index eval_images = 10;
    bool eval_shuffle = false;
    std::map<std::string, std::string> texts = {{"model", "cifar_resnet8"}};
};

/// A run of 3 batches an epoch, the last one not full: shuffled, augmented and warmed up.
struct SavedRun {
    using Loader = sd::PrefetchLoader<sd::InMemoryDataset, float>;
    using Trainer = sd::Trainer<sd::BasicResNet<float>, Loader>;

    SavedRun(const std::filesystem::path& directory, const Settings& settings, std::shared_ptr<Told> told = nullptr,
             std::optional<sd::Algorithm<float>> algorithm = std::nullopt)
        : model(sd::cifar_resnet<float>(8, {.num_classes = settings.classes, .seed = 1})),
          optimizer(model.parameters(), {.learning_rate = settings.learning_rate, .momentum = 0.9}),
          trainer(model, optimizer, loader(settings), eval_loader(settings), options(settings, told, algorithm)),
          saver(trainer, {.directory = directory,
                          .interval = settings.interval,
                          .keep = settings.keep,
                          .settings = settings.texts}) {}

    static Loader loader(const Settings& settings) {
        const auto images =
            std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(10, settings.classes, 8, 8, settings.seed));
        return Loader(sd::DataLoader(images, {.batch_size = settings.batch_size,
                                              .shuffle = settings.shuffle,
                                              .seed = settings.loader_seed,
                                              .augmentation = settings.augmentation}));
    }
    static Loader eval_loader(const Settings& settings) {
        const auto images = std::make_shared<sd::InMemoryDataset>(
            sd::synthetic_images(settings.eval_images, settings.classes, 8, 8, settings.seed));
        return Loader(sd::DataLoader(images, {.batch_size = settings.batch_size, .shuffle = settings.eval_shuffle}));
    }
    static sd::TrainerOptions<float> options(const Settings& settings, const std::shared_ptr<Told>& told,
                                             const std::optional<sd::Algorithm<float>>& algorithm) {
        sd::TrainerOptions<float> result{.max_duration = settings.duration,
                                         .algorithms = {sd::StochasticDepth({.target_layer_name = "ResNetBasicBlock",
                                                                             .stochastic_method = settings.method,
                                                                             .policy = settings.policy,
                                                                             .drop_rate = settings.drop_rate,
                                                                             .compute = settings.compute},
                                                                            settings.drop_warmup)},
                                         .seed = settings.seed,
                                         .learning_rate = "warmup:2ba,cosine",
                                         .microbatches = settings.microbatches,
                                         .eval_interval = settings.eval_interval};
        if (told) result.loggers = {told};
        if (algorithm) result.algorithms.push_back(*algorithm);
        return result;
    }

    sd::BasicResNet<float> model;
    sd::Sgd<float> optimizer;
    Trainer trainer;
    sd::CheckpointSaver<Trainer> saver;
};

/// The bytes of a folder's newest checkpoint.
inline std::string newest(const std::filesystem::path& directory) {
    const auto paths = sd::CheckpointDirectory(directory, 1).checkpoints();
    REQUIRE_FALSE(paths.empty());
    const auto bytes = sd::read_file(paths.back());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace sd_test
