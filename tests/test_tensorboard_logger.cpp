// TensorBoard's files: the bytes of its own writer, what a resumed run cuts, what is refused.
#include "../tools/logs.hpp"
#include "logged_run.hpp"
#include "temporary_directory.hpp"

#include "sd/logs/tensorboard_logger.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_tensorboard_logger {

using namespace sd_test;

namespace {

std::string content_of(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// A logger into a folder; its clock stands still at 2.
Logger logger_into(const std::filesystem::path& directory) {
    return Logger({std::make_shared<sd::TensorBoardLogger>(directory, [] { return 2.0; })});
}

/// The sizes of a file after each of its events.
std::vector<std::size_t> ends_of_events(const std::string& content) {
    std::vector<std::size_t> ends;
    std::size_t end = 0;
    while (const auto event = sd::detail::event_at(content, end, "file")) {
        end += sd::detail::size_of_record(*event);
        ends.push_back(end);
    }
    return ends;
}

}  // namespace

TEST_CASE("CRC-32C: the numbers of RFC 3720") {
    std::string up(32, '\0');
    for (std::size_t i = 0; i < up.size(); ++i) up[i] = static_cast<char>(i);
    CHECK(sd::detail::crc32c(std::string(32, '\0')) == 0x8a9136aa);
    CHECK(sd::detail::crc32c(std::string(32, '\xff')) == 0x62a8ab43);
    CHECK(sd::detail::crc32c(up) == 0x46dd794e);
    CHECK(sd::detail::crc32c(std::string(up.rbegin(), up.rend())) == 0x113fdb5c);
    CHECK(sd::detail::crc32c("123456789") == 0xe3069283);
    CHECK(sd::detail::crc32c("") == 0);
}

TEST_CASE("the file is TensorBoard's own") {
    // Made with tensorboard 2.21 by tools/make_event_file.py.
    const std::string expected = content_of(SD_TEST_DATA_DIR "/events.out.tfevents.sd");
    REQUIRE(expected.size() == 1438);
    const TemporaryDirectory directory;
    const auto folder = directory.path() / "not/yet/there";
    double time = 999.5;
    Logger logger({std::make_shared<sd::TensorBoardLogger>(folder, [&] { return ++time; })});
    log_run(logger, {}, 6, true);  // the text at its end is none of TensorBoard's scalars
    CHECK(content_of(folder / "events.out.tfevents.sd") == expected);
}

TEST_CASE("numbers that a float does not hold, and long steps and names") {
    const TemporaryDirectory directory;
    Logger logger = logger_into(directory.path());
    logger.start(logged_run, {});
    logger.log("none", std::numeric_limits<double>::quiet_NaN());
    logger.log("large", 1e300);
    logger.log("small", -1e-300);
    logger.log("count", std::int64_t{16777217});
    logger.log(std::string(200, 'n'), 0.0);
    logger.write(LogEvent::batch, {.batch = 300});
    logger.log("words", std::string("only"));
    logger.write(LogEvent::batch, {.batch = 301});
    const std::string content = content_of(directory.path() / "events.out.tfevents.sd");
    REQUIRE(ends_of_events(content).size() == 2);  // the version, and one event
    const std::string event(*sd::detail::event_at(content, ends_of_events(content)[0], "file"));
    CHECK(event.substr(9, 3) == "\x10\xac\x02");  // field 2, 300 = 0x2c + 2 * 128
    const auto has = [&](const std::string& tag, const std::string& little_endian) {
        return contains(event, tag + '\x15' + little_endian);
    };
    CHECK(has("none", {'\0', '\0', '\xc0', '\x7f'}));
    CHECK(has("large", {'\0', '\0', '\x80', '\x7f'}));
    CHECK(has("small", {'\0', '\0', '\0', '\x80'}));
    CHECK(has("count", {'\0', '\0', '\x80', '\x4b'}));  // 16777216
    CHECK(has(std::string("\x0a\xc8\x01") + std::string(200, 'n'), {'\0', '\0', '\0', '\0'}));
}

TEST_CASE("a resumed run's events are the uninterrupted one's, wherever the first one was stopped") {
    const TemporaryDirectory directory;
    const auto folder = directory.path() / "part";
    const auto file = folder / "events.out.tfevents.sd";
    Logger uninterrupted = logger_into(directory.path() / "whole");
    log_run(uninterrupted, {}, 6, true);
    const std::string expected = content_of(directory.path() / "whole/events.out.tfevents.sd");

    // Stopped in good order at a checkpoint, and resumed there.
    Timestamp checkpoint;
    for (std::uint64_t batch = 1; batch <= 6; ++batch) {
        checkpoint.to_next_batch(4);
        if (batch % 3 == 0) checkpoint.to_next_epoch();
        Logger stopped = logger_into(folder);
        log_run(stopped, {}, batch, true);
        Logger resumed = logger_into(folder);
        log_run(resumed, checkpoint, 6, true);
        CHECK(content_of(file) == expected);
    }
    // Killed anywhere after the checkpoint of the fourth batch, the eighth event behind the version, or the power lost.
    const std::size_t needed = ends_of_events(expected)[7];
    const Timestamp fourth{.epoch = 1, .batch = 4, .sample = 16, .batch_in_epoch = 1, .sample_in_epoch = 4};
    const auto go_on_from = [&](const std::string& content) {
        directory.write("part/events.out.tfevents.sd", content);
        Logger resumed = logger_into(folder);
        log_run(resumed, fourth, 6, true);
        REQUIRE(content_of(file) == expected);
    };
    for (std::size_t size = needed; size <= expected.size(); ++size) go_on_from(expected.substr(0, size));
    go_on_from(expected.substr(0, needed) + std::string(40, '\0'));
    // The checkpoint after the last batch of an epoch, before the epoch is finished: its record comes again.
    directory.write("part/events.out.tfevents.sd", expected);
    logger_into(folder).start(logged_run, {.batch = 3, .sample = 12, .batch_in_epoch = 3, .sample_in_epoch = 12});
    CHECK(content_of(file) == expected.substr(0, ends_of_events(expected)[4]));
    // An evaluation that is still to come.
    directory.write("part/events.out.tfevents.sd", expected);
    logger_into(folder).start(logged_run, {.epoch = 1, .batch = 3, .sample = 12}, true);
    CHECK(content_of(file) == expected.substr(0, ends_of_events(expected)[5]));
    // A file without events is begun anew.
    for (const std::size_t size : {std::size_t{0}, std::size_t{7}, ends_of_events(expected)[0]}) {
        directory.write("part/events.out.tfevents.sd", expected.substr(0, size));
        Logger anew = logger_into(folder);
        log_run(anew, {.epoch = 1, .batch = 3, .sample = 12}, 4, false);
        CHECK(contains(content_of(file), "num_stochastic_layers"));
        CHECK(ends_of_events(content_of(file)).size() == 3);
    }
}

TEST_CASE("a file that is no log of metrics is refused and left alone") {
    const TemporaryDirectory directory;
    const std::string good = content_of(SD_TEST_DATA_DIR "/events.out.tfevents.sd");
    const std::size_t version = ends_of_events(good)[0];
    const auto refused = [&](const std::string& content, const std::string& expected) {
        const auto path = directory.write("events.out.tfevents.sd", content);
        const std::string message = error_of<std::runtime_error>(
            [&] { logger_into(directory.path()).start(logged_run, {.epoch = 9, .batch = 99}); });
        CAPTURE(message);
        CHECK(contains(message, path.string() + ": " + expected));
        CHECK(content_of(path) == content);
    };
    refused("event,epoch,batch,sample\n", "checksum at byte 0: got ");
    for (const std::size_t byte : {version, version + 9, version + 20}) {  // length, its checksum, the event
        std::string damaged = good;
        damaged[byte] = static_cast<char>(damaged[byte] ^ 1);
        refused(damaged, sd::text("checksum at byte ", version, ": got "));
    }
    const auto event = [](const std::string& bytes) { return sd::detail::event_record(bytes); };
    refused(event(""), "event at byte 0: got another one, expected an event of version 2");
    refused(event("\x1a\x0d"
                  "brain.Event:1"),
            "event at byte 0: got another one, expected an event of version 2");
    const auto of_writer = [&](const std::string& writer) {
        sd::detail::ProtoMessage source, whole;
        source.add_bytes(1, writer);
        whole.add_bytes(10, source.bytes());
        return good.substr(0, version) + event(whole.bytes());
    };
    const std::string expected = sd::text("event at byte ", version, ": got another one, expected one whose writer is");
    for (const char* writer : {"", "tensorboard", "sd", "sd ", "sd pause 0 1", "sd batch 0", "sd batch 0 1 ",
                               "sd batch 0 x", "sd batch -1 1", "sd batch 0 99999999999999999999"}) {
        refused(of_writer(writer), expected);
    }
    // Messages that end within a field, that have no such field, and kinds of fields that are none.
    for (const std::string bytes : {"\x52",
                                    "\x52\x7f"
                                    "a",
                                    "\x10", "\x10\x80",
                                    "\x09"
                                    "1234567",
                                    "\x2d"
                                    "123",
                                    "\x53", "\x10\x01"}) {
        refused(good.substr(0, version) + event(bytes), expected);
    }
}

TEST_CASE("a folder that cannot be had, an event that does not fit, and no clock") {
    const TemporaryDirectory directory;
    const auto file = directory.write("file", "");
    CHECK(contains(error_of<std::runtime_error>([&] { sd::TensorBoardLogger logger(file / "below"); }),
                   "below: creating the folder: got Not a directory, expected a folder for TensorBoard"));
    CHECK(contains(message_of([&] { sd::TensorBoardLogger logger(directory.path() / "x", nullptr); }),
                   "clock: got none"));
}

TEST_CASE("by name, and the settings of its run") {
    const TemporaryDirectory directory;
    const std::string folder = (directory.path() / "run").string();
    const auto logs = tools::open_logs("tensorboard:" + folder);
    REQUIRE(logs.size() == 1);
    CHECK(dynamic_cast<sd::TensorBoardLogger*>(logs[0].get()) != nullptr);
    CHECK(std::filesystem::exists(folder + "/events.out.tfevents.sd"));
    CHECK(tools::settings_beside({"tensorboard", folder}) == folder + "/settings.toml");
    CHECK(tools::settings_beside({"csv", folder + ".csv"}) == folder + ".settings.toml");
    CHECK_FALSE(tools::settings_beside({"csv", "/dev/null"}));
    CHECK_FALSE(tools::settings_beside({"console", ""}));
    CHECK(contains(message_of([] { static_cast<void>(tools::parse_logs("tensorboard")); }), "tensorboard:DIR"));
}

}  // namespace test_tensorboard_logger
