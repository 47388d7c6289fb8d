// Time, timestamps and the length of a run: what parses, what compares, what is refused, and when intervals come round.
#include "messages.hpp"

#include "sd/core/timestamp.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

namespace test_time {

using sd::RunLength;
using sd::Time;
using sd::TimeOrFraction;
using sd::Timestamp;
using sd::TimeUnit;
using sd_test::contains;
using sd_test::message_of;

namespace {

// 3 batches of 4, 4 and 2 samples an epoch.
RunLength run_of(const Time& duration) { return sd::run_length(duration, 3, 10, 4); }

/// The batches, of an epoch of three, after which the interval comes round when told of every batch and epoch.
std::vector<std::uint64_t> hits(const Time& interval, std::uint64_t epochs) {
    const RunLength run = run_of({static_cast<double>(epochs), TimeUnit::epoch});
    std::vector<std::uint64_t> batches;
    Timestamp now;
    const auto step = [&](auto advance) {
        const Timestamp before = now;
        advance();
        if (sd::reaches_interval(interval, before, now, run)) batches.push_back(now.batch);
    };
    for (std::uint64_t epoch = 0; epoch < epochs; ++epoch) {
        for (const std::uint64_t samples : {4, 4, 2}) step([&] { now.to_next_batch(samples); });
        step([&] { now.to_next_epoch(); });
    }
    return batches;
}

}  // namespace

TEST_CASE("times parse, and print as text that parses to the same time") {
    const Time epochs = "90ep";
    CHECK(epochs.unit() == TimeUnit::epoch);
    CHECK(epochs.count() == 90);
    CHECK(Time("500ba") == Time(500, TimeUnit::batch));
    CHECK(Time("1.28e6sp") == Time(1280000, TimeUnit::sample));
    CHECK(Time(std::string("0.1dur")).value() == 0.1);
    for (const char* text : {"0ep", "5ep", "500ba", "1280000sp", "9007199254740991ba", "0.1dur", "0dur", "1dur",
                             "0.30000000000000004dur", "5e-324dur"}) {
        CHECK(to_string(Time(text)) == text);
        CHECK(Time(to_string(Time(text))).value() == Time(text).value());
    }
    CHECK(to_string(Time("1e3ba")) == "1000ba");
}

TEST_CASE("anything else is refused, saying what is allowed") {
    for (const char* text :
         {"",        "5",       "0.1",   "ep",      "dur",   "5 ep",    " 5ep",      "5ep ",
          "5epochs", "5tok",    "5EP",   "five ep", "-5ep",  "-0ep",    "+5ep",      "1.5ep",
          "0.5ba",   "2.5sp",   "nanep", "nandur",  "infba", "1e400ba", "1e-400dur", "9007199254740992ba",
          "1.1dur",  "-0.1dur", "0x5ep", "5ep5",    "5e",    "1e",      "5,ep"}) {
        CAPTURE(text);
        const std::string message = message_of([&] { Time{text}; });
        CHECK(contains(message, '"' + std::string(text) + '"'));
        CHECK(contains(message, "a whole number with ep, ba or sp (5ep, 500ba, 1e6sp), or 0 to 1 with dur (0.1dur)"));
    }
    CHECK(contains(message_of([] { Time(1.5, TimeUnit::epoch); }), "1.5ep"));
    CHECK(contains(message_of([] { Time(std::numeric_limits<double>::quiet_NaN(), TimeUnit::duration); }), "nandur"));
    CHECK(contains(message_of([] { static_cast<void>(Time("0.5dur").count()); }), "0.5dur"));
    // A bare number does not even compile.
    static_assert(!std::is_convertible_v<int, Time> && !std::is_convertible_v<double, Time>);
}

TEST_CASE("times of one unit compare; of two units they are refused") {
    CHECK(Time("5ep") < Time("10ep"));
    CHECK(Time("0.5dur") >= Time("0.5dur"));
    CHECK(Time("5ba") != Time("6ba"));
    CHECK(contains(message_of([] { static_cast<void>(Time("1ep") < Time("10ba")); }), "1ep and 10ba"));
    CHECK(contains(message_of([] { static_cast<void>(Time("1ep") == Time("1sp")); }), "two times of the same unit"));
}

TEST_CASE("a warmup may be a plain fraction") {
    CHECK(TimeOrFraction(0.1).time() == Time("0.1dur"));
    CHECK(TimeOrFraction(0).time() == Time("0dur"));
    CHECK(TimeOrFraction(-0.0).time() == Time("0dur"));
    CHECK(TimeOrFraction("0.1").time() == Time("0.1dur"));
    CHECK(TimeOrFraction("1").time() == Time("1dur"));
    CHECK(TimeOrFraction("5ep").time() == Time("5ep"));
    CHECK(TimeOrFraction(Time("500ba")).time() == Time("500ba"));
    for (const double fraction : {-0.1, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
        CHECK(contains(message_of([&] { TimeOrFraction{fraction}; }), "0 to 1, or a whole number with ep"));
    }
    CHECK(contains(message_of([] { TimeOrFraction("5"); }), "got 5, expected 0 to 1"));
    CHECK(contains(message_of([] { TimeOrFraction("soon"); }), "\"soon\""));
}

TEST_CASE("a timestamp counts what is finished") {
    Timestamp now;
    now.to_next_batch(4);
    now.to_next_batch(2);
    CHECK(now == Timestamp{.epoch = 0, .batch = 2, .sample = 6, .batch_in_epoch = 2, .sample_in_epoch = 6});
    now.to_next_epoch();
    now.to_next_batch(4);
    CHECK(now == Timestamp{.epoch = 1, .batch = 3, .sample = 10, .batch_in_epoch = 1, .sample_in_epoch = 4});
    CHECK(now.count(TimeUnit::epoch) == 1);
    CHECK(now.count(TimeUnit::batch) == 3);
    CHECK(now.count(TimeUnit::sample) == 10);
    CHECK(contains(message_of([&] { static_cast<void>(now.count(TimeUnit::duration)); }), "ep, ba or sp"));
}

TEST_CASE("the length of a run, in every unit") {
    CHECK(run_of("7ep") == RunLength{3, 10, 4, 21});
    CHECK(run_of("7ep").total_epochs() == 7);
    CHECK(run_of("7ba").total_batches == 7);
    CHECK(run_of("7ba").total_epochs() == 3);
    // Samples: until at least so many are finished. After 3 batches 10 are, after 4 batches 14.
    CHECK(run_of("1sp").total_batches == 1);
    CHECK(run_of("4sp").total_batches == 1);
    CHECK(run_of("5sp").total_batches == 2);
    CHECK(run_of("10sp").total_batches == 3);
    CHECK(run_of("11sp").total_batches == 4);
    CHECK(run_of("28sp").total_batches == 8);
    for (const char* duration : {"0ep", "0ba", "0sp", "1dur", "0.5dur"}) {
        CHECK(contains(message_of([&] { run_of(duration); }), "max_duration"));
    }
    CHECK(contains(message_of([] { static_cast<void>(sd::run_length("1ep", 0, 0, 4)); }), "0 batches of 4, 0 samples"));
    CHECK(contains(message_of([] { run_of("9007199254740991ep"); }), "fewer than 9007199254740992"));
}

TEST_CASE("times in batches: a fraction of the run is not rounded, but for the rounding of numbers") {
    const RunLength run = run_of("95ba");
    CHECK(sd::batches_of("2ep", run) == 6);
    CHECK(sd::batches_of("11sp", run) == 4);
    CHECK(sd::batches_of("0.1dur", run) == 9.5);
    REQUIRE(0.07 * 100 != 7);
    CHECK(sd::batches_of("0.07dur", run_of("100ba")) == 7);
    CHECK(sd::batches_of("0dur", run) == 0);
    CHECK(sd::batches_of("1dur", run) == 95);
    CHECK(sd::elapsed_fraction({}, run) == 0);
    CHECK(sd::elapsed_fraction({.batch = 19}, run) == 0.2);
    CHECK(sd::elapsed_fraction({.batch = 96}, run) == 1);
}

TEST_CASE("intervals come round at their multiples, once each") {
    using Batches = std::vector<std::uint64_t>;
    CHECK(hits("1ep", 3) == Batches{3, 6, 9});
    CHECK(hits("2ep", 5) == Batches{6, 12});
    CHECK(hits("1ba", 2) == Batches{1, 2, 3, 4, 5, 6});
    CHECK(hits("4ba", 4) == Batches{4, 8, 12});
    CHECK(hits("8sp", 2) == Batches{2, 5});                 // 8 and 16 of the samples 4, 8, 10, 14, 18, 20
    CHECK(hits("3sp", 2) == Batches{1, 2, 3, 4, 5});        // 3; 6; 9; 12; 15 and 18; nothing new by 20
    CHECK(hits("0.5dur", 3) == Batches{5, 9});              // 4.5 and 9 of 9 batches
    CHECK(hits("0.1dur", 2) == Batches{1, 2, 3, 4, 5, 6});  // every 0.6 batches
    CHECK(hits("1dur", 2) == Batches{6});
    // 10 times 0.1 of 30 batches, although 0.1 is no binary fraction.
    CHECK(hits("0.1dur", 10) == Batches{3, 6, 9, 12, 15, 18, 21, 24, 27, 30});
    CHECK(contains(message_of([] { hits("0ep", 1); }), "more than 0"));
}

}  // namespace test_time
