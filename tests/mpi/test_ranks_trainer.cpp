// The trainer on several ranks: the same run as in one process, evaluations and scores included, and one that goes on
// with another number of ranks.
#include <doctest/doctest.h>

#include "largest_difference.hpp"
#include "messages.hpp"
#include "model_state.hpp"
#include "random.hpp"
#include "ranks.hpp"
#include "small_network.hpp"
#include "temporary_directory.hpp"

#include "sd/mpi/communicator.hpp"
#include "sd/training.hpp"
#include "sd/train/checkpoint_saver.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_ranks_trainer {

namespace {

using sd::Index;
using sd_test::largest_difference;
using sd_test::state_of;
using Model = sd::BasicResNet<double>;
using Loader = sd::PrefetchLoader<sd::InMemoryDataset, double>;
using Trainer = sd::Trainer<Model, Loader>;

constexpr std::uint64_t seed = sd_test::seed;

/// What happened in one batch, of all ranks: labels in order, and for each block the masks in order.
struct BatchRecord {
    std::uint64_t batch;
    std::vector<Index> labels;
    std::vector<std::vector<Index>> masks;

    friend bool operator==(const BatchRecord&, const BatchRecord&) = default;
};

/// The path, on all ranks, of a temporary folder that rank 0 makes and keeps.
std::string shared_folder(sd::Communicator& ranks, std::optional<sd_test::TemporaryDirectory>& folder) {
    std::string path;
    if (ranks.rank() == 0) path = folder.emplace().path().string();
    path.resize(1000);
    ranks.broadcast(std::span(path));
    return path.c_str();
}

/// The lists of all ranks, one after the other.
std::vector<Index> joined(const std::vector<Index>& own, sd::Communicator& communicator) {
    const auto ranks = static_cast<std::size_t>(communicator.size());
    const auto own_size = static_cast<Index>(own.size());
    std::vector<Index> sizes(ranks);
    communicator.all_gather(std::span<const Index>(&own_size, 1), std::span(sizes));
    const auto largest = static_cast<std::size_t>(*std::max_element(sizes.begin(), sizes.end()));
    std::vector<Index> padded = own, all(ranks * largest), list;
    padded.resize(largest);
    communicator.all_gather(std::span<const Index>(padded), std::span(all));
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        const auto first = all.begin() + static_cast<Index>(rank * largest);
        list.insert(list.end(), first, first + sizes[rank]);
    }
    return list;
}

/// Records every batch, and asks for a stop after one of them on the last rank alone.
struct Observer {
    std::vector<BatchRecord>* records;
    sd::Communicator* communicator;
    std::optional<std::uint64_t> stop_after = {};
    Trainer** trainer = nullptr;

    bool match(sd::Event event, const sd::State<double>&) const { return event == sd::Event::after_forward; }
    void apply(sd::Event, sd::State<double>& state, sd::Logger&) const {
        BatchRecord record{state.timestamp.batch, joined(state.part.labels, *communicator), {}};
        for (const sd::BlockView& block : state.model.blocks()) {
            record.masks.push_back(joined({block.mask->begin(), block.mask->end()}, *communicator));
        }
        records->push_back(record);
        const bool last = communicator->rank() == communicator->size() - 1;
        if (stop_after == state.timestamp.batch && last) (*trainer)->request_stop();
    }
};

/// What a run leaves.
struct Outcome {
    std::vector<BatchRecord> records;
    std::vector<double> state;
    sd::Score epoch_score, eval_score;
    sd::FitEnd end = sd::FitEnd::finished;
};

Loader make_loader(Index samples, Index first, sd::Communicator& ranks) {
    const auto images =
        std::make_shared<const sd::InMemoryDataset>(sd::synthetic_images(samples, 10, 8, 8, seed, first));
    return Loader(sd::DataLoader<sd::InMemoryDataset, double>(images, {.batch_size = 16,
                                                                       .seed = seed,
                                                                       .augmentation = sd::Augmentation{},
                                                                       .rank = ranks.rank(),
                                                                       .ranks = ranks.size()}));
}

/// Two epochs of 51 samples in batches of 16, 16, 16 and 3, or a part of them, in a folder of checkpoints or without.
Outcome run(sd::Communicator& ranks, const sd::StochasticDepthOptions& depth, const std::string& folder = {},
            std::optional<std::uint64_t> stop_after = {}, bool resume = false, bool synchronised = true) {
    Model model({.layers = {3, 3, 3}, .planes = {4, 8, 16}, .stem_channels = 4, .stem = sd::Stem::cifar},
                {.num_classes = 10, .seed = resume ? 0 : seed});
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 1e-3});
    Outcome outcome;
    Trainer* address = nullptr;
    Trainer trainer(
        model, optimizer, make_loader(51, 0, ranks), make_loader(35, 1000, ranks),
        {.max_duration = "2ep",
         .algorithms = {sd::StochasticDepth(depth, "0.5dur"), sd::LabelSmoothing(0.1), sd::GradientClipping(1),
                        sd::WeightAveraging({.decay = 0.5}), Observer{&outcome.records, &ranks, stop_after, &address}},
         .seed = seed,
         .learning_rate = "warmup:2ba,cosine",
         .communicator = &ranks,
         .data_parallel = {.synchronised_batch_norm = synchronised}});
    address = &trainer;
    std::optional<sd::CheckpointSaver<Trainer>> saver;
    if (!folder.empty()) saver.emplace(trainer, sd::CheckpointOptions{.directory = folder, .interval = "2ba"});
    const bool goes_on = !resume || saver->resume().has_value();  // what it throws is the caller's
    CHECK(goes_on);
    outcome.end = trainer.fit();
    outcome.state = state_of(model);
    outcome.epoch_score = trainer.state().epoch_score;
    outcome.eval_score = trainer.state().eval_score;
    return outcome;
}

void check_same_run(const Outcome& outcome, const Outcome& alone, std::size_t first_batch = 0) {
    REQUIRE(alone.records.size() == 8);
    CHECK(std::equal(outcome.records.begin(), outcome.records.end(),
                     alone.records.begin() + static_cast<Index>(first_batch), alone.records.end()));
    CHECK(largest_difference(outcome.state, alone.state) <= 1e-10);
    CHECK(outcome.end == sd::FitEnd::finished);
    CHECK(outcome.eval_score.samples == 35);
    CHECK(outcome.eval_score.correct == alone.eval_score.correct);
    CHECK(outcome.eval_score.correct_in_top5 == alone.eval_score.correct_in_top5);
    CHECK(outcome.eval_score.loss() == doctest::Approx(alone.eval_score.loss()).epsilon(1e-10));
}

const sd::StochasticDepthOptions survivors{.target_layer_name = "ResNetBasicBlock",
                                           .stochastic_method = sd::StochasticMethod::sample,
                                           .drop_rate = 0.8,
                                           .compute = sd::Compute::survivors};
const sd::StochasticDepthOptions blocks{.target_layer_name = "ResNetBasicBlock", .drop_rate = 0.6};

TEST_CASE("the trainer on several ranks makes the run of one process") {
    for (const auto& depth : {survivors, blocks}) {
        sd::Communicator alone;
        const Outcome expected = run(alone, depth);
        check_same_run(run(sd_test::ranks(), depth), expected);
    }
}

TEST_CASE("where each rank normalises by its own samples, all evaluate rank 0's running statistics") {
    sd::Communicator& ranks = sd_test::ranks();
    const Outcome outcome = run(ranks, survivors, {}, {}, false, false);
    CHECK(outcome.eval_score.samples == 35);
    std::vector<double> all(outcome.state.size() * static_cast<std::size_t>(ranks.size()));
    ranks.all_gather(std::span<const double>(outcome.state), std::span(all));
    for (std::size_t i = 0; i < all.size(); ++i) REQUIRE(all[i] == outcome.state[i % outcome.state.size()]);
}

TEST_CASE("a run of two ranks goes on with one and with four") {
    sd::Communicator& ranks = sd_test::ranks();
    if (ranks.size() != 4) return;
    sd::Communicator alone;
    const auto wait_for_all = [&] { joined({}, ranks); };
    sd_test::Warnings warnings;
    for (const auto& depth : {survivors, blocks}) {
        const Outcome expected = run(alone, depth);
        std::optional<sd_test::TemporaryDirectory> folder;
        const std::string path = shared_folder(ranks, folder);

        MPI_Comm pair = MPI_COMM_NULL;
        sd::mpi::check(MPI_Comm_split(MPI_COMM_WORLD, ranks.rank() < 2 ? 0 : 1, 0, &pair), "MPI_Comm_split");
        if (ranks.rank() < 2) {
            sd::MpiCommunicator two(pair);
            const Outcome begun = run(two, depth, path, 4);
            CHECK(begun.end == sd::FitEnd::stopped);
            CHECK(begun.records.size() == 5);
            CHECK(std::equal(begun.records.begin(), begun.records.end(), expected.records.begin()));
        }
        MPI_Comm_free(&pair);
        if (ranks.rank() == 0) std::filesystem::copy(path, path + "_one", std::filesystem::copy_options::recursive);
        wait_for_all();
        if (ranks.rank() == 0) check_same_run(run(alone, depth, path + "_one", {}, true), expected, 5);
        check_same_run(run(ranks, depth, path, {}, true), expected, 5);
        CHECK(std::none_of(warnings.messages.begin(), warnings.messages.end(),
                           [](const std::string& message) { return sd_test::contains(message, "other settings"); }));
        wait_for_all();
        if (ranks.rank() == 0) std::filesystem::remove_all(path + "_one");
    }
}

TEST_CASE("a run goes on with another number of ranks and other numbers: told where batch norm is not synchronised") {
    sd::Communicator& ranks = sd_test::ranks();
    if (ranks.size() != 4) return;
    sd_test::Warnings warnings;
    std::optional<sd_test::TemporaryDirectory> folder;
    const std::string path = shared_folder(ranks, folder);
    CHECK(run(ranks, survivors, path, 4, false, false).end == sd::FitEnd::stopped);
    if (ranks.rank() == 0) {
        warnings.messages.clear();
        sd::Communicator alone;
        CHECK(run(alone, survivors, path, {}, true, false).end == sd::FitEnd::finished);
        CHECK(std::any_of(warnings.messages.begin(), warnings.messages.end(), [](const std::string& message) {
            return sd_test::contains(message, "other settings: batch_norm_ranks: 1 instead of 4");
        }));
    }
    joined({}, ranks);
}

TEST_CASE("a run whose rank 0 finds no checkpoint does not start over if another rank has some") {
    sd::Communicator& ranks = sd_test::ranks();
    if (ranks.size() == 1) return;
    std::optional<sd_test::TemporaryDirectory> folder;
    const std::string path = shared_folder(ranks, folder);
    const std::string first = path + "/first", second = path + "/second";
    CHECK(run(ranks, survivors, first, 4).end == sd::FitEnd::stopped);
    const auto message = sd_test::error_of<std::runtime_error>(
        [&] { run(ranks, survivors, ranks.rank() == 0 ? second : first, {}, true); });
    CHECK(sd_test::contains(message, "checkpoints: got none where rank 0 runs, 3 where rank 1 runs"));
    joined({}, ranks);
}

/// Parameters after two epochs of 21 samples in batches of 5, 5, 5, 5 and 1, without batch norm.
std::vector<double> train_small(sd::Communicator& ranks, Index microbatches,
                                const std::vector<sd::Algorithm<double>>& algorithms) {
    sd_test::SmallNetwork<double> network;
    sd::Sgd<double> optimizer(network.parameters(), {.learning_rate = 0.05, .momentum = 0.9});
    const sd::DataLoader<sd::InMemoryDataset, double> loader(
        sd_test::small_images(21), {.batch_size = 5, .seed = 9, .rank = ranks.rank(), .ranks = ranks.size()});
    sd::Trainer trainer(network, optimizer, loader,
                        {.max_duration = "2ep",
                         .algorithms = algorithms,
                         .seed = seed,
                         .microbatches = microbatches,
                         .communicator = &ranks});
    trainer.fit();
    return network.numbers();
}

TEST_CASE("microbatches of several ranks give the update of the whole batch, where some of them are empty") {
    const sd_test::Warnings warnings;  // of the few blocks
    sd::Communicator alone;
    for (const auto method : {sd::StochasticMethod::sample, sd::StochasticMethod::block}) {
        const sd::StochasticDepth depth({.target_layer_name = "ConvBranch",
                                         .stochastic_method = method,
                                         .drop_rate = 0.7,
                                         .compute = sd::Compute::survivors});
        const std::vector<double> expected = train_small(alone, 1, {depth});
        for (const Index microbatches : {1, 2, 5}) {
            const std::vector<double> numbers = train_small(sd_test::ranks(), microbatches, {depth});
            CHECK(largest_difference(numbers, expected) <= 1e-12);
        }
    }
    for (const double number : train_small(sd_test::ranks(), 2, {sd::Mixup(0.5)})) CHECK(std::isfinite(number));
}

TEST_CASE("a batch that is not this rank's part is refused") {
    sd::Communicator& ranks = sd_test::ranks();
    if (ranks.size() == 1) return;
    sd::Communicator alone;
    Model model({.layers = {1}, .planes = {4}, .stem_channels = 4, .stem = sd::Stem::cifar}, {.num_classes = 10});
    sd::Sgd<double> optimizer(model.parameters());
    Trainer trainer(model, optimizer, make_loader(51, 0, alone), {.communicator = &ranks});
    const std::string message = sd_test::message_of([&] { trainer.fit(); });
    CHECK(message.starts_with("Trainer: samples of batch 0: got 16"));
}

}  // namespace

}  // namespace test_ranks_trainer
