// Runs algorithms at events, and remembers what they did.
#pragma once

#include "sd/core/error.hpp"
#include "sd/core/settings.hpp"
#include "sd/core/shape.hpp"
#include "sd/train/algorithm.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// One line of a trace: an event without algorithms has one line with an empty name.
struct TraceLine {
    Event event;                 ///< what happened
    std::uint64_t batch;         ///< finished batches by then
    std::string_view algorithm;  ///< who was asked; valid as long as the engine lives
    bool applied;                ///< whether it acted
};

/// Runs all algorithms that match an event, in their order.
template <class T, class Device = Cpu>
class Engine {
public:
    /// How many lines of a trace are kept.
    static constexpr std::size_t trace_length = 4096;

    /// With these algorithms.
    explicit Engine(std::vector<Algorithm<T, Device>> algorithms) : algorithms_(std::move(algorithms)) {
        trace_.reserve(trace_length);
    }

    /// Puts an algorithm after the others.
    void add(Algorithm<T, Device> algorithm) { algorithms_.push_back(std::move(algorithm)); }

    /// What the algorithms tell of their settings on so many ranks, as "ALGORITHM.SETTING"; those of several algorithms
    /// of one name stand side by side, in their order.
    [[nodiscard]] SettingTexts settings(Index ranks) const {
        SettingTexts all;
        for (const auto& algorithm : algorithms_) {
            for (const auto& [key, value] : algorithm.settings(ranks)) {
                const auto [place, is_new] = all.emplace(text(algorithm.name(), '.', key), value);
                if (!is_new) place->second += ", " + value;
            }
        }
        return all;
    }

    /// Whether any algorithm acts at an event that may look at losses and scores.
    [[nodiscard]] bool sees_scores(Event event, const State<T, Device>& state) const {
        return std::any_of(algorithms_.begin(), algorithms_.end(), [&](const auto& algorithm) {
            return algorithm.sees_scores() && algorithm.match(event, state);
        });
    }

    /// Whether a tensor of that name is carried by one of the algorithms, see State::carried.
    [[nodiscard]] bool carries(const std::string& name) const {
        return std::any_of(algorithms_.begin(), algorithms_.end(),
                           [&](const auto& algorithm) { return name.starts_with(text(algorithm.name(), '.')); });
    }

    /// Asks every algorithm and lets those act that match. What an algorithm throws goes through.
    void run_event(Event event, State<T, Device>& state, Logger& logger) {
        if (algorithms_.empty()) remember({event, state.timestamp.batch, {}, false});
        for (auto& algorithm : algorithms_) {
            const bool matches = algorithm.match(event, state);
            remember({event, state.timestamp.batch, algorithm.name(), matches});
            if (matches) algorithm.apply(event, state, logger);
        }
    }

    /// The last lines, at most trace_length, oldest first.
    [[nodiscard]] std::vector<TraceLine> trace() const {
        std::vector<TraceLine> lines(trace_.begin() + static_cast<std::ptrdiff_t>(oldest_), trace_.end());
        lines.insert(lines.end(), trace_.begin(), trace_.begin() + static_cast<std::ptrdiff_t>(oldest_));
        return lines;
    }

private:
    void remember(const TraceLine& line) {
        if (trace_.size() < trace_length) {
            trace_.push_back(line);
        } else {
            trace_[oldest_] = line;
            oldest_ = (oldest_ + 1) % trace_length;
        }
    }

    std::vector<Algorithm<T, Device>> algorithms_;
    std::vector<TraceLine> trace_;  ///< a ring once it is full
    std::size_t oldest_ = 0;
};

SD_NAMESPACE_END
