// What a loss is, and the one that is used if none is given.
#pragma once

#include "sd/core/loss_and_gradient.hpp"
#include "sd/core/settings.hpp"
#include "sd/core/type_name.hpp"
#include "sd/cpu/cross_entropy.hpp"

#include <concepts>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

SD_NAMESPACE_BEGIN

/// Settings of the loss.
struct LossOptions {
    double label_smoothing = 0;  ///< 0 to 1; see cross_entropy. Evaluations smooth nothing.
};

/// Images with what they show.
template <class T, class Device = Cpu>
struct LabelledImages {
    Tensor<T, Device> images;        ///< (N, H, W, C)
    std::vector<Index> labels;       ///< N classes, by which accuracy is counted
    Tensor<T, Device> targets = {};  ///< (N, classes) probabilities that the loss uses; undefined: it uses the labels
};

/// A loss gives the mean loss over the N samples of a batch, 1 or more, and its gradient by their logits (N, classes):
///
///     auto [loss, dlogits] = loss(logits, batch);                 a LossAndGradient<T, Device>, or what converts to it
///
/// for batches of training and of evaluation. One that takes a LossOptions after them gets those of State; of others,
/// an algorithm that sets options, such as LabelSmoothing, is refused. It may tell settings() that decide its numbers,
/// SettingTexts, and its name as a static member.
template <class L, class T, class Device = Cpu>
concept Loss = std::copy_constructible<L> &&
    requires(const L& loss, const Tensor<T, Device>& logits, const LabelledImages<T, Device>& batch) {
    { loss(logits, batch).loss } -> std::convertible_to<mean_loss_t<T, Device>>;
    { loss(logits, batch).dlogits } -> std::convertible_to<Tensor<T, Device>>;
};

/// Softmax cross-entropy of targets, or of labels where a batch has none, with label smoothing: see cross_entropy.
struct CrossEntropy {
    /// The name in settings.
    static constexpr std::string_view name = "CrossEntropy";

    /// Throws std::invalid_argument as cross_entropy does.
    template <class T, class Device>
    [[nodiscard]] LossAndGradient<T, Device> operator()(const Tensor<T, Device>& logits,
                                                        const LabelledImages<T, Device>& batch,
                                                        const LossOptions& options = {}) const {
        if (batch.targets) return cross_entropy(logits, batch.targets, options.label_smoothing);
        return cross_entropy(logits, std::span<const Index>(batch.labels), options.label_smoothing);
    }
};

namespace detail {

/// What the loss gives under the options, or std::invalid_argument if it knows none and one is set.
template <class L, class T, class Device>
[[nodiscard]] LossAndGradient<T, Device> loss_of(const L& loss, const Tensor<T, Device>& logits,
                                                 const LabelledImages<T, Device>& batch, const LossOptions& options) {
    const auto plain = [](auto&& given) -> LossAndGradient<T, Device> {
        return {static_cast<mean_loss_t<T, Device>>(given.loss), std::move(given.dlogits)};
    };
    if constexpr (requires { loss(logits, batch, options); }) {
        return plain(loss(logits, batch, options));
    } else {
        if (options.label_smoothing != 0) {
            refuse("Trainer", "label_smoothing", options.label_smoothing, "0: the loss takes no LossOptions");
        }
        return plain(loss(logits, batch));
    }
}

/// A static member `name`, or the type's.
template <class Named>
[[nodiscard]] std::string name_of() {
    if constexpr (requires { std::string(Named::name); }) {
        return std::string(Named::name);
    } else {
        return std::string(type_name<Named>());
    }
}

}  // namespace detail

SD_NAMESPACE_END
