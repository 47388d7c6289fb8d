// Text that a machine reads is the same under every locale of the program, and is read back.
#include "logged_run.hpp"
#include "messages.hpp"
#include "saved_run.hpp"
#include "temporary_directory.hpp"

#include "sd/io/state_dict.hpp"
#include "sd/training.hpp"
#include "sd/train/checkpoint_saver.hpp"
#include "sd/logs/json_lines_logger.hpp"

#include <doctest/doctest.h>

#include <clocale>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <locale>
#include <map>
#include <memory>
#include <sstream>
#include <string>

namespace test_locale {

using sd::text;
using sd_test::TemporaryDirectory;
using Run = sd_test::SavedRun;

namespace {

/// One half is 0,5, and ten is 1.0.
struct GroupedDigits : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\1"; }
};

/// Makes the program's locale another one, as long as it lives: of C++, and of C where the system has one.
class OtherLocale {
public:
    OtherLocale() : before_(std::locale::global(std::locale(std::locale::classic(), new GroupedDigits))) {
        for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"}) {
            if (std::setlocale(LC_ALL, name) != nullptr) break;
        }
    }
    OtherLocale(const OtherLocale&) = delete;
    OtherLocale& operator=(const OtherLocale&) = delete;
    ~OtherLocale() {
        std::locale::global(before_);
        std::setlocale(LC_ALL, "C");
    }

private:
    std::locale before_;
};

using Texts = std::map<std::string, std::string>;

void add_files(Texts& texts, const std::filesystem::path& directory) {
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        std::ifstream file(entry.path(), std::ios::binary);
        texts[entry.path().filename().string()] = {std::istreambuf_iterator<char>(file), {}};
    }
}

/// A run that is stopped in its 13th batch and goes on.
void add_checkpoints(Texts& texts) {
    const TemporaryDirectory directory;
    const sd_test::Settings settings{.duration = "5ep", .interval = "1ba", .keep = 20};
    {
        std::function<void()> stop;
        Run run(directory.path(), settings, nullptr, sd_test::StopAt{&stop, 12});
        stop = [&] { run.trainer.request_stop(); };
        CHECK(run.trainer.fit() == sd::FitEnd::stopped);
    }
    Run run(directory.path(), settings);
    const auto found = run.saver.resume();
    REQUIRE(found.has_value());
    CHECK(found->skipped.empty());
    CHECK(run.trainer.state().timestamp.batch == 13);
    CHECK(run.trainer.fit() == sd::FitEnd::finished);
    add_files(texts, directory.path());
}

void add_weights(Texts& texts) {
    const TemporaryDirectory directory;
    auto model = sd::cifar_resnet<float>(8, {.num_classes = 10, .seed = 1});
    sd::save_weights(model, directory.path() / "weights");
    sd::load_weights(model, directory.path() / "weights");
    add_files(texts, directory.path());
}

/// Metrics of a run of 13 batches, and of one that goes on after the 10th.
void add_logs(Texts& texts) {
    const TemporaryDirectory directory;
    for (const std::uint64_t first : {0, 10}) {
        sd::Logger logger({std::make_shared<sd::JsonLinesLogger>(directory.path() / "jsonl"),
                           std::make_shared<sd::CsvLogger>(directory.path() / "csv")});
        sd_test::log_run(logger, {first / 3, first, 4 * first, first % 3, 4 * (first % 3)}, first == 0 ? 13 : 14, true);
    }
    add_files(texts, directory.path());
}

void add_words(Texts& texts) {
    const sd::StochasticDepthOptions options{.target_layer_name = "ResNetBasicBlock", .drop_rate = 0.123456789};
    texts["options"] = to_string(options);
    CHECK(sd::parse_options(texts["options"]).drop_rate == options.drop_rate);
    const sd::LearningRateSchedule schedule("warmup:1234ba,multistep:0.25dur,12345ba:0.125");
    texts["schedule"] = to_string(schedule);
    CHECK(to_string(sd::LearningRateSchedule(texts["schedule"])) == texts["schedule"]);
    texts["error"] = text(sd::Shape{1234, 5678}, ' ', 0.5, ' ', 1234567);

    std::ostringstream shown;
    auto model = sd::cifar_resnet<float>(20, {.num_classes = 10, .seed = 1});
    sd::apply_stochastic_depth(model, options);
    shown << sd::describe(model, 1234) << sd::Shape{1234, 5678} << sd::Time("12345ba");
    sd::Logger logger({std::make_shared<sd::ConsoleLogger>(sd::ConsoleOptions{
        .out = &shown, .live = true, .seconds = [&] { return 45296.0; }, .columns = [] { return std::size_t{200}; }})});
    logger.log("images_per_second", 1234.5);
    sd_test::log_run(logger, {}, 6, true);
    texts["shown"] = shown.str();
}

Texts all_texts() {
    const sd_test::Warnings warnings;
    Texts texts;
    add_checkpoints(texts);
    add_weights(texts);
    add_logs(texts);
    add_words(texts);
    return texts;
}

}  // namespace

TEST_CASE("files, settings and tables are the same under a locale that groups digits and has a decimal comma") {
    const Texts expected = all_texts();
    CHECK(expected.size() == 15 + 3 + 4);
    CHECK(expected.contains("checkpoint-000000000013.safetensors"));
    CHECK(expected.at("error") == "(1234, 5678) 0.5 1234567");
    const OtherLocale other;
    std::ostringstream own;
    own << 10.5;
    REQUIRE(own.str() == "1.0,5");
    const Texts got = all_texts();
    for (const auto& [name, content] : expected) {
        CAPTURE(name);
        REQUIRE(got.contains(name));
        CHECK(got.at(name) == content);
    }
    CHECK(got.size() == expected.size());
}

}  // namespace test_locale
