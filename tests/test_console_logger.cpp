// What the console shows of a run, in a file and on a terminal.
#include "logged_run.hpp"

#include "sd/logs/console_logger.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

namespace test_console_logger {

using namespace sd_test;

namespace {

/// A console whose clock and width the test sets.
struct Console {
    std::ostringstream out;
    double seconds = 1000;
    std::size_t columns = 200;
    Logger logger;

    explicit Console(bool live)
        : logger({std::make_shared<sd::ConsoleLogger>(sd::ConsoleOptions{.out = &out,
                                                                         .live = live,
                                                                         .seconds = [this] { return seconds; },
                                                                         .columns = [this] { return columns; }})}) {}
};

}  // namespace

TEST_CASE("the console writes a line an epoch, with its evaluation") {
    Console console(false);
    log_run(console.logger, {}, 4, false);
    console.seconds += 3725;
    console.logger.write(LogEvent::fit_end, {.epoch = 1, .batch = 4});
    CHECK(console.out.str() ==
          "trains 2 epochs of 3 batches  num stochastic layers 9\n"
          "epoch 1/2  loss 0.6667  learning rate 0.1  eval:  accuracy 30.00 %\n"
          "stopped at batch 4 of 6 after 1:02:05\n");
}

TEST_CASE("the line for the start shows texts, others do not") {
    Console console(false);
    console.logger.log("machine", std::string("amx"));
    console.logger.start(logged_run, {});
    console.logger.log("note", std::string("done"));
    console.logger.write(LogEvent::epoch, {.epoch = 1, .batch = 3});
    console.logger.write(LogEvent::fit_end, {.epoch = 1, .batch = 3});
    CHECK(contains(console.out.str(), "trains 2 epochs of 3 batches  machine amx\nepoch 1/2\nstopped"));
}

TEST_CASE("the console tells evaluations between epochs, epochs without one, and where a resumed run starts") {
    Console console(false);
    Timestamp now{.epoch = 1, .batch = 3};
    console.logger.start(logged_run, now);
    now.to_next_batch(4);
    console.logger.log("loss/train", 0.25);
    console.logger.log("images_per_second", 1234.5);
    console.logger.write(LogEvent::batch, now);
    console.logger.log("loss/eval", 0.5);
    console.logger.write(LogEvent::evaluation, now);
    now.to_next_batch(4);
    now.to_next_batch(4);
    now.to_next_epoch();
    console.logger.write(LogEvent::epoch, now);
    console.logger.write(LogEvent::fit_end, now);
    CHECK(console.out.str() ==
          "trains 2 epochs of 3 batches, from batch 3 on\n"
          "batch 4/6  eval:  loss 0.5000\n"
          "epoch 2/2  loss 0.2500  1234 images/s\n"
          "finished after 0:00\n");
}

TEST_CASE("an epoch's line waits for an evaluation until the next batch, not longer") {
    Console console(false);
    console.logger.start(logged_run, {});
    console.logger.log("loss/train", 0.5);
    console.logger.write(LogEvent::epoch, {.epoch = 1, .batch = 3});
    CHECK_FALSE(contains(console.out.str(), "epoch 1/2"));
    console.seconds += 60;
    console.logger.write(LogEvent::batch, {.epoch = 1, .batch = 4, .batch_in_epoch = 1});
    // And no live line, which is for terminals.
    CHECK(console.out.str() == "trains 2 epochs of 3 batches\nepoch 1/2  loss 0.5000\n");
}

TEST_CASE("on a terminal a line moves along and tells the time left") {
    Console console(true);
    Timestamp now{.batch = 1, .batch_in_epoch = 1};
    console.logger.start(logged_run, now);
    const auto shown = [&](double seconds) {
        console.out.str("");
        console.seconds += seconds;
        now.to_next_batch(4);
        console.logger.log("loss/train", 0.25);
        console.logger.write(LogEvent::batch, now);
        return console.out.str();
    };
    // 30 s for the first of the five batches that are left: 120 s for the other four.
    CHECK(shown(30) == "\repoch 1/2  batch 2/3  33 %, 2:00 left  loss 0.2500\033[K");
    CHECK(shown(0.05).empty());  // too soon to be read
    console.columns = 12;
    now.to_next_epoch();
    CHECK(shown(30) == "\repoch 2/2  \033[K");
    // What comes next takes the line's place.
    console.out.str("");
    console.logger.write(LogEvent::fit_end, now);
    CHECK(console.out.str() == "\r\033[Kstopped at batch 4 of 6 after 1:00\n");
}

TEST_CASE("a line that is not finished ends with the console") {
    std::ostringstream out;
    {
        double seconds = 0;
        Logger logger(
            {std::make_shared<sd::ConsoleLogger>(sd::ConsoleOptions{.out = &out,
                                                                    .live = true,
                                                                    .seconds = [&] { return seconds; },
                                                                    .columns = [] { return std::size_t{80}; }})});
        logger.start(logged_run, {});
        seconds = 1;
        logger.write(LogEvent::batch, {.batch = 1, .batch_in_epoch = 1});
        REQUIRE(out.str().back() == 'K');
    }
    CHECK(out.str().back() == '\n');
}

TEST_CASE("a console that cannot be written is an error") {
    Console console(false);
    console.out.setstate(std::ios::badbit);
    CHECK(contains(error_of<std::runtime_error>([&] { console.logger.start(logged_run, {}); }), "console: writing"));
    CHECK(contains(message_of([] { sd::ConsoleLogger(sd::ConsoleOptions{.out = nullptr}); }), "a stream"));
}

}  // namespace test_console_logger
