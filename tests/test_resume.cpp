// A run that is interrupted anywhere and resumed ends with the bytes of one that was not.
#include "messages.hpp"
#include "saved_run.hpp"
#include "temporary_directory.hpp"

#include "sd/training.hpp"
#include "sd/train/checkpoint_saver.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_resume {

using sd::Event;
using sd_test::contains;
using sd_test::error_of;
using sd_test::newest;
using sd_test::Settings;
using sd_test::StopAt;
using sd_test::TemporaryDirectory;
using sd_test::Told;
using Run = sd_test::SavedRun;

namespace {

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
    SUBCASE("a policy by name") { settings.policy = "subset"; }
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
        CHECK(told->lines == expected.lines);
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
        CHECK(told->lines == expected.lines);
    }
}

TEST_CASE("a run asked to stop in an evaluation leaves it at once, and makes it first when it goes on") {
    const sd_test::Warnings warnings;
    // Evaluations of three batches after the batches 2, 4, 6, 8 and 9, the last one.
    const Settings settings{.interval = "4ba", .eval_interval = "2ba"};
    const Result expected = uninterrupted(settings);
    struct StopInEvaluation {
        std::shared_ptr<int> left;
        std::function<void()>* stop;
        bool match(Event event, const sd::State<float>&) const {
            return event == Event::eval_batch_end && (*left)-- == 0;
        }
        void apply(Event, sd::State<float>&, sd::Logger&) const { (*stop)(); }
    };
    struct KillAtCheckpoint {
        bool match(Event event, const sd::State<float>&) const {
            return event == Event::batch_checkpoint || event == Event::epoch_checkpoint;
        }
        void apply(Event, sd::State<float>&, sd::Logger&) const { throw Killed(); }
    };
    const auto stopped_at = [&](int evaluated, const TemporaryDirectory& directory, const std::shared_ptr<Told>& told) {
        std::function<void()> stop;
        const auto left = std::make_shared<int>(evaluated);
        Run run(directory.path(), settings, told, StopInEvaluation{left, &stop});
        stop = [&] { run.trainer.request_stop(); };
        const sd::FitEnd end = run.trainer.fit();
        // Of an evaluation's last batch it is too late.
        CHECK(run.trainer.state().evaluation_is_pending == (end == sd::FitEnd::stopped && evaluated % 3 != 2));
        CHECK((!run.trainer.state().evaluation_is_pending || *left == -1));
        return end;
    };
    int stops = 0;
    for (int evaluated = 0;; ++evaluated, ++stops) {
        CAPTURE(evaluated);
        const TemporaryDirectory directory;
        const auto told = std::make_shared<Told>();
        if (stopped_at(evaluated, directory, told) == sd::FitEnd::finished) break;
        for (const bool again : {true, false}) {
            // Killed with the evaluation told, before there is a checkpoint that knows of it.
            std::optional<sd::Algorithm<float>> kill;
            if (again) kill = KillAtCheckpoint();
            Run run(directory.path(), settings, told, kill);
            REQUIRE(run.saver.resume().has_value());
            CHECK(run.trainer.state().evaluation_is_pending == (evaluated % 3 != 2));
            if (again) {
                CHECK_THROWS_AS(run.trainer.fit(), Killed);
            } else {
                CHECK(run.trainer.fit() == sd::FitEnd::finished);
            }
        }
        CHECK(newest(directory.path()) == expected.checkpoint);
        CHECK(told->lines == expected.lines);
    }
    CHECK(stops == 14);
}

TEST_CASE("a resumed run that was finished evaluates as it did before") {
    const sd_test::Warnings warnings;
    // The drop rates are still growing when the run ends.
    const Settings settings{.duration = "2ep", .drop_warmup = "30ba"};
    const TemporaryDirectory directory;
    sd::Score score;
    {
        Run run(directory.path(), settings);
        CHECK(run.trainer.fit() == sd::FitEnd::finished);
        score = run.trainer.evaluate();
    }
    Run run(directory.path(), settings);
    REQUIRE(run.saver.resume().has_value());
    CHECK(run.trainer.evaluate() == score);
}

TEST_CASE("a resumed run that was finished still has its end") {
    const sd_test::Warnings warnings;
    struct Observer {
        std::vector<Event>* events;
        bool match(Event, const sd::State<float>&) const { return true; }
        void apply(Event event, sd::State<float>&, sd::Logger&) const { events->push_back(event); }
    };
    const Settings settings{.duration = "1ep"};
    const TemporaryDirectory directory;
    const auto told = std::make_shared<Told>();
    {
        Run run(directory.path(), settings, told);
        CHECK(run.trainer.fit() == sd::FitEnd::finished);
    }
    const std::vector<Told::Line> lines = told->lines;
    std::vector<Event> events;
    Run run(directory.path(), settings, told, Observer{&events});
    REQUIRE(run.saver.resume().has_value());
    events.clear();
    CHECK(run.trainer.fit() == sd::FitEnd::finished);
    CHECK(events == std::vector<Event>{Event::fit_start, Event::fit_end});
    CHECK(told->lines == lines);
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

TEST_CASE("a state that is not finite ends the run and does not take a good checkpoint's place") {
    const sd_test::Warnings warnings;
    const Settings settings{.keep = 1};
    const Result expected = uninterrupted(settings);
    struct SpoilUpdate {
        bool momentum;
        bool match(Event event, const sd::State<float>& state) const {
            return event == Event::batch_end && state.timestamp.batch == 4;
        }
        void apply(Event, sd::State<float>& state, sd::Logger&) const {
            auto buffers = state.optimizer.state_dict();
            sd::Tensor<float> spoilt =
                momentum ? buffers.at("fc.weight.momentum_buffer") : state.optimizer.parameters().front()->value;
            spoilt.data()[spoilt.size() - 1] =
                momentum ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
        }
    };
    for (const bool momentum : {false, true}) {
        const TemporaryDirectory directory;
        {
            Run run(directory.path(), settings, nullptr, SpoilUpdate{momentum});
            const std::string error = error_of<std::runtime_error>([&] { run.trainer.fit(); });
            CAPTURE(error);
            CHECK(contains(error, directory.path().string()));
            CHECK(contains(error, momentum ? "\"fc.weight.momentum_buffer\" after batch 4: got -inf, expected finite"
                                           : "\"conv1.weight\" after batch 4: got nan, expected finite"));
        }
        {
            Run run(directory.path(), settings);
            CHECK(run.saver.resume().value().path.filename() == sd::detail::checkpoint_name(2));
            CHECK(run.trainer.fit() == sd::FitEnd::finished);
        }
        CHECK(newest(directory.path()) == expected.checkpoint);
    }
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

}  // namespace test_resume
