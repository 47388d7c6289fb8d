// Time as training counts it: epochs, batches, samples, or a part of the run.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/number_text.hpp"
#include "sd/core/enum_names.hpp"

#include <array>
#include <cmath>
#include <compare>
#include <concepts>
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

SD_NAMESPACE_BEGIN

/// What a time counts.
enum class TimeUnit {
    epoch,    ///< "ep": passes over the data set
    batch,    ///< "ba": steps of the optimizer
    sample,   ///< "sp"
    duration  ///< "dur": the fraction of the whole run, 0 to 1
};

namespace detail {

template <>
struct EnumNames<TimeUnit> {
    static constexpr std::string_view setting = "unit of time";
    static constexpr EnumName<TimeUnit> names[]{
        {TimeUnit::epoch, "ep"}, {TimeUnit::batch, "ba"}, {TimeUnit::sample, "sp"}, {TimeUnit::duration, "dur"}};
};

constexpr const char* time_forms = "a whole number with ep, ba or sp (5ep, 500ba, 1e6sp), or 0 to 1 with dur (0.1dur)";

}  // namespace detail

/// Counts from here on are refused: below it every whole number is a double.
inline constexpr std::uint64_t count_limit = std::uint64_t{1} << 53;

/// A number of epochs, batches or samples, or a fraction of the run: "5ep", "500ba", "1e6sp", "0.1dur".
/// After `composer.core.Time` (mosaicml/composer), but stricter: what is not a sensible time is refused.
class Time {
public:
    /// The time that a text says; implicit, so that a setting can be written as "90ep".
    /// Throws std::invalid_argument, saying what is allowed, for a number without a unit, a fraction of an epoch, batch
    /// or sample, a negative or not finite number, 2^53 or more, more than 1dur, or anything else.
    template <class Text>
    requires std::convertible_to<const Text&, std::string_view> Time(const Text& text)
        : Time(parse(text)) {}  // NOLINT(google-explicit-constructor)

    /// The time of a number and a unit. Throws std::invalid_argument as above.
    Time(double value, TimeUnit unit) : value_(value), unit_(unit) {
        if (!valid(value, unit)) {
            refuse("Time", "time", detail::number_text(value) + to_string(unit), detail::time_forms);
        }
    }

    /// The time that a text says. Throws std::invalid_argument as the constructor does.
    [[nodiscard]] static Time parse(std::string_view text) {
        for (const auto& [unit, name] : detail::EnumNames<TimeUnit>::names) {
            if (!text.ends_with(name)) continue;
            const auto value = detail::parse_finite(text.substr(0, text.size() - name.size()));
            if (value && valid(*value, unit)) return {*value, unit};
        }
        refuse("Time", "time", sd::text('"', text, '"'), detail::time_forms);
    }

    /// The number: whole and below 2^53, or from 0 to 1 if the unit is duration.
    [[nodiscard]] double value() const { return value_; }
    /// The number of epochs, batches or samples. Throws std::invalid_argument if the unit is duration.
    [[nodiscard]] std::uint64_t count() const {
        if (unit_ == TimeUnit::duration) {
            refuse("Time::count", "time", detail::number_text(value_) + "dur", "a time in ep, ba or sp");
        }
        return static_cast<std::uint64_t>(value_);
    }
    /// What the number counts.
    [[nodiscard]] TimeUnit unit() const { return unit_; }

    /// Compares times of one unit. Throws std::invalid_argument for two units: 1ep is neither more nor less than 10ba.
    friend std::partial_ordering operator<=>(const Time& a, const Time& b) {
        if (a.unit_ != b.unit_) {
            refuse("Time", "comparison", sd::text(a, " and ", b), "two times of the same unit");
        }
        return a.value_ <=> b.value_;
    }
    /// True for the same number of the same unit. Throws std::invalid_argument for two units.
    friend bool operator==(const Time& a, const Time& b) { return (a <=> b) == 0; }

    /// The text that parses to the same time.
    [[nodiscard]] friend std::string to_string(const Time& time) {
        const std::string number =
            time.unit_ == TimeUnit::duration ? detail::number_text(time.value_) : std::to_string(time.count());
        return number + to_string(time.unit_);
    }
    /// Prints the text.
    friend std::ostream& operator<<(std::ostream& out, const Time& time) { return out << to_string(time); }

private:
    /// Minus zero is refused too: it would not print as it was written.
    [[nodiscard]] static bool valid(double value, TimeUnit unit) {
        if (!is_in_range(value, 0) || std::signbit(value)) return false;
        if (unit == TimeUnit::duration) return value <= 1;
        return value < static_cast<double>(count_limit) && value == std::floor(value);
    }

    double value_;
    TimeUnit unit_;
};

/// A time that may also be given as a plain fraction of the run: 0.1 and "0.1" are "0.1dur".
class TimeOrFraction {
public:
    /// A fraction of the run. Throws std::invalid_argument unless it is from 0 to 1.
    TimeOrFraction(double fraction) : time_(checked(fraction)) {}  // NOLINT(google-explicit-constructor)
    /// A time.
    TimeOrFraction(const Time& time) : time_(time) {}  // NOLINT(google-explicit-constructor)
    /// The time or fraction that a text says. Throws std::invalid_argument, saying what is allowed, for any other text.
    template <class Text>
    requires std::convertible_to<const Text&, std::string_view> TimeOrFraction(const Text& text)
        : time_(parse(text)) {}  // NOLINT(google-explicit-constructor)

    /// As a time, a fraction in `dur`.
    [[nodiscard]] const Time& time() const { return time_; }

private:
    [[nodiscard]] static Time checked(double fraction) {
        if (!is_in_range(fraction, 0, 1)) {
            refuse("TimeOrFraction", "fraction of the run", detail::number_text(fraction),
                   text("0 to 1, or ", detail::time_forms));
        }
        return {std::abs(fraction), TimeUnit::duration};
    }
    [[nodiscard]] static Time parse(std::string_view text) {
        const auto fraction = detail::parse_finite(text);
        return fraction ? checked(*fraction) : Time(text);
    }

    Time time_;
};

SD_NAMESPACE_END
