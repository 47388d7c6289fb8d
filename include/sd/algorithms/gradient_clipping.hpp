// Clipping of gradients as an algorithm of a training run.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/number_text.hpp"
#include "sd/core/settings.hpp"
#include "sd/cpu/clip_norm.hpp"
#include "sd/logs/logger.hpp"
#include "sd/train/event.hpp"
#include "sd/train/state.hpp"

#include <span>
#include <string_view>

SD_NAMESPACE_BEGIN

/// Scales the gradients of a batch so that their norm, over all parameters together, is at most max_norm:
///
///     norm = sqrt(sum dw^2),    dw *= min(1, max_norm / (norm + 1e-6))
///
/// as torch.nn.utils.clip_grad_norm_. On the CPU it logs `gradient_norm`, that before; on a device nobody waits for it.
/// R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.
class GradientClipping {
public:
    /// The name in traces.
    static constexpr std::string_view name = "GradientClipping";
    /// It looks at gradients alone.
    static constexpr bool sees_scores = false;

    /// Throws std::invalid_argument unless max_norm is finite and above 0.
    explicit GradientClipping(double max_norm) : max_norm_(max_norm) {
        if (!is_finite(max_norm) || max_norm <= 0) {
            refuse("GradientClipping", "max_norm", max_norm, "a finite number above 0");
        }
    }

    /// At the last Event::after_backward of a batch.
    template <class State>
    [[nodiscard]] bool match(Event event, const State& state) const {
        return event == Event::after_backward && state.is_last_microbatch();
    }
    /// Clips the gradients of all parameters that the optimizer trains and that received one.
    template <class T, class Device>
    void apply(Event, State<T, Device>& state, Logger& logger) const {
        PooledVector<Tensor<accumulate_t<T>, Device>> gradients;
        for (const auto& parameter : state.optimizer.parameters()) {
            if (parameter->has_grad) gradients.push_back(parameter->grad);
        }
        const auto norm = clip_norm(std::span(gradients), max_norm_);
        if constexpr (!Device::runs_beside_cpu) logger.log("gradient_norm", norm(0));
    }

    /// What decides the numbers of a run.
    [[nodiscard]] SettingTexts settings(Index /*ranks*/) const {
        return {{"max_norm", detail::number_text(max_norm_)}};
    }

private:
    double max_norm_;
};

SD_NAMESPACE_END
