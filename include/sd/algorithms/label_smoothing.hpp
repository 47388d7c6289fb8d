// Label smoothing as an algorithm of a training run.
#pragma once

#include "sd/core/error.hpp"
#include "sd/core/finite.hpp"
#include "sd/core/number_text.hpp"
#include "sd/core/settings.hpp"
#include "sd/core/shape.hpp"
#include "sd/train/event.hpp"
#include "sd/logs/logger.hpp"

#include <string_view>

SD_NAMESPACE_BEGIN

/// Takes the share s of each sample's target from its label and spreads it evenly over all C classes, in training:
///
///     q = (1 - s) t + s / C
///
/// by the loss's own option. C. Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7.
class LabelSmoothing {
public:
    /// The name in traces.
    static constexpr std::string_view name = "LabelSmoothing";

    /// `smoothing` is s, 0 to 1. Throws std::invalid_argument for any other number.
    explicit LabelSmoothing(double smoothing = 0.1) : smoothing_(smoothing) {
        if (!is_in_range(smoothing, 0, 1)) {
            refuse("LabelSmoothing", "smoothing", smoothing, "a number from 0 to 1");
        }
    }

    /// At Event::init.
    template <class State>
    [[nodiscard]] bool match(Event event, const State&) const {
        return event == Event::init;
    }
    /// Sets the loss's option.
    template <class State>
    void apply(Event, State& state, Logger&) const {
        state.loss_options.label_smoothing = smoothing_;
    }

    /// What decides the numbers of a run.
    [[nodiscard]] SettingTexts settings(Index /*ranks*/) const {
        return {{"smoothing", detail::number_text(smoothing_)}};
    }

private:
    double smoothing_;
};

SD_NAMESPACE_END
