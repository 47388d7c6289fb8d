// Mixup as an algorithm of a training run.
#pragma once

#include "sd/core/beta.hpp"
#include "sd/core/finite.hpp"
#include "sd/core/number_text.hpp"
#include "sd/core/settings.hpp"
#include "sd/cpu/mixup.hpp"
#include "sd/data/shuffle.hpp"
#include "sd/train/event.hpp"
#include "sd/logs/logger.hpp"
#include "sd/train/state.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// Mixes the targets of a batch, or those that its labels say, with those of random partners, which are returned.
template <class T, class Device>
std::vector<Index> mix_targets(State<T, Device>& state, Stream stream, double share) {
    auto& batch = state.batch;
    const auto samples = static_cast<Index>(batch.labels.size());
    std::vector<Index> partner = random_permutation(samples, state.seed, stream, state.timestamp.batch);
    const Tensor<T, Device> targets =
        batch.targets ? batch.targets : one_hot_like(batch.images, std::span<const Index>(batch.labels), state.classes);
    batch.targets = mix_samples(targets, std::span<const Index>(partner), share);
    return partner;
}

}  // namespace detail

/// Trains on mixtures of pairs: with lambda ~ Beta(alpha, alpha), one for each batch, and a random partner pi(n) for
/// each sample n,
///
///     x_n = lambda x_n + (1 - lambda) x_pi(n)
///     t_n = lambda t_n + (1 - lambda) t_pi(n),    t_n = 1 at the label at first
///
/// lambda and pi are a function of seed and batch. On several ranks, partners are of the same rank. Accuracy is counted
/// by the samples' own labels. Logs `mixup/lambda`.
/// H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018.
class Mixup {
public:
    /// The name in traces.
    static constexpr std::string_view name = "Mixup";

    /// Throws std::invalid_argument unless alpha is finite and above 0.
    explicit Mixup(double alpha = 0.2) : alpha_(alpha) {
        if (!is_finite(alpha) || alpha <= 0) refuse("Mixup", "alpha", alpha, "a finite number above 0");
    }

    /// At Event::batch_start.
    template <class State>
    [[nodiscard]] bool match(Event event, const State&) const {
        return event == Event::batch_start;
    }
    /// Mixes the batch's images and targets.
    template <class T, class Device>
    void apply(Event, State<T, Device>& state, Logger& logger) const {
        const double share = symmetric_beta_from(state.seed, Stream::mixup, state.timestamp.batch, alpha_);
        const std::vector<Index> partner = detail::mix_targets(state, Stream::mixup, share);
        state.batch.images = mix_samples(state.batch.images, std::span<const Index>(partner), share);
        logger.log("mixup/lambda", share);
    }

    /// What decides the numbers of a run: alpha, and in how many parts of a batch partners are drawn.
    [[nodiscard]] SettingTexts settings(Index ranks) const {
        return {{"alpha", detail::number_text(alpha_)}, {"parts", text(ranks)}};
    }

private:
    double alpha_;
};

SD_NAMESPACE_END
