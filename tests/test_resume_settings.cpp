// Which checkpoints a run goes on from: its own, of the same settings, at a position that it passes.
#include "messages.hpp"
#include "saved_run.hpp"
#include "temporary_directory.hpp"

#include "sd/training.hpp"
#include "sd/train/checkpoint_saver.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>

namespace test_resume_settings {

using sd_test::contains;
using sd_test::error_of;
using sd_test::Settings;
using sd_test::TemporaryDirectory;
using Run = sd_test::SavedRun;

TEST_CASE("what does not go together is refused before anything changes, what was changed is told") {
    sd_test::Warnings warnings;
    const TemporaryDirectory directory;
    {
        Run run(directory.path(), {});
        run.trainer.fit();
    }
    const auto resume = [&](const Settings& settings) {
        Run run(directory.path(), settings);
        run.trainer.fit();  // never reached where resume() throws
    };
    CHECK(contains(error_of<std::runtime_error>([&] { resume({}); }), "checkpoints: got 2 of another run"));

    const auto resumed = [&](const Settings& settings) {
        Run run(directory.path(), settings);
        const auto unchanged = sd::state_dict(run.model);
        const std::string refusal = sd_test::message_of([&] { run.saver.resume(); });
        if (refusal != "accepted") {
            CHECK(run.trainer.state().timestamp == sd::Timestamp{});
            for (const std::string& name : unchanged.names()) {
                CHECK(sd::state_dict(run.model).entry(name).bytes == unchanged.entry(name).bytes);
            }
        }
        return refusal;
    };
    CHECK(contains(resumed({.seed = 43}), "setting seed: got 43, expected 42"));
    CHECK(contains(resumed({.batch_size = 5}), "setting batch_size: got 5, expected 4"));
    CHECK(contains(resumed({.loader_seed = 1}), "setting loader.seed: got 1, expected 42"));
    CHECK(contains(resumed({.shuffle = false}), "setting loader.shuffle: got false, expected true"));
    CHECK(contains(resumed({.augmentation = sd::Augmentation{.padding = 0}}),
                   "setting loader.padding: got 0, expected 1"));
    CHECK(contains(resumed({.augmentation = sd::Augmentation{.padding = 1, .horizontal_flip = false}}),
                   "setting loader.horizontal_flip: got false, expected true"));
    CHECK(contains(resumed({.augmentation = sd::Augmentation{.padding = 1, .random_erasing = 0.25}}),
                   "setting loader.random_erasing: got 0.25, expected 0"));
    warnings.messages.clear();
    CHECK(resumed({.duration = "4ep", .learning_rate = 0.1}) == "accepted");
    CHECK(contains(warnings.messages.back(), "learning_rate: 0.1 instead of 0.05; max_duration: 4ep instead of 3ep"));
    warnings.messages.clear();
    CHECK(resumed({.drop_rate = 0.25, .drop_warmup = 0.0, .eval_interval = "2ba"}) == "accepted");
    for (const char* change :
         {"StochasticDepth.drop_rate: 0.25 instead of 0.5", "StochasticDepth.drop_warmup: 0dur instead of 5ba",
          "eval_interval: 2ba instead of 1ep"}) {
        CHECK(contains(warnings.messages.back(), change));
    }
    // What is evaluated has no part in the position.
    warnings.messages.clear();
    CHECK(resumed({.eval_images = 9, .eval_shuffle = true}) == "accepted");
    for (const char* change : {"eval_loader.dataset_size: 9 instead of 10", "eval_loader.samples: 9 instead of 10",
                               "eval_loader.shuffle: true instead of false"}) {
        CHECK(contains(warnings.messages.back(), change));
    }
    warnings.messages.clear();
    CHECK(resumed({}) == "accepted");
    CHECK(std::none_of(warnings.messages.begin(), warnings.messages.end(),
                       [](const std::string& message) { return contains(message, "other settings"); }));
    const std::string error = error_of<std::runtime_error>([&] { (void)resumed({.classes = 4}); });
    CHECK(contains(error, "checkpoints: got 2, none to go on from"));
    CHECK(contains(error, "\"fc.weight\": shape: got (3, 64), expected (4, 64)"));
}

TEST_CASE("a checkpoint whose position makes no sense is passed over") {
    const sd_test::Warnings warnings;
    const TemporaryDirectory directory;
    std::filesystem::path newest_path;
    {
        Run run(directory.path(), {});
        run.trainer.fit();
        newest_path = directory.path() / sd::detail::checkpoint_name(9);
    }
    const sd::Checkpoint sound = sd::read_checkpoint(newest_path);
    const auto skipped_with = [&](const std::string& key, const std::optional<std::string>& value) {
        sd::Checkpoint changed = sound;
        changed.run.erase(key);
        if (value) changed.run[key] = *value;
        sd::write_checkpoint(newest_path, changed);
        Run run(directory.path(), {});
        const auto found = run.saver.resume();
        REQUIRE(found.has_value());
        CHECK(run.trainer.state().timestamp.batch == 8);
        return found->skipped.at(0).reason;
    };
    CHECK(contains(skipped_with("batch", std::nullopt), "run.batch: got none"));
    CHECK(contains(skipped_with("batch", "-1"), "run.batch: got \"-1\""));
    CHECK(contains(skipped_with("batch", "9 "), "run.batch"));
    CHECK(contains(skipped_with("batch", "99999999999999999999"), "run.batch"));
    CHECK(contains(skipped_with("batch", "8"), "run.batch: got 8, expected 9"));
    CHECK(contains(skipped_with("sample", "8"), "run.sample: got 8, expected 30"));
    CHECK(contains(skipped_with("batch_in_epoch", "4"), "run.batch_in_epoch: got 4, expected 0 to 3"));
    CHECK(contains(skipped_with("sample_in_epoch", "4"), "run.sample_in_epoch: got 4, expected 0"));
    CHECK(contains(skipped_with("epoch_score.loss_sum", "nan"), "epoch_score.loss_sum: got \"nan\""));
    CHECK(contains(skipped_with("epoch_score.correct", "many"), "epoch_score.correct"));
}

TEST_CASE("settings of a checkpoint that is passed over are not told") {
    sd_test::Warnings warnings;
    const TemporaryDirectory directory;
    {
        Run run(directory.path(), {});
        run.trainer.fit();
    }
    const std::filesystem::path newest_path = directory.path() / sd::detail::checkpoint_name(9);
    sd::Checkpoint changed = sd::read_checkpoint(newest_path);
    changed.settings["momentum"] = "0.5";
    changed.run["sample"] = "8";
    sd::write_checkpoint(newest_path, changed);
    warnings.messages.clear();
    Run run(directory.path(), {});
    CHECK(run.saver.resume().value().path.filename() == sd::detail::checkpoint_name(8));
    CHECK(std::none_of(warnings.messages.begin(), warnings.messages.end(),
                       [](const std::string& message) { return contains(message, "momentum"); }));
}

TEST_CASE("settings that hide one of the trainer's own, or that no file could hold, are refused") {
    const sd_test::Warnings warnings;
    const TemporaryDirectory directory;
    for (const char* key : {"seed", "learning_rate", "loader.seed", "StochasticDepth.drop_rate"}) {
        const std::string message = sd_test::message_of([&] { Run(directory.path(), {.texts = {{key, "1"}}}); });
        CHECK(contains(message, sd::text("CheckpointSaver: settings: got \"", key, "\", expected")));
    }
    // Told at once, not at the first checkpoint.
    CHECK(contains(sd_test::message_of([&] { Run(directory.path(), {.texts = {{"model", "\xff"}}}); }), "UTF-8"));
}

}  // namespace test_resume_settings
