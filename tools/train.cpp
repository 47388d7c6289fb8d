// sd_train: trains a residual network with stochastic depth from the command line.
#include "datasets.hpp"
#include "networks.hpp"
#include "training.hpp"

#include "sd/io/state_dict.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <fstream>
#include <iomanip>
#include <iostream>
#include <limits>
#include <optional>
#include <unistd.h>

namespace {

using Json = nlohmann::json;
using sd::Index;

struct Settings {
    std::string data = "synthetic";
    Index image_size = 224;
    std::string model = "cifar_resnet20";
    Index epochs = 3;
    Index batch_size = 128;
    double learning_rate = 0.1;
    double momentum = 0.9;
    double weight_decay = 1e-4;
    std::string stochastic_method = "none";
    std::string compute = "all";
    std::string scaling = "inference";
    double drop_rate = 0.2;
    std::string drop_distribution = "linear";
    std::uint64_t seed = 42;
    int threads = 0;
    Index workers = sd::PrefetchOptions{}.workers;
    Index max_batches = 0;
    std::string metrics;
    std::string weights;
    std::string save;
};

void add_options(CLI::App& app, Settings& settings) {
    const auto at_least = [](auto least) { return CLI::Range(least, std::numeric_limits<decltype(least)>::max()); };
    const auto finite = [](double least) {
        return CLI::Validator(
            [least](const std::string& value) -> std::string {
                double number = 0;
                const bool sound = CLI::detail::lexical_cast(value, number) && number >= least &&
                                   number <= std::numeric_limits<double>::max();
                return sound ? std::string() : sd::text(value, " is not a finite number of ", least, " or more");
            },
            sd::text("NUMBER >= ", least));
    };
    const auto rate = CLI::Validator(
        [](const std::string& value) -> std::string {
            double number = 0;
            const bool sound = CLI::detail::lexical_cast(value, number) && number >= 0 && number <= 1;
            return sound ? std::string() : value + " is not a number from 0 to 1";
        },
        "0..1");
    const auto data = CLI::Validator(
        [](const std::string& value) {
            return tools::is_data_name(value) ? std::string() : value + " is none of " + tools::data_names();
        },
        tools::data_names());
    app.add_option("--data", settings.data, "what to train on")->check(data)->capture_default_str();
    app.add_option("--image-size", settings.image_size, "side of the squares cut from a folder's images")
        ->check(CLI::Range(Index{1}, Index{8192}))
        ->capture_default_str();
    app.add_option("--model", settings.model)->check(CLI::IsMember(tools::network_names()))->capture_default_str();
    app.add_option("--epochs", settings.epochs)->check(at_least(Index{1}))->capture_default_str();
    app.add_option("--batch-size", settings.batch_size)
        ->check(CLI::Range(Index{1}, Index{1} << 20))
        ->capture_default_str();
    app.add_option("--learning-rate", settings.learning_rate)->check(finite(0))->capture_default_str();
    app.add_option("--momentum", settings.momentum)->check(finite(0))->capture_default_str();
    app.add_option("--weight-decay", settings.weight_decay)->check(finite(0))->capture_default_str();
    app.add_option("--stochastic-method", settings.stochastic_method)
        ->check(CLI::IsMember({"none", "block", "sample"}))
        ->capture_default_str();
    app.add_option("--compute", settings.compute, "what sample-wise branches compute")
        ->check(CLI::IsMember({"all", "survivors"}))
        ->capture_default_str();
    app.add_option("--scaling", settings.scaling)->check(CLI::IsMember({"inference", "train"}))->capture_default_str();
    app.add_option("--drop-rate", settings.drop_rate)->check(rate)->capture_default_str();
    app.add_option("--drop-distribution", settings.drop_distribution)
        ->check(CLI::IsMember({"uniform", "linear", "linear_huang"}))
        ->capture_default_str();
    app.add_option("--seed", settings.seed)->capture_default_str();
    app.add_option("--threads", settings.threads, "0: as many as there are")
        ->check(CLI::Range(0, 4096))
        ->capture_default_str();
    app.add_option("--workers", settings.workers, "threads that load batches ahead")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    app.add_option("--max-batches", settings.max_batches, "training batches an epoch; 0: all")
        ->check(at_least(Index{0}))
        ->capture_default_str();
    app.add_option("--metrics", settings.metrics, "JSON lines, one a batch and one an epoch");
    app.add_option("--weights", settings.weights, "safetensors file to start from, with torchvision's names");
    app.add_option("--save", settings.save, "safetensors file for the weights, written after each epoch");
}

template <class Model>
void make_stochastic(Model& model, const Settings& settings) {
    if (settings.stochastic_method == "none") return;
    sd::apply_stochastic_depth(model, {.target_layer_name = std::string(Model::Branch::layer_name),
                                       .stochastic_method = sd::parse<sd::StochasticMethod>(settings.stochastic_method),
                                       .drop_rate = settings.drop_rate,
                                       .drop_distribution = sd::parse<sd::DropDistribution>(settings.drop_distribution),
                                       .compute = sd::parse<sd::Compute>(settings.compute),
                                       .scaling = sd::parse<sd::Scaling>(settings.scaling)});
}

/// One JSON object a line, to a file or to nowhere.
class Metrics {
public:
    explicit Metrics(const std::string& path) {
        if (path.empty()) return;
        file_.emplace(path);
        if (!*file_) throw std::runtime_error(path + ": cannot be opened for writing");
    }
    void write(const Json& line) {
        if (file_ && !(*file_ << line.dump() << '\n' << std::flush)) throw std::runtime_error("metrics: write failed");
    }

private:
    std::optional<std::ofstream> file_;
};

template <class Model>
void train(Model& model, const tools::Data& data, const Settings& settings) {
    if (!settings.weights.empty()) sd::load_weights(model, settings.weights);
    make_stochastic(model, settings);
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = settings.learning_rate,
                                                  .momentum = settings.momentum,
                                                  .weight_decay = settings.weight_decay});
    const sd::PrefetchOptions prefetch{.workers = settings.workers};
    const sd::PrefetchLoader train_loader(sd::DataLoader(data.train, {.batch_size = settings.batch_size,
                                                                      .shuffle = true,
                                                                      .seed = settings.seed,
                                                                      .augmentation = data.augmentation}),
                                          prefetch);
    const sd::PrefetchLoader test_loader(
        sd::DataLoader(data.test, {.batch_size = settings.batch_size, .shuffle = false}), prefetch);
    Metrics metrics(settings.metrics);
    std::cout << settings.model << ", " << model.parameter_count() << " parameters, " << model.blocks().size()
              << " blocks, expected depth " << std::setprecision(4) << tools::expected_depth(model) << ", "
              << data.train->size() << " training images, " << sd::num_threads() << " threads" << std::endl;

    if (settings.stochastic_method != "none") std::cout << sd::describe(model, settings.batch_size);

    const bool live = isatty(STDOUT_FILENO) != 0;
    std::uint64_t step = 0;
    for (Index epoch = 0; epoch < settings.epochs; ++epoch) {
        const auto report = [&](const tools::BatchReport& batch) {
            metrics.write({{"event", "batch"},
                           {"epoch", epoch},
                           {"step", batch.step},
                           {"loss", batch.loss},
                           {"accuracy", batch.accuracy}});
            if (live) {
                std::cout << "\repoch " << epoch + 1 << "  batch " << batch.batch + 1 << '/' << batch.batches
                          << "  loss " << std::fixed << std::setprecision(4) << batch.loss << std::defaultfloat << "   "
                          << std::flush;
            }
        };
        const tools::Score trained = tools::train_epoch(model, optimizer, train_loader, epoch, settings.seed, step,
                                                        settings.max_batches, report);
        const tools::Score tested = tools::evaluate(model, test_loader);
        if (!settings.save.empty()) sd::save_weights(model, settings.save);
        metrics.write({{"event", "epoch"},
                       {"epoch", epoch},
                       {"step", step},
                       {"train_loss", trained.loss},
                       {"train_accuracy", trained.accuracy},
                       {"test_loss", tested.loss},
                       {"test_accuracy", tested.accuracy},
                       {"seconds", trained.seconds}});
        std::cout << (live ? "\r" : "") << "epoch " << epoch + 1 << '/' << settings.epochs << std::fixed
                  << std::setprecision(4) << "  train loss " << trained.loss << "  train accuracy "
                  << std::setprecision(2) << 100 * trained.accuracy << " %  test loss " << std::setprecision(4)
                  << tested.loss << "  test accuracy " << std::setprecision(2) << 100 * tested.accuracy << " %  "
                  << std::setprecision(1) << trained.seconds << " s  "
                  << static_cast<double>(trained.samples) / trained.seconds << " images/s" << std::defaultfloat
                  << std::endl;
    }
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"Trains a residual network with stochastic depth."};
    app.name("train");
    Settings settings;
    add_options(app, settings);
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp& help) {
        return app.exit(help);
    } catch (const CLI::ParseError& error) {
        std::cerr << "train: " << error.what() << '\n';
        return 2;
    }
    try {
        if (settings.threads > 0) sd::set_num_threads(settings.threads);
        const tools::Data data = tools::load_data(settings.data, settings.seed, settings.image_size);
        const sd::ResNetOptions options{.num_classes = data.train->num_classes(),
                                        .seed = settings.seed,
                                        .in_channels = data.train->image_shape()[2]};
        tools::with_network<float>(settings.model, options, [&](auto& model) { train(model, data, settings); });
    } catch (const std::invalid_argument& error) {
        std::cerr << "train: " << error.what() << '\n';
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "train: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
