// Averages of weights and statistics as an algorithm of a training run.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/number_text.hpp"
#include "sd/core/settings.hpp"
#include "sd/cpu/elementwise.hpp"
#include "sd/logs/logger.hpp"
#include "sd/train/event.hpp"
#include "sd/train/state.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

SD_NAMESPACE_BEGIN

/// Settings of WeightAveraging.
struct WeightAveragingOptions {
    double decay = 0.9999;  ///< d, what stays of an average at an update; 0 to less than 1
    Index interval = 1;     ///< batches from one update to the next; 1 or more
    bool warmup = false;    ///< at the update after n others d is min(decay, (1 + n) / (10 + n)), as in TensorFlow
};

/// Keeps exponential moving averages of all parameters and running statistics, from those with which training begins,
/// and after every `interval` batches
///
///     e = e + (1 - d) (v - e)
///
/// Evaluations are made with the averages, which then change places with the model's numbers. The run carries them as
/// "WeightAveraging.NAME" in State::carried, so checkpoints hold them; before training begins there are none. Buffers
/// of another type than the parameters are not averaged. A run has one algorithm of this kind.
/// B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM 1992; as
/// tf.train.ExponentialMovingAverage and timm's ModelEma.
class WeightAveraging {
public:
    /// The name in traces.
    static constexpr std::string_view name = "WeightAveraging";
    /// It looks at the model alone.
    static constexpr bool sees_scores = false;

    /// Throws std::invalid_argument for a setting outside its range.
    explicit WeightAveraging(const WeightAveragingOptions& options = {}) : options_(options) {
        if (!is_in_range(options.decay, 0, 1) || options.decay == 1) {
            refuse("WeightAveraging", "decay", options.decay, "a number from 0 to less than 1");
        }
        if (options.interval < 1) refuse("WeightAveraging", "interval", options.interval, "1 or more");
    }

    /// At Event::fit_start, batch_end, eval_start and eval_end.
    template <class State>
    [[nodiscard]] bool match(Event event, const State& state) const {
        if (event == Event::batch_end) {
            return state.timestamp.batch % static_cast<std::uint64_t>(options_.interval) == 0;
        }
        return event == Event::fit_start || event == Event::eval_start || event == Event::eval_end;
    }
    /// Starts or updates the averages, or lets them and the model's numbers change places.
    template <class T, class Device>
    void apply(Event event, State<T, Device>& state, Logger&) const {
        if (event == Event::fit_start) {
            start(state);
        } else if (event == Event::batch_end) {
            const auto updates = state.timestamp.batch / static_cast<std::uint64_t>(options_.interval) - 1;
            const auto share = static_cast<accumulate_t<T>>(1 - decay_after(static_cast<double>(updates)));
            for_each_average(state, [&](auto& average, auto& value) { move_towards(average, value, share); });
        } else {
            swap(state);
        }
    }

    /// Lets the averages, if there are any, and the model's numbers change places, such as to save the averages; called
    /// again, it undoes that.
    template <class T, class Device>
    static void swap(State<T, Device>& state) {
        for_each_average(state, [](auto& average, auto& value) { std::swap(average, value); });
    }

    /// What decides the numbers of a run.
    [[nodiscard]] SettingTexts settings(Index /*ranks*/) const {
        return {{"decay", detail::number_text(options_.decay)},
                {"interval", text(options_.interval)},
                {"warmup", options_.warmup ? "true" : "false"}};
    }

private:
    [[nodiscard]] static std::string key(const std::string& tensor) { return text(name, '.', tensor); }

    [[nodiscard]] double decay_after(double updates) const {
        return options_.warmup ? std::min(options_.decay, (1 + updates) / (10 + updates)) : options_.decay;
    }

    /// Copies what has no average yet; refuses averages of another shape.
    template <class T, class Device>
    static void start(State<T, Device>& state) {
        state.tensors.for_each([&](const std::string& tensor, auto& value) {
            const auto [place, is_new] = state.carried.try_emplace(key(tensor));
            if (is_new) place->second = value.clone();
            const Shape& shape = place->second.shape();
            if (!(shape == value.shape())) refuse("WeightAveraging", "shape of " + tensor, shape, value.shape());
        });
    }

    template <class T, class Device, class Use>
    static void for_each_average(State<T, Device>& state, const Use& use) {
        state.tensors.for_each([&](const std::string& tensor, auto& value) {
            const auto found = state.carried.find(key(tensor));
            if (found != state.carried.end()) use(found->second, value);
        });
    }

    WeightAveragingOptions options_;
};

SD_NAMESPACE_END
