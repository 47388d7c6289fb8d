// RMSprop as PyTorch has it, and as TensorFlow has it.
#pragma once

#include "sd/optim/grouped_optimizer.hpp"

#include <array>
#include <cmath>
#include <cstddef>
#include <string_view>

SD_NAMESPACE_BEGIN

/// Settings of Rmsprop; PyTorch's defaults.
struct RmspropOptions {
    double learning_rate = 0.01;  ///< 0 or more
    double alpha = 0.99;          ///< of the mean squared gradient; 0 to less than 1
    double eps = 1e-8;            ///< added to the root; positive
    double momentum = 0;          ///< 0 or more
    double weight_decay = 0;      ///< 0 or more
};

/// Settings of RmspropTf; those of EfficientNet's recipe.
struct RmspropTfOptions {
    double learning_rate = 0.01;  ///< 0 or more
    double alpha = 0.9;           ///< of the mean squared gradient; 0 to less than 1
    double eps = 1e-3;            ///< added below the root; positive
    double momentum = 0.9;        ///< 0 or more
    double weight_decay = 0;      ///< 0 or more
};

namespace detail {

/// What both have.
template <class OptionsType>
struct RmspropBase {
    using Options = OptionsType;                   ///< its settings
    static constexpr bool counts_updates = false;  ///< whether the state has PyTorch\'s `step`

    template <class T>
    static void check(const Options& options, const OptionCheck<T>& check) {
        check.below_one("alpha", options.alpha);
        check.positive("eps", options.eps);
        check.not_negative("momentum", options.momentum);
    }
    [[nodiscard]] static SettingTexts settings(const Options& options) {
        return {{"alpha", number_text(options.alpha)},
                {"eps", number_text(options.eps)},
                {"momentum", number_text(options.momentum)}};
    }

    template <class T>
    struct Factors {
        static constexpr std::size_t buffers = 2;  ///< that the formula takes

        Factors(const Options& options, const UpdateMoment&)
            : learning_rate(static_cast<T>(options.learning_rate)),
              alpha(static_cast<T>(options.alpha)),
              share(static_cast<T>(1 - options.alpha)),
              eps(static_cast<T>(options.eps)),
              momentum(static_cast<T>(options.momentum)),
              weight_decay(static_cast<T>(options.weight_decay)),
              has_momentum(options.momentum != 0) {}

        T learning_rate, alpha, share, eps, momentum, weight_decay;
        bool has_momentum;
    };
};

}  // namespace detail

/// For every parameter w that received a gradient, in PyTorch's order of operations, v from 0:
///
///     g = dw + weight_decay w
///     v = alpha v + (1 - alpha) g^2
///     m = momentum m + g / (sqrt(v) + eps)
///     w = w - learning_rate m                  (g / (sqrt(v) + eps) for m without momentum)
///
/// T. Tieleman, G. Hinton, "Lecture 6.5: RMSprop", Coursera 2012; as torch.optim.RMSprop.
struct RmspropRule : detail::RmspropBase<RmspropOptions> {
    static constexpr std::string_view name = "Rmsprop";  ///< in settings and refusals
    /// What it keeps of each parameter, by PyTorch's names.
    static constexpr std::array buffers{OptimizerBuffer{.name = "square_avg"},
                                        OptimizerBuffer{.name = "momentum_buffer", .only_with_momentum = true}};

    /// The formula.
    template <class T>
    struct Update : Factors<T> {
        using Factors<T>::Factors;

        /// One update of w and its buffers by dw: numbers, or arrays of them.
        template <class V>
        SD_HOST_DEVICE void operator()(V& w, const V& dw, V& v, V& m) const {
            using std::sqrt;
            const V g = dw + this->weight_decay * w;
            v = this->alpha * v + this->share * (g * g);
            V direction = g / (sqrt(v) + this->eps);
            if (this->has_momentum) direction = m = this->momentum * m + direction;
            w = w - this->learning_rate * direction;
        }
    };
};

/// For every parameter w that received a gradient, v from 1:
///
///     g = dw + weight_decay w
///     v = v + (1 - alpha) (g^2 - v)
///     m = momentum m + learning_rate g / sqrt(v + eps)
///     w = w - m                                (learning_rate g / sqrt(v + eps) for m without momentum)
///
/// It differs from PyTorch's in the start of v, in eps below the root and in the learning rate inside the momentum, so
/// the recipes of EfficientNet take this one. As tf.compat.v1.train.RMSPropOptimizer and timm's RMSpropTF.
struct RmspropTfRule : detail::RmspropBase<RmspropTfOptions> {
    static constexpr std::string_view name = "RmspropTf";  ///< in settings and refusals
    /// What it keeps of each parameter, by PyTorch's names.
    static constexpr std::array buffers{OptimizerBuffer{.name = "square_avg", .start = 1},
                                        OptimizerBuffer{.name = "momentum_buffer", .only_with_momentum = true}};

    /// The formula.
    template <class T>
    struct Update : Factors<T> {
        using Factors<T>::Factors;

        /// One update of w and its buffers by dw: numbers, or arrays of them.
        template <class V>
        SD_HOST_DEVICE void operator()(V& w, const V& dw, V& v, V& m) const {
            using std::sqrt;
            const V g = dw + this->weight_decay * w;
            v = v + this->share * (g * g - v);
            V direction = this->learning_rate * g / sqrt(v + this->eps);
            if (this->has_momentum) direction = m = this->momentum * m + direction;
            w = w - direction;
        }
    };
};

/// RMSprop as PyTorch has it: formula in RmspropRule.
template <class T, class Device = Cpu>
using Rmsprop = GroupedOptimizer<RmspropRule, T, Device>;

/// RMSprop as TensorFlow has it: formula in RmspropTfRule.
template <class T, class Device = Cpu>
using RmspropTf = GroupedOptimizer<RmspropTfRule, T, Device>;

SD_NAMESPACE_END
