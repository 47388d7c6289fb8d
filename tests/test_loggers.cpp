// The logger and its destinations: what is told when, what files hold, how a resumed run cuts them back.
#include "../tools/logs.hpp"
#include "logged_run.hpp"
#include "temporary_directory.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <sys/resource.h>
#include <vector>

namespace test_loggers {

using namespace sd_test;

namespace {

std::string content_of(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// No file of this process can grow beyond so many bytes, as long as it lives.
class FileSizeLimit {
public:
    explicit FileSizeLimit(std::size_t bytes) {
        REQUIRE(::getrlimit(RLIMIT_FSIZE, &before_) == 0);
        ::rlimit limit = before_;
        limit.rlim_cur = bytes;
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
    }
    FileSizeLimit(const FileSizeLimit&) = delete;
    FileSizeLimit& operator=(const FileSizeLimit&) = delete;
    ~FileSizeLimit() {
        ::setrlimit(RLIMIT_FSIZE, &before_);
        std::signal(SIGXFSZ, handler_);
    }

private:
    ::rlimit before_{};
    void (*handler_)(int) = std::signal(SIGXFSZ, SIG_IGN);
};

/// A destination that keeps what it is told, in words.
struct Memory final : sd::LogDestination {
    std::vector<std::string> told;

    void start(const sd::RunLength& length, const sd::LogRecord& record) override {
        told.push_back(sd::text(length.total_batches, " batches"));
        write(record);
    }
    void write(const sd::LogRecord& record) override {
        std::string words = sd::text(to_string(record.event), " at ", record.timestamp.batch, ':');
        for (const sd::Metric& metric : record.metrics) words += ' ' + metric.name;
        told.push_back(words);
    }
    void flush() override { told.push_back("flush"); }
};

}  // namespace

TEST_CASE("the logger keeps values until the event that they belong to, the latest of each name") {
    const auto memory = std::make_shared<Memory>();
    const auto second = std::make_shared<Memory>();
    Logger logger({memory, second});
    logger.log("a", 1);
    logger.log("b/c-d_e.2", 0.5F);
    logger.log("a", 3);
    REQUIRE(logger.pending().size() == 2);
    CHECK(std::get<std::int64_t>(logger.pending()[0].value) == 3);
    CHECK(std::get<double>(logger.pending()[1].value) == 0.5);
    logger.start(logged_run, {});
    CHECK(logger.pending().empty());
    logger.log("x", "words");
    logger.write(LogEvent::batch, {.batch = 1});
    logger.write(LogEvent::epoch, {.epoch = 1, .batch = 1});
    logger.flush();
    const std::vector<std::string> expected{"6 batches", "fit_start at 0: a b/c-d_e.2", "batch at 1: x",
                                            "epoch at 1:", "flush"};
    CHECK(memory->told == expected);
    CHECK(second->told == expected);
}

TEST_CASE("names that a file could not hold are refused") {
    Logger logger;
    for (const char* name : {"", "a,b", "a b", "a\nb", "\"", "loss[0]", "\xc3\xa4"}) {
        CHECK(contains(message_of([&] { logger.log(name, 1.0); }), "letters, digits, _, -, . and /"));
    }
    for (const char* name : {"event", "epoch", "batch", "sample"}) {
        CHECK(contains(message_of([&] { logger.log(name, 1.0); }), "any but event, epoch, batch and sample"));
    }
    CHECK(logger.pending().empty());
    CHECK(contains(message_of([] { Logger({nullptr}); }), "an empty pointer"));
}

TEST_CASE("JSON lines hold every record and every bit") {
    const TemporaryDirectory directory;
    const auto path = directory.write("metrics.jsonl", "of an older run\n");
    Logger logger({std::make_shared<sd::JsonLinesLogger>(path)});
    CHECK(content_of(path) == "of an older run\n");  // until a run starts
    logger.start(logged_run, {});
    CHECK(content_of(path).empty());
    logger.log("loss/train", 0.1 + 0.2);
    logger.log("count", -7);
    logger.log("nothing", std::numeric_limits<double>::quiet_NaN());
    logger.log("words", std::string("say \"hi\"\n\xff"));
    logger.log("kept", std::vector<double>{1, 0.25});
    logger.write(LogEvent::batch, {.epoch = 1, .batch = 5, .sample = 20, .batch_in_epoch = 2});
    logger.write(LogEvent::epoch, {.epoch = 2, .batch = 6});  // no metrics, no line
    const std::string line = content_of(path);
    CHECK(line.substr(0, 50) == R"({"event":"batch","epoch":1,"batch":5,"sample":20,")");
    CHECK(line.find('\n') == line.size() - 1);
    const auto object = nlohmann::json::parse(line);
    CHECK(object.size() == 9);
    CHECK(object["loss/train"].get<double>() == 0.1 + 0.2);
    CHECK(object["count"].get<int>() == -7);
    CHECK(object["nothing"].is_null());
    CHECK(object["words"].get<std::string>() == "say \"hi\"\n\xef\xbf\xbd");
    CHECK(object["kept"].get<std::vector<double>>() == std::vector<double>{1, 0.25});
}

TEST_CASE("CSV: a column keeps its place, a late metric gets one on the right") {
    const TemporaryDirectory directory;
    const auto path = directory.path() / "metrics.csv";
    Logger logger({std::make_shared<sd::CsvLogger>(path)});
    logger.start(logged_run, {});
    logger.log("loss/train", 0.1 + 0.2);
    logger.log("kept", std::vector<double>{1, 0.25});
    logger.write(LogEvent::batch, {.batch = 1, .sample = 4});
    logger.log("words", std::string("say \"hi\",\nyou"));
    logger.log("count", -7);
    logger.write(LogEvent::evaluation, {.batch = 1, .sample = 4});
    logger.log("loss/train", -std::numeric_limits<double>::infinity());
    logger.write(LogEvent::batch, {.batch = 2, .sample = 8});
    logger.write(LogEvent::epoch, {.epoch = 1, .batch = 2, .sample = 8});  // no metrics, no row
    CHECK(content_of(path) ==
          "event,epoch,batch,sample,loss/train,kept[0],kept[1],words,count\n"
          "batch,0,1,4,0.30000000000000004,1,0.25,,\n"
          "evaluation,0,1,4,,,,\"say \"\"hi\"\", you\",-7\n"
          "batch,0,2,8,-inf,,,,\n");
}

TEST_CASE("a resumed run's file is the uninterrupted one's, wherever the first one was stopped") {
    // `fourth` is how the line of the fourth batch begins.
    const auto check = [](const auto& open, const std::string& fourth) {
        const TemporaryDirectory directory;
        const auto path = directory.path() / "part";
        Logger uninterrupted({open(directory.path() / "whole")});
        log_run(uninterrupted, {}, 6, true);
        const std::string expected = content_of(directory.path() / "whole");

        // Stopped in good order at a checkpoint, and resumed there.
        Timestamp checkpoint;
        for (std::uint64_t batch = 1; batch <= 6; ++batch) {
            checkpoint.to_next_batch(4);
            if (batch % 3 == 0) checkpoint.to_next_epoch();
            Logger stopped({open(path)});
            log_run(stopped, {}, batch, true);
            Logger resumed({open(path)});
            log_run(resumed, checkpoint, 6, true);
            CHECK(content_of(path) == expected);
        }
        // Killed anywhere after the checkpoint of the fourth batch, in the middle of a line too.
        const std::size_t needed = expected.find('\n', expected.find('\n' + fourth) + 1) + 1;
        REQUIRE(needed > fourth.size());
        for (std::size_t size = needed; size <= expected.size(); ++size) {
            directory.write("part", expected.substr(0, size));
            Logger resumed({open(path)});
            log_run(resumed, {.epoch = 1, .batch = 4, .sample = 16, .batch_in_epoch = 1, .sample_in_epoch = 4}, 6,
                    true);
            REQUIRE(content_of(path) == expected);
        }
        // The checkpoint after the last batch of an epoch, before the epoch is finished: its record comes again.
        directory.write("part", expected);
        Logger before_epoch({open(path)});
        before_epoch.start(logged_run,
                           {.epoch = 0, .batch = 3, .sample = 12, .batch_in_epoch = 3, .sample_in_epoch = 12});
        CHECK(contains(content_of(path), "batch"));
        CHECK_FALSE(contains(content_of(path), "\nepoch"));
        CHECK_FALSE(contains(content_of(path), R"("epoch":1)"));
        // A file that is not there is begun anew.
        Logger anew({open(directory.path() / "anew")});
        log_run(anew, {.epoch = 1, .batch = 3, .sample = 12}, 4, false);
        CHECK(contains(content_of(directory.path() / "anew"), "num_stochastic_layers"));
    };
    SUBCASE("JSON lines") {
        check([](const std::filesystem::path& path) { return std::make_shared<sd::JsonLinesLogger>(path); },
              R"({"event":"batch","epoch":1,"batch":4,)");
    }
    SUBCASE("CSV") {
        check([](const std::filesystem::path& path) { return std::make_shared<sd::CsvLogger>(path); }, "batch,1,4,");
    }
}

TEST_CASE("a file that is no log of metrics is refused and left alone") {
    const TemporaryDirectory directory;
    const auto refused = [&](auto open, const std::string& content, const std::string& expected) {
        const auto path = directory.write("file", content);
        Logger logger({open(path)});
        const std::string message = error_of<std::runtime_error>([&] { logger.start(logged_run, {.batch = 4}); });
        CAPTURE(message);
        CHECK(contains(message, path.string()));
        CHECK(contains(message, expected));
        CHECK(content_of(path) == content);
    };
    const auto json = [](const std::filesystem::path& path) { return std::make_shared<sd::JsonLinesLogger>(path); };
    const std::string first = R"({"event":"batch","epoch":0,"batch":1})"
                              "\n";
    refused(json, first + "{\n", "line 2");
    refused(json, first + "[]\n", "line 2");
    refused(json,
            first + R"({"event":"batch","epoch":0})"
                    "\n",
            "line 2");
    refused(json,
            first + R"({"event":"pause","epoch":0,"batch":1})"
                    "\n",
            "\"pause\"");
    refused(json,
            first + R"({"event":"batch","epoch":"0","batch":1})"
                    "\n",
            "a JSON object with event, epoch and batch");
    const auto csv = [](const std::filesystem::path& path) { return std::make_shared<sd::CsvLogger>(path); };
    refused(csv, "name,value\n", "expected event,epoch,batch,sample");
    refused(csv, "event,epoch,batch,samples\n", "expected event,epoch,batch,sample");
    const std::string header = "event,epoch,batch,sample,a\n";
    refused(csv, header + "batch,0,1,4,1\nbatch,0,x,4,1\n", "line 3: got \"batch,0,x,4,1\"");
    refused(csv, header + "batch,0\n", "line 2");
    refused(csv, header + "batch,0,1x,4,1\n", "line 2");
    refused(csv, header + "pause,0,1,4,1\n", "line 2");
    refused(csv, header + "batch,-1,1,4,1\n", "line 2");
}

TEST_CASE("a file that cannot be written is an error, at once") {
    CHECK(contains(error_of<std::runtime_error>([] { sd::JsonLinesLogger("/nowhere/metrics.jsonl"); }),
                   "/nowhere/metrics.jsonl: opening"));
    CHECK(contains(error_of<std::runtime_error>([] { sd::CsvLogger("/nowhere/metrics.csv"); }),
                   "/nowhere/metrics.csv: opening"));
    // A device that is always full.
    const auto full = [](std::shared_ptr<sd::LogDestination> destination) {
        Logger logger({std::move(destination)});
        logger.start(logged_run, {});
        logger.log("a", 1);
        return error_of<std::runtime_error>([&] { logger.write(LogEvent::batch, {.batch = 1}); });
    };
    CHECK(contains(full(std::make_shared<sd::JsonLinesLogger>("/dev/full")), "/dev/full: writing: got No space left"));
    CHECK(contains(full(std::make_shared<sd::CsvLogger>("/dev/full")), "/dev/full: writing: got No space left"));
}

TEST_CASE("a line that does not fit leaves no half of itself behind") {
    const TemporaryDirectory directory;
    const auto check = [&](const char* name, auto open) {
        const auto path = directory.path() / name;
        Logger logger({open(path)});
        logger.start(logged_run, {});
        logger.log("a", 1);
        logger.write(LogEvent::batch, {.batch = 1});
        const std::string before = content_of(path);
        const FileSizeLimit limit(before.size() + 8);
        logger.log("a", 0.1 + 0.2);
        CHECK(contains(error_of<std::runtime_error>([&] { logger.write(LogEvent::batch, {.batch = 2}); }),
                       path.string() + ": writing: got File too large"));
        CHECK(content_of(path) == before);
    };
    check("json", [](const std::filesystem::path& path) { return std::make_shared<sd::JsonLinesLogger>(path); });
    check("csv", [](const std::filesystem::path& path) { return std::make_shared<sd::CsvLogger>(path); });
}

TEST_CASE("a link stays one, and its file gets the lines, late columns included") {
    const TemporaryDirectory directory;
    const auto link = directory.path() / "link";
    std::filesystem::create_directory(directory.path() / "below");
    std::filesystem::create_symlink(directory.path() / "below/metrics.csv", link);
    Logger logger({std::make_shared<sd::CsvLogger>(link)});
    logger.log("a", 1);
    logger.start(logged_run, {});
    logger.log("b", 2);
    logger.write(LogEvent::batch, {.batch = 1, .sample = 4});
    CHECK(std::filesystem::is_symlink(link));
    CHECK(content_of(directory.path() / "below/metrics.csv") ==
          "event,epoch,batch,sample,a,b\nfit_start,0,0,0,1,\nbatch,0,1,4,,2\n");
}

TEST_CASE("a run that goes on tells a device what comes from there on") {
    const Timestamp middle{.batch = 4};
    Logger({std::make_shared<sd::JsonLinesLogger>("/dev/null")}).start(logged_run, middle);
    Logger logger({std::make_shared<sd::CsvLogger>("/dev/null")});
    logger.log("a", 1);
    logger.start(logged_run, middle);
    // Nor is anything put in a device's place.
    logger.log("b", 2);
    CHECK(contains(error_of<std::runtime_error>([&] { logger.write(LogEvent::batch, {.batch = 5}); }),
                   "/dev/null: writing it again, for a late column: got a pipe or a device, expected a regular file"));
    CHECK(std::filesystem::is_character_file("/dev/null"));
}

TEST_CASE("destinations by name") {
    using tools::LogName;
    CHECK(tools::parse_logs("console") == std::vector<LogName>{{"console", ""}});
    CHECK(tools::parse_logs("console,jsonl:a/b:c.jsonl,csv:d.csv") ==
          std::vector<LogName>{{"console", ""}, {"jsonl", "a/b:c.jsonl"}, {"csv", "d.csv"}});
    for (const char* list :
         {"", ",", "console,", "consoles", "console:", "console:file", "jsonl",
          "jsonl:", "csv:", "tensorboard:", "wandb:x", "console,console", "csv:a,csv:a", "jsonl:a,csv:a", " console"}) {
        CAPTURE(list);
        CHECK(contains(message_of([&] { static_cast<void>(tools::parse_logs(list)); }),
                       "expected console, jsonl:FILE, csv:FILE or tensorboard:DIR"));
    }
    const TemporaryDirectory directory;
    const auto file = [&](const char* name) { return (directory.path() / name).string(); };
    const auto logs = tools::open_logs("csv:" + file("a") + ",console,jsonl:" + file("b"));
    REQUIRE(logs.size() == 3);
    CHECK(dynamic_cast<sd::CsvLogger*>(logs[0].get()) != nullptr);
    CHECK(dynamic_cast<sd::ConsoleLogger*>(logs[1].get()) != nullptr);
    CHECK(dynamic_cast<sd::JsonLinesLogger*>(logs[2].get()) != nullptr);
    CHECK(std::filesystem::exists(file("a")));
    CHECK(std::filesystem::exists(file("b")));
}

}  // namespace test_loggers
