// sd_demo: the same small bottleneck ResNet, trained plain, with whole blocks dropped, and with samples dropped, on
// images that the program makes itself.
//
//     sd_demo DIRECTORY      writes each run's metrics there
#include "sd/sd.hpp"
#include "sd/train/json_lines_logger.hpp"

#include <chrono>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using sd::Index;

constexpr std::uint64_t seed = 42;
constexpr int epochs = 6;
constexpr Index classes = 10;
constexpr Index train_images = 2048;
constexpr Index test_images = 1000;

using Images = std::shared_ptr<const sd::InMemoryDataset>;

struct Row {
    std::string name;
    double train_accuracy = 0;
    double test_accuracy = 0;
    double seconds_per_epoch = 0;
    double expected_depth = 0;
};

using Network = sd::BottleneckResNet<float>;

Network small_network() {
    return Network({.layers = {3, 3, 3},
                    .planes = {8, 16, 32},
                    .stem_channels = 16,
                    .stem = sd::Stem::cifar,
                    .shortcut = sd::ShortcutKind::projection},
                   {.num_classes = classes, .seed = seed});
}

/// An algorithm that adds up how long the training of epochs takes, without evaluation.
struct Stopwatch {
    double* seconds;

    [[nodiscard]] bool match(sd::Event event, const sd::State<float>&) const {
        return event == sd::Event::epoch_start || event == sd::Event::epoch_end;
    }
    void apply(sd::Event event, sd::State<float>&, sd::Logger&) const {
        const double now = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
        *seconds += event == sd::Event::epoch_end ? now : -now;
    }
};

/// The mean number of branches that a sample passes in training: the sum of 1 - p over all blocks.
double expected_depth(const Network& model) {
    double depth = 0;
    for (const auto& block : model.blocks()) depth += 1 - block.policy().drop_rate();
    return depth;
}

/// Trains a network with the algorithms given. Its metrics go to NAME.jsonl in the directory.
Row train(const std::string& name, std::vector<sd::Algorithm<float>> algorithms, const Images& train_set,
          const Images& test_set, const std::filesystem::path& directory) {
    Row row{.name = name};
    Network model = small_network();
    const sd::PrefetchLoader loader(sd::DataLoader(train_set, {.batch_size = 64, .shuffle = true, .seed = seed}));
    const sd::PrefetchLoader in_order(sd::DataLoader(train_set, {.batch_size = 250, .shuffle = false}));
    const sd::PrefetchLoader test_loader(sd::DataLoader(test_set, {.batch_size = 250, .shuffle = false}));
    sd::Sgd<float> optimizer(model.parameters(),
                             {.learning_rate = 0.03, .momentum = 0.9, .weight_decay = 1e-4, .nesterov = true});
    double seconds = 0;
    algorithms.emplace_back(Stopwatch{&seconds});
    std::cout << '\n' << name << ": " << std::flush;
    sd::Trainer trainer(model, optimizer, loader, test_loader,
                        {.max_duration = {epochs, sd::TimeUnit::epoch},
                         .algorithms = std::move(algorithms),
                         .seed = seed,
                         .learning_rate = "multistep:4ep:0.1",
                         .loggers = {std::make_shared<sd::ConsoleLogger>(),
                                     std::make_shared<sd::JsonLinesLogger>(directory / (name + ".jsonl"))}});
    trainer.fit();
    row.train_accuracy = sd::Trainer(model, optimizer, loader, in_order, {}).evaluate().accuracy();
    row.test_accuracy = trainer.state().eval_score.accuracy();
    row.seconds_per_epoch = seconds / epochs;
    row.expected_depth = expected_depth(model);
    return row;
}

void print(const std::vector<Row>& rows, double blocks) {
    std::cout << '\n'
              << std::setw(14) << std::left << "training" << std::right << std::setw(16) << "train accuracy"
              << std::setw(16) << "test accuracy" << std::setw(14) << "s an epoch" << std::setw(18) << "expected depth"
              << '\n';
    for (const Row& row : rows) {
        std::cout << std::setw(14) << std::left << row.name << std::right << std::fixed << std::setprecision(1)
                  << std::setw(14) << 100 * row.train_accuracy << " %" << std::setw(14) << 100 * row.test_accuracy
                  << " %" << std::setw(14) << std::setprecision(2) << row.seconds_per_epoch << std::setw(10)
                  << row.expected_depth << " of " << std::setprecision(0) << blocks << '\n';
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: sd_demo DIRECTORY\n";
        return 2;
    }
    try {
        const std::filesystem::path directory = argv[1];
        std::filesystem::create_directories(directory);
        const auto train_set =
            std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(train_images, classes, 32, 32, seed));
        const auto test_set = std::make_shared<sd::InMemoryDataset>(
            sd::synthetic_images(test_images, classes, 32, 32, seed, train_images));
        std::cout << "a bottleneck ResNet of 9 blocks on " << train_images << " synthetic images of " << classes
                  << " classes, seed " << seed << ", " << sd::num_threads() << " threads\n";
        std::vector<Row> rows{train("plain", {}, train_set, test_set, directory)};
        for (const auto method : {sd::StochasticMethod::block, sd::StochasticMethod::sample}) {
            const sd::StochasticDepthOptions options{.stochastic_method = method, .drop_rate = 0.3};
            rows.push_back(train(sd::to_string(method) + "-wise", {sd::StochasticDepth(options, "1ep")}, train_set,
                                 test_set, directory));
        }
        print(rows, 9);
    } catch (const std::exception& error) {
        std::cerr << "demo: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
