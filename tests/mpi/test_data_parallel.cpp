// Training on several ranks against training in one process: a plain loop, which knows nothing of ranks.
#include "../user_policy.hpp"

#include <doctest/doctest.h>

#include "largest_difference.hpp"
#include "model_state.hpp"
#include "random.hpp"
#include "ranks.hpp"

#include "sd/training.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

namespace test_data_parallel {

namespace {

using sd::Index;
using sd_test::largest_difference;
using sd_test::state_of;
using Model = sd::BasicResNet<double>;
using Loader = sd::DataLoader<sd::InMemoryDataset, double>;

constexpr std::uint64_t seed = sd_test::seed;

struct Setting {
    std::optional<sd::StochasticDepthOptions> depth;
    Index batch_size = 64;
    Index samples = 640;  ///< in the data set
    std::uint64_t steps = 10;
    sd::ShortcutKind shortcut = sd::ShortcutKind::pad;
};

Model make_model(const Setting& setting, std::uint64_t model_seed = seed) {
    Model model({.layers = {3, 3, 3},
                 .planes = {8, 16, 32},
                 .stem_channels = 8,
                 .stem = sd::Stem::cifar,
                 .shortcut = setting.shortcut},
                {.num_classes = 10, .seed = model_seed});
    if (setting.depth) sd::apply_stochastic_depth(model, *setting.depth);
    return model;
}

Loader make_loader(const Setting& setting, Index rank = 0, Index ranks = 1) {
    static const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(640, 10, 8, 8, seed));
    auto part = images;
    if (setting.samples != 640) {
        part = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(setting.samples, 10, 8, 8, seed));
    }
    return Loader(std::shared_ptr<const sd::InMemoryDataset>(part), {.batch_size = setting.batch_size,
                                                                     .seed = seed,
                                                                     .augmentation = sd::Augmentation{},
                                                                     .rank = rank,
                                                                     .ranks = ranks});
}

sd::Sgd<double> make_optimizer(Model& model) {
    return sd::Sgd<double>(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 1e-3});
}

/// What a run leaves, for each step and block.
struct Run {
    std::vector<sd::Mask> masks;
    std::vector<bool> has_gradient;
};

void record(Model& model, Run& run) {
    for (auto& block : model.blocks()) {
        run.masks.push_back(block.mask());
        sd::for_each_parameter(block.branch(), [&](const std::string&, const auto& parameter) {
            run.has_gradient.push_back(parameter->has_grad);
        });
    }
}

/// Training on all ranks.
Run train(Model& model, const Setting& setting, const sd::DataParallelOptions& options) {
    sd::Communicator& ranks = sd_test::ranks();
    sd::DataParallel parallel(model, ranks, options);
    auto optimizer = make_optimizer(model);
    const Loader loader = make_loader(setting, ranks.rank(), ranks.size());
    Run run;
    for (std::uint64_t step = 0; step < setting.steps; ++step) {
        const auto batches = static_cast<std::uint64_t>(loader.batches());
        const auto batch = loader.load(static_cast<Index>(step / batches), static_cast<Index>(step % batches));
        optimizer.zero_grad();
        const auto logits = model.forward(batch.images, parallel.context({.step = step, .seed = seed}, batch.samples));
        const auto dlogits = sd::cross_entropy_by_input(logits, std::span<const Index>(batch.labels), 0.1);
        parallel.backward([&] { model.backward(parallel.share(dlogits), sd::InputGradient::skipped); });
        record(model, run);
        optimizer.step();
    }
    return run;
}

/// The same steps in this process alone, each rank's part of a batch as a microbatch of its own: what training on all
/// ranks is where each normalises by its own samples. Running statistics see all parts.
Run train_by_microbatches(Model& model, const Setting& setting) {
    auto optimizer = make_optimizer(model);
    const Index ranks = sd_test::ranks().size();
    Run run;
    for (std::uint64_t step = 0; step < setting.steps; ++step) {
        optimizer.zero_grad();
        for (Index rank = 0; rank < ranks; ++rank) {
            const Loader loader = make_loader(setting, rank, ranks);
            const auto batches = static_cast<std::uint64_t>(loader.batches());
            const auto batch = loader.load(static_cast<Index>(step / batches), static_cast<Index>(step % batches));
            if (batch.labels.empty()) continue;
            const sd::BatchPart part = sd::part_of_rank(batch.samples, rank, ranks);
            const auto logits =
                model.forward(batch.images, sd::Context::train({.step = step,
                                                                .seed = seed,
                                                                .sample_offset = static_cast<std::uint64_t>(part.first),
                                                                .rank = static_cast<std::uint32_t>(rank)}));
            auto dlogits = sd::cross_entropy_by_input(logits, std::span<const Index>(batch.labels), 0.1);
            for (double& value : dlogits) value *= static_cast<double>(part.count) / static_cast<double>(batch.samples);
            model.backward(dlogits, sd::InputGradient::skipped);
        }
        record(model, run);
        optimizer.step();
    }
    return run;
}

/// Training in this process alone. If ranks draw block-wise masks of their own, a batch has several: they are given,
/// and block-wise dropping of a part of the batch is sample-wise dropping with equal masks, computed for survivors.
Run train_alone(Model& model, const Setting& setting) {
    auto optimizer = make_optimizer(model);
    const Loader loader = make_loader(setting);
    const bool several_masks = setting.depth && setting.depth->stochastic_method == sd::StochasticMethod::block &&
                               !setting.depth->use_same_gpu_seed;
    const Index ranks = sd_test::ranks().size();
    Run run;
    for (std::uint64_t step = 0; step < setting.steps; ++step) {
        const auto batches = static_cast<std::uint64_t>(loader.batches());
        const auto batch = loader.load(static_cast<Index>(step / batches), static_cast<Index>(step % batches));
        for (std::size_t i = 0; several_masks && i < model.blocks().size(); ++i) {
            auto& block = model.blocks()[i];
            const double rate = block.policy().drop_rate();
            block.set_policy(sd::SamplePolicy{.drop_rate = rate, .compute = sd::Compute::survivors});
            sd::Mask mask(static_cast<std::size_t>(batch.samples));
            for (Index rank = 0; rank < ranks; ++rank) {
                const sd::BatchPart part = sd::part_of_rank(batch.samples, rank, ranks);
                const bool keep =
                    sd::keeps_branch(rate, seed, step, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(rank));
                std::fill_n(mask.begin() + part.first, part.count, keep ? 1 : 0);
            }
            block.set_mask(mask);
        }
        optimizer.zero_grad();
        const auto logits = model.forward(batch.images, sd::Context::train({.step = step, .seed = seed}));
        const auto dlogits = sd::cross_entropy_by_input(logits, std::span<const Index>(batch.labels), 0.1);
        model.backward(dlogits, sd::InputGradient::skipped);
        record(model, run);
        optimizer.step();
    }
    return run;
}

/// Whether all ranks have the same bits.
bool same_on_all_ranks(const std::vector<double>& own) {
    sd::Communicator& ranks = sd_test::ranks();
    std::vector<double> all(own.size() * static_cast<std::size_t>(ranks.size()));
    ranks.all_gather(std::span<const double>(own), std::span(all));
    for (std::size_t first = 0; first < all.size(); first += own.size()) {
        if (std::memcmp(all.data() + first, own.data(), own.size() * sizeof(double)) != 0) return false;
    }
    return true;
}

/// Blocks and steps in which this rank lost its whole part, and some rank kept something.
Index lost_here_alone(const Run& run, const Run& alone) {
    Index count = 0;
    for (std::size_t i = 0; i < run.masks.size(); ++i) {
        const bool here = std::count(run.masks[i].begin(), run.masks[i].end(), 1) == 0;
        const bool everywhere = std::count(alone.masks[i].begin(), alone.masks[i].end(), 1) == 0;
        if (here && !everywhere) ++count;
    }
    return count;
}

/// Runs both and compares; returns how often a rank, whichever, lost its whole part of a block alone.
Index check_as_one_process(const Setting& setting) {
    sd::Communicator& ranks = sd_test::ranks();
    // the start values of other ranks are rank 0's, whatever they were
    Model model = make_model(setting, seed + static_cast<std::uint64_t>(ranks.rank()));
    const Run run = train(model, setting, {.synchronised_batch_norm = true});
    Model other = make_model(setting);
    const Run alone = train_alone(other, setting);

    Index steps_and_blocks = 0;
    for (std::size_t i = 0; i < run.masks.size(); ++i) {
        const auto samples = static_cast<Index>(alone.masks[i].size());
        const sd::BatchPart part = sd::part_of_rank(samples, ranks.rank(), ranks.size());
        REQUIRE(static_cast<Index>(run.masks[i].size()) == part.count);
        CHECK(std::equal(run.masks[i].begin(), run.masks[i].end(), alone.masks[i].begin() + part.first));
        ++steps_and_blocks;
    }
    CHECK(steps_and_blocks == static_cast<Index>(setting.steps) * 9);
    CHECK(run.has_gradient == alone.has_gradient);
    const std::vector<double> state = state_of(model);
    const double difference = largest_difference(state, state_of(other));
    CHECK(difference <= 1e-10);
    CHECK(same_on_all_ranks(state));
    const Index own = lost_here_alone(run, alone);
    std::vector<Index> lost(static_cast<std::size_t>(ranks.size()));
    ranks.all_gather(std::span<const Index>(&own, 1), std::span(lost));
    if (ranks.rank() == 0) {
        MESSAGE("largest difference ", difference, "; blocks that a rank lost alone ",
                *std::max_element(lost.begin(), lost.end()));
    }
    return *std::max_element(lost.begin(), lost.end());
}

sd::StochasticDepthOptions depth(sd::StochasticMethod method, double rate, sd::Compute compute = sd::Compute::all,
                                 bool same = true) {
    return {.target_layer_name = "ResNetBasicBlock",
            .stochastic_method = method,
            .drop_rate = rate,
            .use_same_gpu_seed = same,
            .compute = compute};
}

std::vector<double> parameters_of(Model& model) {
    std::vector<double> all;
    sd::for_each_parameter(model, [&](const std::string&, const auto& parameter) {
        all.insert(all.end(), parameter->value.begin(), parameter->value.end());
    });
    return all;
}

void check_as_microbatches(const Setting& setting) {
    Model model = make_model(setting);
    const Run run = train(model, setting, {});
    Model other = make_model(setting);
    const Run alone = train_by_microbatches(other, setting);
    CHECK(run.has_gradient == alone.has_gradient);
    const double difference = largest_difference(parameters_of(model), parameters_of(other));
    CHECK(difference <= 1e-10);
    CHECK(same_on_all_ranks(parameters_of(model)));
    sd::Communicator& ranks = sd_test::ranks();
    CHECK(same_on_all_ranks(state_of(model)) == (ranks.size() == 1));  // running statistics differ until they are sent
    sd::broadcast_buffers(model, ranks);
    CHECK(same_on_all_ranks(state_of(model)));
}

TEST_CASE("as one process: plain") { check_as_one_process({}); }

TEST_CASE("as one process: sample-wise, all samples computed") {
    const Index lost = check_as_one_process({.depth = depth(sd::StochasticMethod::sample, 0.95)});
    CHECK((lost > 0 || sd_test::ranks().size() < 3));
}

TEST_CASE("as one process: sample-wise, survivors computed") {
    const Index lost =
        check_as_one_process({.depth = depth(sd::StochasticMethod::sample, 0.95, sd::Compute::survivors)});
    CHECK((lost > 0 || sd_test::ranks().size() < 3));
}

TEST_CASE("as one process: block-wise, the same blocks on all ranks") {
    for (const auto shortcut : {sd::ShortcutKind::pad, sd::ShortcutKind::projection}) {
        check_as_one_process({.depth = depth(sd::StochasticMethod::block, 0.6), .shortcut = shortcut});
    }
}

TEST_CASE("as one process: block-wise, each rank its own blocks") {
    for (const auto shortcut : {sd::ShortcutKind::pad, sd::ShortcutKind::projection}) {
        const Index lost = check_as_one_process(
            {.depth = depth(sd::StochasticMethod::block, 0.6, sd::Compute::all, false), .shortcut = shortcut});
        CHECK((lost > 0 || sd_test::ranks().size() == 1));
    }
}

TEST_CASE("as one process: a user's policy") {
    sd::register_policy<sd_test::AlternatePolicy>();
    // a batch of one sample a rank: a rank's sample is dropped or kept by its place in the whole batch
    for (const Index batch_size : {8, 3}) {
        check_as_one_process({.depth = sd::StochasticDepthOptions{.policy = "alternate", .drop_rate = 0.5},
                              .batch_size = batch_size,
                              .samples = 12});
    }
}

TEST_CASE("as one process: uneven batches, and fewer samples than ranks") {
    for (const auto compute : {sd::Compute::all, sd::Compute::survivors}) {
        // 23 samples in batches of 10, 10 and 3
        check_as_one_process(
            {.depth = depth(sd::StochasticMethod::sample, 0.5, compute), .batch_size = 10, .samples = 23, .steps = 6});
    }
    check_as_one_process({.depth = depth(sd::StochasticMethod::block, 0.6, sd::Compute::all, false),
                          .batch_size = 10,
                          .samples = 23,
                          .steps = 6});
}

TEST_CASE("parameters of a block that every rank dropped get no gradient") {
    Setting setting{.depth = depth(sd::StochasticMethod::block, 0.6)};
    Model model = make_model(setting);
    const Run run = train(model, setting, {});
    CHECK(std::count(run.has_gradient.begin(), run.has_gradient.end(), false) > 0);
}

TEST_CASE("as microbatches where each rank normalises by its own samples") {
    check_as_microbatches({.depth = depth(sd::StochasticMethod::sample, 0.95, sd::Compute::survivors)});
    check_as_microbatches({.depth = depth(sd::StochasticMethod::block, 0.6)});
    check_as_microbatches({.depth = depth(sd::StochasticMethod::block, 0.9, sd::Compute::all, false)});
    check_as_microbatches({.depth = depth(sd::StochasticMethod::block, 0.9, sd::Compute::all, false),
                           .batch_size = 10,
                           .samples = 23,
                           .steps = 6});
}

TEST_CASE("the sum over ranks has the same bits with overlap and without") {
    const Setting setting{.depth = depth(sd::StochasticMethod::block, 0.6, sd::Compute::all, false), .steps = 3};
    Model model = make_model(setting);
    train(model, setting, {.synchronised_batch_norm = true, .gradients = {.bucket_bytes = 4096, .overlap = true}});
    Model other = make_model(setting);
    train(other, setting, {.synchronised_batch_norm = true, .gradients = {.overlap = false}});
    CHECK(largest_difference(state_of(model), state_of(other)) == 0);
}

TEST_CASE("a pass of several ranks refuses what would make them wait for each other") {
    sd::Communicator& ranks = sd_test::ranks();
    const Setting setting{.depth = depth(sd::StochasticMethod::sample, 0.5)};
    Model model = make_model(setting);
    const sd::JointPass joint = sd::joint_pass(8 * ranks.size(), ranks, false);
    const auto context = sd::Context::train({.step = 0, .seed = seed, .joint = &joint});
    CHECK_THROWS_AS((void)model.forward(sd::Tensor<double>({7, 8, 8, 3}), context), std::invalid_argument);
    model.blocks()[1].set_mask(sd::Mask(8, 1));
    const auto forward = [&] { (void)model.forward(sd::Tensor<double>({8, 8, 8, 3}), context); };
    if (ranks.size() == 1) {
        CHECK_NOTHROW(forward());
    } else {
        CHECK_THROWS_AS(forward(), std::invalid_argument);
    }
}

}  // namespace

}  // namespace test_data_parallel
