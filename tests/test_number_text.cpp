// Numbers as text, in any locale. The digits are those that Python writes.
#include <doctest/doctest.h>

#include <sd/core/number_text.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <locale>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "random.hpp"

namespace test_number_text {

namespace {

/// A comma for the point, and groups of three.
class German : public std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
};

/// The program's locale is another one while this lives.
class OtherLocale {
public:
    OtherLocale() : before_(std::locale::global(std::locale(std::locale::classic(), new German))) {}
    ~OtherLocale() { std::locale::global(before_); }

private:
    std::locale before_;
};

std::uint64_t bits(double number) {
    std::uint64_t result = 0;
    std::memcpy(&result, &number, sizeof result);
    return result;
}

double of_bits(std::uint64_t bits) {
    double result = 0;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

}  // namespace

TEST_CASE("number text: the shortest that gives the number back") {
    const OtherLocale other;
    struct Case {
        double number;
        const char* expected;
    };
    const Case cases[] = {{0, "0"},
                          {-0.0, "-0"},
                          {1, "1"},
                          {-2.5, "-2.5"},
                          {0.1, "0.1"},
                          {1.0 / 3, "0.3333333333333333"},
                          {0.00001, "1e-05"},
                          {0.0001, "1e-04"},
                          {0.001, "0.001"},
                          {1234.5, "1234.5"},
                          {100000, "1e+05"},
                          {1234567, "1234567"},
                          {9007199254740993.0, "9007199254740992"},
                          {1e22, "1e+22"},
                          {123456789012345680000.0, "123456789012345683968"},
                          {5e-324, "5e-324"},
                          {2.2250738585072011e-308, "2.225073858507201e-308"},
                          {2.2250738585072014e-308, "2.2250738585072014e-308"},
                          {1.7976931348623157e308, "1.7976931348623157e+308"}};
    for (const Case& one : cases) {
        CHECK(sd::detail::number_text(one.number) == one.expected);
        const auto back = sd::detail::parse_finite(one.expected);
        REQUIRE_MESSAGE(back.has_value(), one.expected);
        CHECK(bits(*back) == bits(one.number));
    }
}

TEST_CASE("number text: what is not finite has a text too") {
    CHECK(sd::detail::number_text(std::numeric_limits<double>::infinity()) == "inf");
    CHECK(sd::detail::number_text(-std::numeric_limits<double>::infinity()) == "-inf");
    CHECK(sd::detail::number_text(std::numeric_limits<double>::quiet_NaN()) == "nan");
}

TEST_CASE("number text: every bit comes back") {
    const OtherLocale other;
    std::mt19937_64 random(sd_test::seed);
    int finite = 0;
    for (int i = 0; i < 20000; ++i) {
        std::uint64_t pattern = random();
        if (i % 4 == 0) pattern &= 0x800fffffffffffffU;  // below the smallest normal number
        const double number = of_bits(pattern);
        if (((pattern >> 52) & 0x7ff) == 0x7ff) continue;
        ++finite;
        const std::string text = sd::detail::number_text(number);
        const auto back = sd::detail::parse_finite(text);
        REQUIRE_MESSAGE(back.has_value(), text);
        REQUIRE_MESSAGE(bits(*back) == pattern, text);
    }
    CHECK(finite > 19000);
}

TEST_CASE("number text: what is no finite decimal number is none") {
    for (const bool elsewhere : {false, true}) {
        std::optional<OtherLocale> other;
        if (elsewhere) other.emplace();
        for (const char* text : {"",    " ",    ".",        "-",       "e5",     "1e",    "1e+",    " 1",     "1 ",
                                 "+1",  "--1",  "1,5",      "1.000,5", "1.2.3",  "0x10",  "1p3",    "1f",     "1e5x",
                                 "inf", "-inf", "infinity", "nan",     "nan(1)", "1e999", "-1e999", "1e-400", "1\n"}) {
            CHECK_MESSAGE(!sd::detail::parse_finite(text), text);
        }
        CHECK(!sd::detail::parse_finite(std::string_view("1\0", 2)));
        CHECK(sd::detail::parse_finite("1.").value() == 1);
        CHECK(sd::detail::parse_finite(".5").value() == 0.5);
        CHECK(sd::detail::parse_finite("1E2").value() == 100);
        // Half way between two numbers: the even one. A little more: the next.
        CHECK(sd::detail::parse_finite("9007199254740993").value() == 9007199254740992.0);
        CHECK(sd::detail::parse_finite("9007199254740993.0000000000000000000000001").value() == 9007199254740994.0);
    }
}

}  // namespace test_number_text
