// sd_bench_ranks: training steps on several processes, and what of them is communication. Variants take turns, a step
// each, so that what else the machine does falls on all of them alike.
#include "networks.hpp"

#include "sd/mpi/session.hpp"
#include "sd/train/data_parallel.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <iomanip>
#include <iostream>
#include <span>
#include <string>
#include <vector>

namespace {

using sd::Index;

struct Settings {
    std::string model = "resnet50";
    Index batch = 16;
    Index size = 224;
    Index steps = 7;
    Index ranks = 1;
};

/// A way to train together.
struct Variant {
    std::string name;
    sd::DataParallelOptions options;
};

double median(std::vector<double> numbers) {
    std::nth_element(numbers.begin(), numbers.begin() + static_cast<Index>(numbers.size() / 2), numbers.end());
    return numbers[numbers.size() / 2];
}

/// The largest of the ranks' numbers.
double largest(double own, sd::Communicator& ranks) {
    std::vector<double> all(static_cast<std::size_t>(ranks.size()));
    ranks.all_gather(std::span<const double>(&own, 1), std::span(all));
    return *std::max_element(all.begin(), all.end());
}

template <class Model>
void measure(Model& model, const Settings& settings, sd::Communicator& ranks) {
    const std::array variants{
        Variant{"overlap", {.gradients = {.overlap = true}}},
        Variant{"at the end", {.gradients = {.overlap = false}}},
        Variant{"at the end, synchronised batch norm",
                {.synchronised_batch_norm = true, .gradients = {.overlap = false}}},
    };
    const sd::BatchPart part = sd::part_of_rank(settings.batch, ranks.rank(), ranks.size());
    const auto images = sd::Tensor<float>::full({part.count, settings.size, settings.size, 3}, 0.5F);
    const std::vector<Index> labels(static_cast<std::size_t>(part.count), 1);
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 1e-4, .momentum = 0.9});
    struct Figures {
        std::vector<double> seconds, communication, bytes;
    };
    std::array<Figures, variants.size()> figures;
    const auto now = [] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    };
    for (Index step = 0; step <= settings.steps; ++step) {  // the first one warms up
        for (std::size_t i = 0; i < variants.size(); ++i) {
            sd::DataParallel parallel(model, ranks, variants[i].options);
            largest(0, ranks);  // all begin together
            const sd::Traffic before = ranks.traffic();
            const double start = now();
            optimizer.zero_grad();
            const auto context =
                parallel.context({.step = static_cast<std::uint64_t>(step), .seed = 0}, settings.batch);
            const auto logits = model.forward(images, context);
            const auto dlogits = sd::cross_entropy_by_input(logits, std::span<const Index>(labels), 0.0);
            parallel.backward([&] { model.backward(parallel.share(dlogits), sd::InputGradient::skipped); });
            optimizer.step();
            const double seconds = now() - start;
            const sd::Traffic after = ranks.traffic();
            const double slowest = largest(seconds, ranks);
            if (step == 0) continue;
            figures[i].seconds.push_back(slowest);
            figures[i].communication.push_back(after.seconds - before.seconds);
            figures[i].bytes.push_back(static_cast<double>(after.bytes_sent - before.bytes_sent));
        }
    }
    std::cout << settings.model << ", batch " << settings.batch << " over " << ranks.size() << " ranks of "
              << sd::num_threads() << " threads, size " << settings.size << ", medians of " << settings.steps
              << " steps\n";
    for (std::size_t i = 0; i < variants.size(); ++i) {
        const Figures& of = figures[i];
        std::cout << std::fixed << std::setprecision(1) << std::setw(8)
                  << static_cast<double>(settings.batch) / median(of.seconds) << " images/s" << std::setw(9)
                  << 1e3 * median(of.seconds) << " ms a step" << std::setw(9) << 1e3 * median(of.communication)
                  << " ms in communication" << std::setw(9) << median(of.bytes) / 1e6 << " MB sent    "
                  << variants[i].name << '\n';
    }
}

int run(int argc, char** argv, sd::Communicator& ranks) {
    CLI::App app{"Measures training steps on several processes."};
    Settings settings;
    app.add_option("--model", settings.model)->check(CLI::IsMember(tools::network_names()))->capture_default_str();
    app.add_option("--batch", settings.batch, "over all ranks")->check(CLI::Range(1, 1 << 20))->capture_default_str();
    app.add_option("--size", settings.size, "of images")->check(CLI::Range(1, 4096))->capture_default_str();
    app.add_option("--ranks", settings.ranks, "for ./run, which starts the processes")->capture_default_str();
    app.add_option("--steps", settings.steps, "of each variant")->check(CLI::Range(1, 10000))->capture_default_str();
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return ranks.rank() == 0 ? app.exit(error) : error.get_exit_code();
    }
    if (ranks.rank() != 0) std::cout.setstate(std::ios::failbit);
    tools::with_network<float>(settings.model, {.num_classes = settings.size > 64 ? 1000 : 10},
                               [&](auto& model) { measure(model, settings, ranks); });
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    return sd::run_ranks(argc, argv, [&](sd::Communicator& ranks) { return run(argc, argv, ranks); });
}
