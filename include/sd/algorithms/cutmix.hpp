// CutMix as an algorithm of a training run, and the choice between it and mixup.
#pragma once

#include "sd/algorithms/mixup.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

SD_NAMESPACE_BEGIN

/// Trains on images with a box of another one: with lambda ~ Beta(alpha, alpha) and a centre, uniform over the pixels, one
/// for each batch, and a random partner pi(n) for each sample n,
///
///     box        rows and columns within r H and r W of the centre, r = sqrt(1 - lambda) / 2 rounded down to pixels, as
///                far as they are in the image
///     x_n        is x_pi(n) in the box
///     t_n        = lambda' t_n + (1 - lambda') t_pi(n),    lambda' = 1 - area of the box / (H W)
///
/// lambda, centre and pi are a function of seed and batch. On several ranks, partners are of the same rank. Accuracy is
/// counted by the samples' own labels. Logs `cutmix/lambda`, which is lambda'.
/// S. Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", ICCV 2019; the
/// box as torchvision's transform has it.
class CutMix {
public:
    /// The name in traces.
    static constexpr std::string_view name = "CutMix";

    /// Throws std::invalid_argument unless alpha is finite and above 0.
    explicit CutMix(double alpha = 1) : alpha_(alpha) {
        if (!is_finite(alpha) || alpha <= 0) refuse("CutMix", "alpha", alpha, "a finite number above 0");
    }

    /// The box in images of this size that belongs to a batch.
    [[nodiscard]] ImageBox box(Index height, Index width, std::uint64_t seed, std::uint64_t step) const {
        const double radius = std::sqrt(1 - symmetric_beta_from(seed, Stream::cutmix, step, alpha_)) / 2;
        const auto words = random_words(seed, Stream::cutmix, step, 3, 0);
        const auto row = static_cast<Index>(uniform_below(words[0], static_cast<std::uint32_t>(height)));
        const auto column = static_cast<Index>(uniform_below(words[1], static_cast<std::uint32_t>(width)));
        const auto down = static_cast<Index>(radius * static_cast<double>(height));
        const auto right = static_cast<Index>(radius * static_cast<double>(width));
        return {.top = std::max<Index>(row - down, 0),
                .left = std::max<Index>(column - right, 0),
                .bottom = std::min(row + down, height),
                .right = std::min(column + right, width)};
    }

    /// At Event::batch_start.
    template <class State>
    [[nodiscard]] bool match(Event event, const State&) const {
        return event == Event::batch_start;
    }
    /// Pastes the batch's images and mixes its targets.
    template <class T, class Device>
    void apply(Event, State<T, Device>& state, Logger& logger) const {
        const Shape& images = state.batch.images.shape();
        const ImageBox own = box(images[1], images[2], state.seed, state.timestamp.batch);
        const double share = 1 - static_cast<double>(own.area()) / static_cast<double>(images[1] * images[2]);
        const std::vector<Index> partner = detail::mix_targets(state, Stream::cutmix, share);
        state.batch.images = paste_samples(state.batch.images, std::span<const Index>(partner), own);
        logger.log("cutmix/lambda", share);
    }

    /// What decides the numbers of a run: alpha, and in how many parts of a batch partners are drawn.
    [[nodiscard]] SettingTexts settings(Index ranks) const {
        return {{"alpha", detail::number_text(alpha_)}, {"parts", text(ranks)}};
    }

private:
    double alpha_;
};

/// Mixup or CutMix, one of them for each batch, with equal chance, as a function of seed and batch: torchvision's
/// RandomChoice of its two transforms.
class MixupOrCutMix {
public:
    /// The name in traces.
    static constexpr std::string_view name = "MixupOrCutMix";

    /// One or the other.
    explicit MixupOrCutMix(Mixup mixup = Mixup(), CutMix cutmix = CutMix()) : mixup_(mixup), cutmix_(cutmix) {}

    /// At Event::batch_start.
    template <class State>
    [[nodiscard]] bool match(Event event, const State&) const {
        return event == Event::batch_start;
    }
    /// As the chosen one.
    template <class T, class Device>
    void apply(Event event, State<T, Device>& state, Logger& logger) const {
        const auto words = random_words(state.seed, Stream::cutmix, state.timestamp.batch, 4, 0);
        if (uniform_below(words[0], 2) == 0) {
            mixup_.apply(event, state, logger);
        } else {
            cutmix_.apply(event, state, logger);
        }
    }

    /// Those of both.
    [[nodiscard]] SettingTexts settings(Index ranks) const {
        SettingTexts all;
        for (const auto& [key, value] : mixup_.settings(ranks)) all.emplace("mixup." + key, value);
        for (const auto& [key, value] : cutmix_.settings(ranks)) all.emplace("cutmix." + key, value);
        return all;
    }

private:
    Mixup mixup_;
    CutMix cutmix_;
};

SD_NAMESPACE_END
