// How the learning rate changes in the course of a run.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/number_text.hpp"
#include "sd/core/timestamp.hpp"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

SD_NAMESPACE_BEGIN

/// The learning rate stays.
struct ConstantLearningRate {};

/// The learning rate is multiplied by `factor` at every milestone.
struct MultiStepLearningRate {
    std::vector<Time> milestones;  ///< from the start of the run, in any order
    double factor = 0.1;           ///< 0 or more
};

/// The learning rate falls to 0 along half a cosine.
/// I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, without restarts.
struct CosineLearningRate {};

/// The learning rate is multiplied by `factor` once a period.
struct StaircaseLearningRate {
    Time period = "1ep";   ///< above 0
    double factor = 0.97;  ///< 0 or more
};

/// What the optimizer's learning rate is multiplied by for batch t, counted from 0, as a function of t alone. With T
/// the batches of the run and w those of the warmup (0 without one):
///
///     warmup(t)   = min(1, (t + 1) / w)                            linear, from the first batch's 1 / w
///     constant      warmup(t)
///     multistep     warmup(t) factor^(number of milestones <= t)
///     staircase     warmup(t) factor^floor(t / period)
///     cosine        warmup(t) (1 + cos(pi max(0, t - w) / (T - w))) / 2
///
/// The linear warmup is P. Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2. As text:
///
///     constant | cosine | multistep:0.5dur,0.75dur:0.1 | staircase:2ep:0.97      each perhaps after   warmup:5ep,
class LearningRateSchedule {
public:
    /// What comes after the warmup.
    using Course = std::variant<ConstantLearningRate, MultiStepLearningRate, StaircaseLearningRate, CosineLearningRate>;

    /// Constant, without a warmup.
    LearningRateSchedule() = default;
    /// Throws std::invalid_argument for a factor below 0 or not finite, no milestones, or a period of 0.
    LearningRateSchedule(Course course,
                         std::optional<Time> warmup = std::nullopt)  // NOLINT(google-explicit-constructor)
        : course_(std::move(course)), warmup_(warmup) {
        if (const auto* steps = std::get_if<MultiStepLearningRate>(&course_)) {
            expect_factor(steps->factor);
            if (steps->milestones.empty()) refuse("LearningRateSchedule", "milestones", "none", "1 or more");
        }
        if (const auto* stairs = std::get_if<StaircaseLearningRate>(&course_)) {
            expect_factor(stairs->factor);
            if (stairs->period.value() <= 0) refuse("LearningRateSchedule", "period", stairs->period, "a time above 0");
        }
    }
    /// The schedule that a text says. Throws std::invalid_argument, saying what is allowed, for any other text.
    template <class Text>
    requires std::convertible_to<const Text&, std::string_view> LearningRateSchedule(
        const Text& text)  // NOLINT(google-explicit-constructor)
        : LearningRateSchedule(parse(text)) {}

    /// The schedule that a text says. Throws std::invalid_argument as the constructor does.
    [[nodiscard]] static LearningRateSchedule parse(std::string_view text) {
        std::string_view rest = text;
        std::optional<Time> warmup;
        if (rest.starts_with("warmup:")) {
            const std::size_t comma = std::min(rest.find(','), rest.size());
            warmup = Time(rest.substr(7, comma - 7));
            rest.remove_prefix(std::min(comma + 1, rest.size()));
        }
        if (rest == "constant") return {ConstantLearningRate{}, warmup};
        if (rest == "cosine") return {CosineLearningRate{}, warmup};
        for (const std::string_view prefix : {"multistep:", "staircase:"}) {
            const std::size_t colon = rest.rfind(':');
            if (!rest.starts_with(prefix) || colon < prefix.size()) continue;
            const std::string_view times = rest.substr(prefix.size(), colon - prefix.size());
            const auto factor = detail::parse_finite(rest.substr(colon + 1));
            if (!factor) continue;
            if (prefix == "staircase:") return {StaircaseLearningRate{Time(times), *factor}, warmup};
            return {multi_step(times, *factor), warmup};
        }
        refuse("LearningRateSchedule", "schedule", sd::text('"', text, '"'),
               "constant, cosine, multistep:0.5dur,0.75dur:0.1 or staircase:2ep:0.97, each perhaps after warmup:5ep,");
    }

    /// What comes after the warmup.
    [[nodiscard]] const Course& course() const { return course_; }

    /// What the learning rate is multiplied by for the next batch.
    [[nodiscard]] double factor(const Timestamp& timestamp, const RunLength& run) const {
        const auto t = static_cast<double>(timestamp.batch);
        const double warmup = warmup_ ? batches_of(*warmup_, run) : 0;
        const double rise = t + 1 < warmup ? (t + 1) / warmup : 1;
        if (const auto* steps = std::get_if<MultiStepLearningRate>(&course_)) {
            const auto passed = std::count_if(steps->milestones.begin(), steps->milestones.end(),
                                              [&](const Time& milestone) { return t >= batches_of(milestone, run); });
            return rise * std::pow(steps->factor, static_cast<double>(passed));
        }
        if (const auto* stairs = std::get_if<StaircaseLearningRate>(&course_)) {
            return rise * std::pow(stairs->factor, std::floor(t / batches_of(stairs->period, run)));
        }
        if (std::holds_alternative<CosineLearningRate>(course_) && t > warmup) {
            constexpr double pi = 3.141592653589793238462643383279503;
            const double progress = (t - warmup) / (static_cast<double>(run.total_batches) - warmup);
            return rise * (1 + std::cos(pi * std::min(1.0, progress))) / 2;
        }
        return rise;
    }

    /// What of it never takes effect in a run of that length, in words: a warmup that is longer than the run, a
    /// milestone past its end.
    [[nodiscard]] std::vector<std::string> settings_without_effect(const RunLength& run) const {
        std::vector<std::string> found;
        const auto total = static_cast<double>(run.total_batches);
        const double warmup = warmup_ ? batches_of(*warmup_, run) : 0;
        const bool is_cosine = std::holds_alternative<CosineLearningRate>(course_);
        if (warmup > total) {
            found.push_back(text("learning rate: warmup: got ", *warmup_, ", expected at most the run's ",
                                 run.total_batches, " batches: the full learning rate is never reached"));
        }
        if (is_cosine && warmup > 0 && warmup <= total && warmup >= total - 1) {
            found.push_back(text("learning rate: warmup: got ", *warmup_, ", expected fewer batches than the run's ",
                                 run.total_batches, " but one: the cosine never begins"));
        }
        if (const auto* steps = std::get_if<MultiStepLearningRate>(&course_)) {
            for (const Time& milestone : steps->milestones) {
                if (batches_of(milestone, run) <= total - 1) continue;
                found.push_back(text("learning rate: milestone: got ", milestone, ", expected one before the last of ",
                                     "the run's ", run.total_batches, " batches: it never comes"));
            }
        }
        if (const auto* stairs = std::get_if<StaircaseLearningRate>(&course_)) {
            if (batches_of(stairs->period, run) > total - 1) {
                found.push_back(text("learning rate: period: got ", stairs->period, ", expected one below the run's ",
                                     run.total_batches, " batches: the first step never comes"));
            }
        }
        return found;
    }

    /// The text that parses to the same schedule.
    [[nodiscard]] friend std::string to_string(const LearningRateSchedule& schedule) {
        std::string name = "constant";
        if (std::holds_alternative<CosineLearningRate>(schedule.course_)) name = "cosine";
        if (const auto* steps = std::get_if<MultiStepLearningRate>(&schedule.course_)) {
            name = "multistep:";
            for (const Time& milestone : steps->milestones) {
                name += text(&milestone == &steps->milestones.front() ? "" : ",", milestone);
            }
            name += ':' + detail::number_text(steps->factor);
        }
        if (const auto* stairs = std::get_if<StaircaseLearningRate>(&schedule.course_)) {
            name = text("staircase:", stairs->period, ':', detail::number_text(stairs->factor));
        }
        return schedule.warmup_ ? text("warmup:", *schedule.warmup_, ',', name) : name;
    }
    /// Prints the text.
    friend std::ostream& operator<<(std::ostream& out, const LearningRateSchedule& schedule) {
        return out << to_string(schedule);
    }

private:
    static void expect_factor(double factor) {
        if (!is_in_range(factor, 0)) refuse("LearningRateSchedule", "factor", factor, "a finite number of 0 or more");
    }

    [[nodiscard]] static MultiStepLearningRate multi_step(std::string_view milestones, double factor) {
        MultiStepLearningRate steps{{}, factor};
        while (true) {
            const std::size_t comma = std::min(milestones.find(','), milestones.size());
            steps.milestones.emplace_back(milestones.substr(0, comma));
            if (comma == milestones.size()) return steps;
            milestones.remove_prefix(comma + 1);
        }
    }

    Course course_;
    std::optional<Time> warmup_;
};

SD_NAMESPACE_END
