// What a device chose goes with the checkpoints of its runs, on the emulator with choices of its own.
#include "cuda_emulator.hpp"
#include "kernel_inputs.hpp"
#include "messages.hpp"
#include "temporary_directory.hpp"

#include "sd/device/kernels.hpp"
#include "sd/training.hpp"
#include "sd/train/checkpoint_saver.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

std::string& chosen() {
    static std::string text;
    return text;
}

}  // namespace

SD_NAMESPACE_BEGIN

template <>
struct DeviceChoices<sd_test::Emulator> {
    static constexpr bool are_made = true;
    std::string words;

    [[nodiscard]] static DeviceChoices so_far() { return {chosen()}; }
    [[nodiscard]] static DeviceChoices parse(const std::string& text, const std::string& source) {
        if (text == "nonsense") throw std::runtime_error(source + ": choices: got nonsense, expected others");
        return {text};
    }
    [[nodiscard]] std::string text() const { return words; }
    void use() const { chosen() = words; }
};

SD_NAMESPACE_END

namespace {

using sd_test::Emulator;

/// Trains a small network as long as said, from the newest checkpoint if there is one, and returns its parameters.
std::vector<sd::Tensor<double>> train(const std::filesystem::path& directory, const char* duration) {
    sd::BasicResNet<float, Emulator> model(
        {.layers = {1, 1}, .planes = {8, 8}, .stem_channels = 8, .stem = sd::Stem::cifar},
        {.num_classes = 4, .seed = 7});
    sd::Sgd<float, Emulator> optimizer(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9});
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(16, 4, 8, 8, 42));
    const sd::DataLoader loader(images, {.batch_size = 8, .seed = 42});
    const sd::DeviceLoader<float, Emulator, sd::DataLoader<sd::InMemoryDataset>> batches(loader);
    sd::Trainer trainer(model, optimizer, batches, {.max_duration = duration, .seed = 42});
    sd::CheckpointSaver saver(trainer, {.directory = directory, .interval = "1ba"});
    saver.resume();
    trainer.fit();
    std::vector<sd::Tensor<double>> values;
    for (const auto& parameter : model.parameters()) values.push_back(sd_test::in_double(parameter->value));
    return values;
}

}  // namespace

TEST_CASE("a resumed run on a device ends with the same bits, and the device chooses as before") {
    const sd_test::TemporaryDirectory whole, stopped;
    chosen() = "first";
    const auto expected = train(whole.path(), "3ba");
    (void)train(stopped.path(), "1ba");
    chosen() = "what a new process would choose";
    const sd_test::Warnings warnings;  // of the longer run
    const auto values = train(stopped.path(), "3ba");
    CHECK(chosen() == "first");
    REQUIRE(values.size() == expected.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
        CHECK(std::equal(values[i].begin(), values[i].end(), expected[i].begin(), expected[i].end()));
    }
}

TEST_CASE("choices of a checkpoint that are no choices are refused, with nothing changed") {
    const sd_test::TemporaryDirectory directory;
    chosen() = "nonsense";
    (void)train(directory.path(), "1ba");
    chosen() = "before";
    CHECK_THROWS_WITH_AS((void)train(directory.path(), "2ba"), doctest::Contains("choices: got nonsense"),
                         std::runtime_error);
    CHECK(chosen() == "before");
}
