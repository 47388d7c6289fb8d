// The known answers to which docs/play/masks.js is held are the library's; tests/test_play_masks.mjs is the other side.
#include "sd/stochastic_depth/options_text.hpp"
#include "sd/stochastic_depth/policy_registry.hpp"
#include "sd/stochastic_depth/schedule.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

namespace test_play_masks {

namespace {

using nlohmann::json;

json known_answers() { return json::parse(std::ifstream(SD_TEST_DATA_DIR "/play_masks.json")); }

template <class Words>
Words words_from(const json& hexadecimal) {
    Words words;
    REQUIRE(hexadecimal.size() == words.size());
    for (std::size_t i = 0; i < words.size(); ++i) {
        words[i] = static_cast<std::uint32_t>(std::stoul(hexadecimal[i].get<std::string>(), nullptr, 16));
    }
    return words;
}

sd::StochasticDepthOptions options_from(const json& entry) {
    return {.stochastic_method = sd::parse<sd::StochasticMethod>(entry.value("method", "sample")),
            .drop_rate = entry.at("drop_rate"),
            .drop_distribution = sd::parse<sd::DropDistribution>(entry.at("distribution").get<std::string>())};
}

}  // namespace

TEST_CASE("the known answers of Philox are the library's") {
    const json all = known_answers();
    REQUIRE(all.at("philox").size() == 5);
    for (const json& entry : all.at("philox")) {
        CAPTURE(entry.dump());
        CHECK(sd::philox4x32_10(words_from<sd::PhiloxCounter>(entry.at("counter")),
                                words_from<sd::PhiloxKey>(entry.at("key"))) ==
              words_from<sd::PhiloxCounter>(entry.at("words")));
    }
}

TEST_CASE("the known thresholds and rates are the library's") {
    const json all = known_answers();
    REQUIRE(all.at("thresholds").size() == 10);
    for (const json& entry : all.at("thresholds")) {
        CAPTURE(entry.dump());
        CHECK(sd::detail::drop_threshold(entry.at("drop_rate")) == entry.at("threshold").get<std::uint32_t>());
    }
    REQUIRE(all.at("rates").size() == 16);
    for (const json& entry : all.at("rates")) {
        const auto rates = entry.at("rates").get<std::vector<double>>();
        const auto blocks = static_cast<sd::Index>(rates.size());
        CAPTURE(entry.dump());
        for (std::size_t i = 0; i < rates.size(); ++i) {
            CHECK(sd::drop_rate_of_block(options_from(entry), true, static_cast<sd::Index>(i), blocks) == rates[i]);
        }
    }
}

TEST_CASE("the known masks are the library's") {
    const json all = known_answers();
    REQUIRE(all.at("masks").size() == 16);
    for (const json& entry : all.at("masks")) {
        const auto kept = entry.at("kept").get<std::vector<std::string>>();
        const auto options = options_from(entry);
        const auto context = sd::Context::train({.step = std::stoull(entry.at("step").get<std::string>()),
                                                 .seed = std::stoull(entry.at("seed").get<std::string>())});
        CAPTURE(entry.dump());
        for (std::size_t i = 0; i < kept.size(); ++i) {
            const double rate =
                sd::drop_rate_of_block(options, true, static_cast<sd::Index>(i), static_cast<sd::Index>(kept.size()));
            const auto mask = sd::make_policy(options, rate)
                                  .draw(context, static_cast<std::uint32_t>(i), entry.at("samples").get<sd::Index>());
            std::string digits;
            for (const auto keeps : mask) digits += keeps == 1 ? '1' : '0';
            CHECK(digits == kept[i]);
        }
    }
}

}  // namespace test_play_masks
