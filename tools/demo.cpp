// sd_demo: the same small bottleneck ResNet, trained plain, with whole blocks dropped, and with samples dropped, on
// images that the program makes itself.
#include "training.hpp"

#include <iomanip>
#include <iostream>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

using sd::Index;

constexpr std::uint64_t seed = 42;
constexpr Index epochs = 6;
constexpr Index classes = 10;
constexpr Index train_images = 2048;
constexpr Index test_images = 1000;

struct Row {
    std::string name;
    tools::Score train = {};
    tools::Score test = {};
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

Row train(const std::string& name, Network model, const std::shared_ptr<const sd::InMemoryDataset>& train_set,
          const std::shared_ptr<const sd::InMemoryDataset>& test_set) {
    const sd::PrefetchLoader loader(sd::DataLoader(train_set, {.batch_size = 64, .shuffle = true, .seed = seed}));
    const sd::PrefetchLoader in_order(sd::DataLoader(train_set, {.batch_size = 250, .shuffle = false}));
    const sd::PrefetchLoader test_loader(sd::DataLoader(test_set, {.batch_size = 250, .shuffle = false}));
    sd::Sgd<float> optimizer(model.parameters(),
                             {.learning_rate = 0.03, .momentum = 0.9, .weight_decay = 1e-4, .nesterov = true});
    const bool live = isatty(STDOUT_FILENO) != 0;
    Row row{.name = name};
    row.expected_depth = tools::expected_depth(model);
    std::uint64_t step = 0;
    for (Index epoch = 0; epoch < epochs; ++epoch) {
        if (epoch == epochs - 2) optimizer.set_learning_rate(0.003);
        const auto report = [&](const tools::BatchReport& batch) {
            if (!live) return;
            std::cout << '\r' << std::setw(11) << std::left << name << " epoch " << epoch + 1 << '/' << epochs
                      << "  batch " << batch.batch + 1 << '/' << batch.batches << "  loss " << std::fixed
                      << std::setprecision(4) << batch.loss << "   " << std::flush;
        };
        const tools::Score trained = tools::train_epoch(model, optimizer, loader, epoch, seed, step, 0, report);
        row.seconds_per_epoch += trained.seconds / epochs;
        if (!live) {
            std::cout << std::setw(11) << std::left << name << " epoch " << epoch + 1 << '/' << epochs << "  loss "
                      << std::fixed << std::setprecision(4) << trained.loss << std::endl;
        }
    }
    if (live) std::cout << "\r" << std::string(70, ' ') << "\r";
    row.train = tools::evaluate(model, in_order);
    row.test = tools::evaluate(model, test_loader);
    return row;
}

void print(const std::vector<Row>& rows, double blocks) {
    std::cout << '\n'
              << std::setw(14) << std::left << "training" << std::right << std::setw(16) << "train accuracy"
              << std::setw(16) << "test accuracy" << std::setw(14) << "s an epoch" << std::setw(18) << "expected depth"
              << '\n';
    for (const Row& row : rows) {
        std::cout << std::setw(14) << std::left << row.name << std::right << std::fixed << std::setprecision(1)
                  << std::setw(14) << 100 * row.train.accuracy << " %" << std::setw(14) << 100 * row.test.accuracy
                  << " %" << std::setw(14) << std::setprecision(2) << row.seconds_per_epoch << std::setw(10)
                  << row.expected_depth << " of " << std::setprecision(0) << blocks << '\n';
    }
}

}  // namespace

int main() {
    try {
        const auto train_set =
            std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(train_images, classes, 32, 32, seed));
        const auto test_set = std::make_shared<sd::InMemoryDataset>(
            sd::synthetic_images(test_images, classes, 32, 32, seed, train_images));
        std::cout << "a bottleneck ResNet of 9 blocks on " << train_images << " synthetic images of " << classes
                  << " classes, seed " << seed << ", " << sd::num_threads() << " threads\n";
        std::vector<Row> rows;
        rows.push_back(train("plain", small_network(), train_set, test_set));
        for (const auto method : {sd::StochasticMethod::block, sd::StochasticMethod::sample}) {
            Network model = small_network();
            sd::apply_stochastic_depth(model, {.stochastic_method = method, .drop_rate = 0.3});
            rows.push_back(train(sd::to_string(method) + "-wise", std::move(model), train_set, test_set));
        }
        print(rows, 9);
    } catch (const std::exception& error) {
        std::cerr << "demo: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
