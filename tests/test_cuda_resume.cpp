// What a device chose goes with the checkpoints of its runs, on the emulator with choices of its own; and their text.
#include "cuda_emulator.hpp"
#include "kernel_inputs.hpp"
#include "messages.hpp"
#include "temporary_directory.hpp"

#include "sd/device/kernels.hpp"
#include "sd/device/plan_choices.hpp"
#include "sd/sd.hpp"
#include "sd/train/checkpoint_saver.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
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

using sd::cuda::EngineChoice;
using sd::cuda::PlanChoices;
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

constexpr sd::cuda::PlanKey key(sd::Index direction) {
    return {direction, 5, 256, 56, 56, 64, 56, 56, 64, 3, 3, 64, 1, 1, 1, 1};
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

TEST_CASE("plans as a text and back") {
    const PlanChoices choices{
        "cuDNN 91002 on a device",
        {{key(0), EngineChoice{58, {{2, 10}, {13, -4}}}}, {key(1), EngineChoice{0}}, {key(2), std::nullopt}}};
    const std::string text =
        "cuDNN 91002 on a device\n"
        "0 5 256 56 56 64 56 56 64 3 3 64 1 1 1 1: 58 2=10 13=-4\n"
        "1 5 256 56 56 64 56 56 64 3 3 64 1 1 1 1: 0\n"
        "2 5 256 56 56 64 56 56 64 3 3 64 1 1 1 1: direct\n";
    CHECK(to_string(choices) == text);
    CHECK(sd::cuda::parse_plan_choices(text, "file") == choices);
    CHECK(sd::cuda::parse_plan_choices("a library\n", "file") == PlanChoices{"a library"});
}

TEST_CASE("a text of another form is refused, with its line") {
    const std::string good = "0 5 256 56 56 64 56 56 64 3 3 64 1 1 1 1: 58 2=10";
    const std::vector<std::string> lines{good + " ",
                                         good + " 3",
                                         good + " 3=",
                                         good + "=4",
                                         good.substr(2),
                                         "7 " + good,
                                         good.substr(0, 42),
                                         "no numbers",
                                         "",
                                         good + "\n" + good,
                                         "99999999999999999999" + good.substr(1),
                                         good.substr(0, 42) + "indirect"};
    for (const std::string& line : lines) {
        CAPTURE(line);
        CHECK_THROWS_WITH_AS((void)sd::cuda::parse_plan_choices("library\n" + line + "\n", "file"),
                             doctest::Contains("file: plans, line "), std::runtime_error);
    }
    CHECK_THROWS_WITH_AS((void)sd::cuda::parse_plan_choices("", "file"),
                         "file: plans: got nothing, expected the library's name first", std::runtime_error);
}
