// A run that is interrupted anywhere and resumed ends with the bytes of one that was not.
#include "messages.hpp"
#include "temporary_directory.hpp"

#include "sd/sd.hpp"
#include "sd/train/checkpoint_saver.hpp"
#include "sd/train/stochastic_depth.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using sd::Event;
using sd_test::contains;
using sd_test::TemporaryDirectory;

namespace {

/// Lines of what was told, but for the speed. As a file of metrics does, it forgets what a run that goes on tells again.
class Told : public sd::LogDestination {
public:
    void start(const sd::RunLength&, const sd::LogRecord& record) override {
        const auto is_later = [&](const Line& line) {
            return std::pair(line.epoch, line.batch) > std::pair(record.timestamp.epoch, record.timestamp.batch);
        };
        lines.erase(std::find_if(lines.begin(), lines.end(), is_later), lines.end());
    }
    void write(const sd::LogRecord& record) override {
        std::ostringstream values;
        values << sd::to_string(record.event);
        for (const sd::Metric& metric : record.metrics) {
            if (metric.name == "images_per_second") continue;
            values << ' ' << metric.name;
            if (const auto* number = std::get_if<double>(&metric.value)) values << std::hexfloat << *number;
            if (const auto* numbers = std::get_if<std::vector<double>>(&metric.value)) {
                for (const double number : *numbers) values << ' ' << std::hexfloat << number;
            }
        }
        lines.push_back({record.timestamp.epoch, record.timestamp.batch, values.str()});
    }
    void flush() override { ++flushes; }

    struct Line {
        std::uint64_t epoch, batch;
        std::string values;
        friend bool operator==(const Line&, const Line&) = default;
    };
    std::vector<Line> lines;
    int flushes = 0;
};

/// What ends a run as a kill would.
struct Killed {};

/// Kills the run at its event of a number, counted over all runs that share the counter.
struct KillAt {
    std::shared_ptr<int> left;

    template <class State>
    bool match(Event, const State&) const {
        return (*left)-- == 0;
    }
    template <class State>
    void apply(Event, State&, sd::Logger&) const {
        throw Killed();
    }
};

/// Calls `stop` in the batch of that number.
struct StopAt {
    std::function<void()>* stop;
    std::uint64_t batch;
    bool match(Event event, const sd::State<float>& state) const {
        return event == Event::after_forward && state.timestamp.batch == batch;
    }
    void apply(Event, sd::State<float>&, sd::Logger&) const { (*stop)(); }
};

struct Settings {
    sd::StochasticMethod method = sd::StochasticMethod::sample;
    sd::Compute compute = sd::Compute::all;
    sd::Time duration = "3ep";
    sd::Time interval = "2ba";
    sd::Index batch_size = 4;
    sd::Index microbatches = 1;
    double learning_rate = 0.05;
    std::uint64_t seed = 42;
    sd::Index classes = 3;
    sd::Index keep = 2;
};

/// A run of 3 batches an epoch, the last one not full, shuffled, augmented and warmed up.
struct Run {
    using Loader = sd::PrefetchLoader<sd::InMemoryDataset, float>;
    using Trainer = sd::Trainer<sd::BasicResNet<float>, Loader>;

    Run(const std::filesystem::path& directory, const Settings& settings, std::shared_ptr<Told> told = nullptr,
        std::optional<sd::Algorithm<float>> algorithm = std::nullopt)
        : model(sd::cifar_resnet<float>(8, {.num_classes = settings.classes, .seed = 1})),
          optimizer(model.parameters(), {.learning_rate = settings.learning_rate, .momentum = 0.9}),
          trainer(model, optimizer, loader(settings), loader(settings), options(settings, told, algorithm)),
          saver(trainer, {.directory = directory,
                          .interval = settings.interval,
                          .keep = settings.keep,
                          .settings = {{"model", "cifar_resnet8"}}}) {}

    static Loader loader(const Settings& settings) {
        const auto images =
            std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(10, settings.classes, 8, 8, settings.seed));
        return Loader(sd::DataLoader(images, {.batch_size = settings.batch_size,
                                              .seed = settings.seed,
                                              .augmentation = sd::Augmentation{.padding = 1}}));
    }
    static sd::TrainerOptions<float> options(const Settings& settings, const std::shared_ptr<Told>& told,
                                             const std::optional<sd::Algorithm<float>>& algorithm) {
        const sd::Time warmup = "5ba";
        sd::TrainerOptions<float> result{.max_duration = settings.duration,
                                         .algorithms = {sd::StochasticDepth({.target_layer_name = "ResNetBasicBlock",
                                                                             .stochastic_method = settings.method,
                                                                             .drop_rate = 0.5,
                                                                             .compute = settings.compute},
                                                                            warmup)},
                                         .seed = settings.seed,
                                         .learning_rate = "warmup:2ba,cosine",
                                         .microbatches = settings.microbatches};
        if (told) result.loggers = {told};
        if (algorithm) result.algorithms.push_back(*algorithm);
        return result;
    }

    sd::BasicResNet<float> model;
    sd::Sgd<float> optimizer;
    Trainer trainer;
    sd::CheckpointSaver<Trainer> saver;
};

std::string newest(const std::filesystem::path& directory) {
    const auto paths = sd::CheckpointDirectory(directory, 1).checkpoints();
    REQUIRE_FALSE(paths.empty());
    const auto bytes = sd::read_file(paths.back());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// What a run leaves behind: the bytes of its last checkpoint and the lines it told.
struct Result {
    std::string checkpoint;
    std::vector<Told::Line> lines;
};

Result uninterrupted(const Settings& settings) {
    const TemporaryDirectory directory;
    const auto told = std::make_shared<Told>();
    {
        Run run(directory.path(), settings, told);
        REQUIRE_FALSE(run.saver.resume().has_value());
        CHECK(run.trainer.fit() == sd::FitEnd::finished);
    }
    return {newest(directory.path()), told->lines};
}

/// The message with which the call is refused.
template <class Error, class Call>
std::string error_of(const Call& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.what();
    }
    return "accepted";
}

}  // namespace

TEST_CASE("a run killed at any of its events and resumed ends with the same bytes, and has told the same") {
    const sd_test::Warnings warnings;
    Settings settings{.duration = "2ep"};
    SUBCASE("block-wise, in epochs") {
        settings.method = sd::StochasticMethod::block;
        settings.interval = "1ep";
    }
    SUBCASE("sample-wise, in batches, microbatches") { settings.microbatches = 2; }
    SUBCASE("survivors, in samples") {
        settings.compute = sd::Compute::survivors;
        settings.interval = "7sp";
    }
    SUBCASE("a run that ends within an epoch, in parts of it") {
        settings.duration = "5ba";
        settings.interval = "0.3dur";
    }
    const Result expected = uninterrupted(settings);
    bool is_killed = true;
    int events = 0;
    for (; is_killed; events += 1) {
        const TemporaryDirectory directory;
        const auto told = std::make_shared<Told>();
        const auto left = std::make_shared<int>(events);
        is_killed = false;
        const auto go_on = [&] {
            Run run(directory.path(), settings, told, KillAt{left});
            run.saver.resume();
            if (run.trainer.fit() != sd::FitEnd::finished) FAIL("stopped");
        };
        try {
            go_on();
        } catch (const Killed&) {
            is_killed = true;
            go_on();
        }
        CAPTURE(events);
        CHECK(newest(directory.path()) == expected.checkpoint);
        // A run killed after its last checkpoint has nothing left to tell but that it ended.
        std::vector<Told::Line> lines = told->lines;
        if (lines.size() + 1 == expected.lines.size()) lines.push_back(expected.lines.back());
        CHECK(lines == expected.lines);
    }
    CHECK(events > 60);
}

TEST_CASE("a run asked to stop finishes its batch, saves, and goes on") {
    const sd_test::Warnings warnings;
    const Settings settings{.interval = "1ep"};
    const Result expected = uninterrupted(settings);
    for (std::uint64_t batch = 0; batch < 9; ++batch) {
        const TemporaryDirectory directory;
        const auto told = std::make_shared<Told>();
        {
            std::function<void()> stop;
            Run run(directory.path(), settings, told, StopAt{&stop, batch});
            stop = [&] { run.trainer.request_stop(); };
            CHECK(run.trainer.fit() == sd::FitEnd::stopped);
            CHECK(run.trainer.state().timestamp.batch == batch + 1);
            CHECK(told->flushes > 0);
        }
        Run run(directory.path(), settings, told);
        const auto found = run.saver.resume();
        REQUIRE(found.has_value());
        CHECK(found->path.filename() == sd::detail::checkpoint_name(static_cast<sd::Index>(batch + 1)));
        CHECK(run.trainer.fit() == sd::FitEnd::finished);
        CAPTURE(batch);
        const auto bytes = sd::read_file(directory.path() / sd::detail::checkpoint_name(9));
        CHECK(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == expected.checkpoint);
    }
}

TEST_CASE("a loss that is not finite ends the run and leaves the last good checkpoint") {
    const sd_test::Warnings warnings;
    const Settings settings;
    const Result expected = uninterrupted(settings);
    struct SpoilBatch {
        bool match(Event event, const sd::State<float>& state) const {
            return event == Event::batch_start && state.timestamp.batch == 5;
        }
        void apply(Event, sd::State<float>& state, sd::Logger&) const {
            state.batch.images.data()[0] = std::numeric_limits<float>::quiet_NaN();
        }
    };
    const TemporaryDirectory directory;
    {
        Run run(directory.path(), settings, nullptr, SpoilBatch());
        CHECK(contains(error_of<std::runtime_error>([&] { run.trainer.fit(); }), "loss at batch 5: got nan"));
    }
    {
        Run run(directory.path(), settings);
        CHECK(run.saver.resume().value().path.filename() == sd::detail::checkpoint_name(4));
        CHECK(run.trainer.fit() == sd::FitEnd::finished);
    }
    CHECK(newest(directory.path()) == expected.checkpoint);
}

TEST_CASE("checkpoints come when their interval does, and the last few stay") {
    const sd_test::Warnings warnings;
    const auto numbers_in = [](const std::filesystem::path& directory) {
        std::vector<sd::Index> result;
        for (const auto& file : std::filesystem::directory_iterator(directory)) {
            result.push_back(sd::detail::batches_in_name(file.path().filename().string()).value());
        }
        std::sort(result.begin(), result.end());
        return result;
    };
    const auto numbers = [&](const sd::Time& interval) {
        const TemporaryDirectory directory;
        Run run(directory.path(), {.interval = interval, .keep = 9});
        run.trainer.fit();
        return numbers_in(directory.path());
    };
    using Numbers = std::vector<sd::Index>;
    CHECK(numbers("1ep") == Numbers{3, 6, 9});
    CHECK(numbers("2ba") == Numbers{2, 4, 6, 8, 9});
    CHECK(numbers("5ep") == Numbers{9});
    CHECK(numbers("10sp") == Numbers{3, 6, 9});
    CHECK(numbers("11sp") == Numbers{4, 7, 9});
    CHECK(numbers("0.5dur") == Numbers{5, 9});

    // A resumed run keeps to the same multiples.
    const TemporaryDirectory directory;
    const Settings settings{.interval = "4ba", .keep = 9};
    {
        std::function<void()> stop;
        Run run(directory.path(), settings, nullptr, StopAt{&stop, 4});
        stop = [&] { run.trainer.request_stop(); };
        run.trainer.fit();
    }
    {
        Run run(directory.path(), settings);
        run.saver.resume();
        run.trainer.fit();
    }
    CHECK(numbers_in(directory.path()) == Numbers{4, 5, 8, 9});
    CHECK(contains(sd_test::message_of([&] { Run(directory.path(), {.interval = "0ba"}); }), "interval: got 0ba"));
}

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
    warnings.messages.clear();
    CHECK(resumed({.duration = "4ep", .learning_rate = 0.1}) == "accepted");
    CHECK(contains(warnings.messages.back(), "learning_rate: 0.1 instead of 0.05; max_duration: 4ep instead of 3ep"));
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
