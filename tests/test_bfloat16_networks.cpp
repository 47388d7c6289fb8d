// Networks on the CPU whose activations are stored as bfloat16: against double, training, threads, resuming.
#include "kernel_inputs.hpp"
#include "messages.hpp"
#include "same_bits.hpp"
#include "temporary_directory.hpp"
#include "use_tile_machine.hpp"

#include "sd/training.hpp"
#include "sd/testing/amx_model.hpp"
#include "sd/train/checkpoint_saver.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace test_bfloat16_networks {

namespace {

using sd::bfloat16;
using sd::Index;
using sd::Shape;
using sd::Tensor;
using sd_test::in_double;

/// Small, with what the large ones have: a stem with pooling, projections.
template <class T>
sd::BasicResNet<T> resnet() {
    return {{.layers = {1, 1},
             .planes = {16, 32},
             .stem_channels = 16,
             .stem = sd::Stem::imagenet,
             .shortcut = sd::ShortcutKind::projection},
            {.num_classes = 10, .seed = 7}};
}

constexpr Index samples = 8;

/// The same images for every type of number: numbers that all of them have.
template <class T>
Tensor<T> images(std::uint64_t stream) {
    const auto rounded = sd::converted<bfloat16>(sd_test::random_tensor<float>({samples, 32, 32, 3}, stream));
    Tensor<T> result(rounded.shape());
    for (Index i = 0; i < result.size(); ++i) {
        result.data()[i] = T(static_cast<sd::accumulate_t<T>>(static_cast<float>(rounded.data()[i])));
    }
    return result;
}

/// Logits of one step, and the gradients of all parameters.
template <class Model>
std::vector<Tensor<double>> one_step(Model model) {
    const std::vector<Index> labels{1, 2, 3, 4, 5, 6, 7, 8};
    const auto x = images<typename Model::value_type>(1);
    const auto logits = model.forward(x, sd::Context::train({.step = 0, .seed = 42}));
    model.backward(sd::cross_entropy_by_input(logits, std::span<const Index>(labels), 0.1), sd::InputGradient::skipped);
    std::vector<Tensor<double>> result{in_double(logits)};
    for (const auto& parameter : model.parameters()) result.push_back(in_double(parameter->grad));
    return result;
}

/// |a - b| / |b|, as vectors.
double distance(const Tensor<double>& a, const Tensor<double>& b) {
    double difference = 0, length = 0;
    for (Index i = 0; i < b.size(); ++i) {
        difference += std::pow(a.data()[i] - b.data()[i], 2);
        length += std::pow(b.data()[i], 2);
    }
    return std::sqrt(difference / length);
}

/// The loss of some steps on one batch, then all parameters.
template <class Model>
std::vector<Tensor<double>> train(Model model, int steps) {
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.02, .momentum = 0.9});
    const std::vector<Index> labels{0, 1, 2, 3, 4, 5, 6, 7};
    Tensor<double> losses(Shape{steps});
    for (int step = 0; step < steps; ++step) {
        optimizer.zero_grad();
        const auto logits = model.forward(images<bfloat16>(1),
                                          sd::Context::train({.step = static_cast<std::uint64_t>(step), .seed = 42}));
        const auto [loss, dlogits] = sd::cross_entropy(logits, std::span<const Index>(labels));
        model.backward(dlogits, sd::InputGradient::skipped);
        optimizer.step();
        losses(step) = static_cast<double>(loss);
    }
    std::vector<Tensor<double>> result{losses};
    for (const auto& parameter : model.parameters()) result.push_back(in_double(parameter->value));
    return result;
}

/// The parameters after training as long as said, from the newest checkpoint if there is one.
std::vector<Tensor<double>> fit(const std::filesystem::path& directory, const char* duration,
                                std::vector<std::shared_ptr<sd::LogDestination>> loggers = {}) {
    auto model = sd::cifar_resnet<bfloat16>(8, {.num_classes = 4, .seed = 7});
    sd::apply_stochastic_depth(
        model,
        {.target_layer_name = "ResNetBasicBlock", .stochastic_method = sd::StochasticMethod::sample, .drop_rate = 0.5});
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9});
    const auto data = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(24, 4, 8, 8, 42));
    const sd::DataLoader<sd::InMemoryDataset, bfloat16> loader(data, {.batch_size = 8, .seed = 42});
    sd::Trainer trainer(model, optimizer, loader, loader,
                        {.max_duration = duration,
                         .algorithms = {sd::LabelSmoothing(0.1), sd::Mixup(0.2), sd::WeightAveraging({.decay = 0.9})},
                         .seed = 42,
                         .microbatches = 2,
                         .loggers = std::move(loggers)});
    sd::CheckpointSaver saver(trainer, {.directory = directory, .interval = "1ba"});
    saver.resume();
    trainer.fit();
    CHECK(std::isfinite(trainer.evaluate().loss()));
    std::vector<Tensor<double>> values;
    for (const auto& parameter : model.parameters()) values.push_back(in_double(parameter->value));
    return values;
}

}  // namespace

TEST_CASE("bfloat16: logits and gradients of a network are double's but for rounding") {
    const auto check = [](const auto& ours, const auto& theirs, double gradient_bound) {
        REQUIRE(ours.size() == theirs.size());
        CHECK(distance(ours.front(), theirs.front()) < 0.02);
        CHECK(distance(ours.front(), theirs.front()) > 1e-4);  // it is rounded
        for (std::size_t i = 1; i < ours.size(); ++i) {
            CAPTURE(i);
            CHECK(distance(ours[i], theirs[i]) < gradient_bound);
        }
    };
    const sd_test::Warnings warnings;  // of few blocks
    check(one_step(sd::cifar_convnext<bfloat16>({.num_classes = 10, .seed = 7})),
          one_step(sd::cifar_convnext<double>({.num_classes = 10, .seed = 7})), 0.05);
    // Where a value near zero goes through a ReLU, or two near ones through a maximum, rounding decides which way the
    // gradient goes: of noise, PyTorch's autocast is up to 0.17 off in such a network, ours 0.19 by products of floats and
    // 0.22 by products of rounded operands.
    check(one_step(resnet<bfloat16>()), one_step(resnet<double>()), 0.25);
}

TEST_CASE("bfloat16: networks of all families learn a batch, with the same bits for any number of threads") {
    const auto check = [](const char* name, const auto& build, int steps) {
        CAPTURE(name);
        const auto result = train(build(), steps);
        for (const Tensor<double>& tensor : result) {
            CHECK(sd::all_finite(std::span(tensor.data(), static_cast<std::size_t>(tensor.size()))));
        }
        CHECK(result.front()(steps - 1) < 0.7 * result.front()(0));
        sd_test::check_threads([&] { return train(build(), 2); });
    };
    const sd_test::Warnings warnings;  // of few blocks
    check(
        "resnet", [] { return resnet<bfloat16>(); }, 12);
    check(
        "convnext", [] { return sd::cifar_convnext<bfloat16>({.num_classes = 10, .seed = 7}); }, 12);
    check(
        "efficientnet", [] { return sd::cifar_efficientnet<bfloat16>({.num_classes = 10, .seed = 7}); }, 12);
    check(
        "regnet", [] { return sd::cifar_regnet<bfloat16>({.num_classes = 10, .seed = 7}); }, 12);
}

TEST_CASE("bfloat16: a resumed run ends with the same bits") {
    const sd_test::Warnings warnings;  // of few blocks, and of the longer run
    const sd_test::TemporaryDirectory whole, stopped;
    const auto expected = fit(whole.path(), "5ba");
    (void)fit(stopped.path(), "2ba");
    CHECK(sd_test::same_bits(fit(stopped.path(), "5ba"), expected));
}

TEST_CASE("bfloat16: log and checkpoints name the kind of machine, and a run that goes on on another one says so") {
    sd_test::Warnings warnings;
    const sd_test::TemporaryDirectory directory;
    std::string shown;
    const auto warned_of_machine = [&](const sd::cpu::TileMachine* machine, const char* duration) {
        const sd_test::UseTileMachine use(machine);
        warnings.messages.clear();
        std::ostringstream console;
        (void)fit(directory.path(), duration,
                  {std::make_shared<sd::ConsoleLogger>(sd::ConsoleOptions{.out = &console, .live = false})});
        shown = console.str();
        std::string all;
        for (const std::string& message : warnings.messages) all += message + '\n';
        return sd_test::contains(all, "machine") ? all : std::string();
    };
    const auto saved_machine = [&] {
        return sd::read_checkpoint(sd::CheckpointDirectory(directory.path(), 1).checkpoints().back())
            .settings.at("machine");
    };
    CHECK(warned_of_machine(nullptr, "1ba").empty());
    CHECK(sd_test::contains(shown, "trains 1 epoch of 3 batches, 1 in all  machine float\n"));
    CHECK(saved_machine() == "float");
    CHECK(warned_of_machine(nullptr, "2ba").empty());
    CHECK(sd_test::contains(warned_of_machine(&sd::testing::amx_model, "3ba"),
                            "other settings: machine: amx_model instead of float;"));
    CHECK(sd_test::contains(shown, "from batch 2 on  machine amx_model\n"));
    CHECK(saved_machine() == "amx_model");
}

/// Three ranks, of which this one is the second and the others have other machines.
class RanksOnOthers : public sd::Communicator {
public:
    explicit RanksOnOthers(std::string name_of_others) : others_(std::move(name_of_others)) {}
    sd::Index rank() const override { return 1; }
    sd::Index size() const override { return 3; }

protected:
    void all_gather_bytes(std::span<const std::byte> own, std::span<std::byte> all) override {
        std::fill(all.begin(), all.end(), std::byte{0});
        std::copy(own.begin(), own.end(), all.begin() + static_cast<std::ptrdiff_t>(own.size()));
        for (const std::size_t rank : {std::size_t{0}, std::size_t{2}}) {
            std::memcpy(all.data() + rank * own.size(), others_.data(), others_.size());
        }
    }

private:
    std::string others_;
};

TEST_CASE("bfloat16: ranks on different kinds of machines are told one by one") {
    const sd_test::UseTileMachine use(&sd::testing::amx_model);
    const auto machines = [](const char* others) {
        RanksOnOthers ranks(others);
        return sd::detail::machines_of<bfloat16, sd::Cpu>(ranks);
    };
    CHECK(machines("amx_model") == "amx_model");
    CHECK(machines("avx512_bf16") == "avx512_bf16, amx_model, avx512_bf16");
    RanksOnOthers ranks("amx");
    CHECK(sd::detail::machines_of<float, sd::Cpu>(ranks).empty());
}

TEST_CASE("bfloat16: of other numbers no kind of machine is told, whose results do not depend on it") {
    const sd_test::UseTileMachine use(&sd::testing::amx_model);
    CHECK(sd::machine_kind(Tensor<bfloat16>()) == "amx_model");
    CHECK(sd::machine_kind(Tensor<float>()).empty());
    CHECK(sd::machine_kind(Tensor<double>()).empty());
}

}  // namespace test_bfloat16_networks
