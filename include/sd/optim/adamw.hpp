// Adam with decoupled weight decay.
#pragma once

#include "sd/optim/grouped_optimizer.hpp"

#include <array>
#include <cmath>
#include <cstddef>
#include <string_view>

SD_NAMESPACE_BEGIN

/// Settings of AdamW; PyTorch's defaults.
struct AdamWOptions {
    double learning_rate = 1e-3;  ///< 0 or more
    double beta1 = 0.9;           ///< of the mean gradient; 0 to less than 1
    double beta2 = 0.999;         ///< of the mean squared gradient; 0 to less than 1
    double eps = 1e-8;            ///< keeps the divisor above 0; positive
    double weight_decay = 0.01;   ///< 0 or more; times the learning rate
};

/// For every parameter w that received a gradient, in PyTorch's order of operations, at its t-th update from 1:
///
///     w = w - learning_rate weight_decay w
///     m = m + (1 - beta1) (dw - m)
///     v = beta2 v + (1 - beta2) dw^2
///     w = w - learning_rate m / (1 - beta1^t) / (sqrt(v) / sqrt(1 - beta2^t) + eps)
///
/// t counts the updates of the parameter alone: one that received no gradient, such as that of a dropped block, stays
/// at its t. I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019.
struct AdamWRule {
    using Options = AdamWOptions;                      ///< its settings
    static constexpr std::string_view name = "AdamW";  ///< in settings and refusals
    /// What it keeps of each parameter, by PyTorch's names.
    static constexpr std::array buffers{OptimizerBuffer{.name = "exp_avg"}, OptimizerBuffer{.name = "exp_avg_sq"}};
    static constexpr bool counts_updates = true;  ///< whether the state has PyTorch\'s `step`

    /// Throws std::invalid_argument for options outside their ranges.
    template <class T>
    static void check(const Options& options, const OptionCheck<T>& check) {
        check.below_one("beta1", options.beta1);
        check.below_one("beta2", options.beta2);
        check.positive("eps", options.eps);
    }
    /// What decides the numbers.
    [[nodiscard]] static SettingTexts settings(const Options& options) {
        return {{"beta1", detail::number_text(options.beta1)},
                {"beta2", detail::number_text(options.beta2)},
                {"eps", detail::number_text(options.eps)}};
    }

    /// The formula.
    template <class T>
    struct Update {
        static constexpr std::size_t buffers = 2;  ///< that the formula takes

        /// Of these settings, at this update of the parameter.
        Update(const Options& options, const UpdateMoment& moment)
            : keep(static_cast<T>(1 - options.learning_rate * options.weight_decay)),
              share1(static_cast<T>(1 - options.beta1)),
              beta2(static_cast<T>(options.beta2)),
              share2(static_cast<T>(1 - options.beta2)),
              rate(static_cast<T>(options.learning_rate / correction(options.beta1, moment))),
              root_of_correction2(static_cast<T>(std::sqrt(correction(options.beta2, moment)))),
              eps(static_cast<T>(options.eps)) {}

        /// One update of w and its buffers by dw: numbers, or arrays of them.
        template <class V>
        SD_HOST_DEVICE void operator()(V& w, const V& dw, V& m, V& v) const {
            using std::sqrt;
            m = m + share1 * (dw - m);
            v = beta2 * v + share2 * (dw * dw);
            w = keep * w - rate * (m / (sqrt(v) / root_of_correction2 + eps));
        }

        T keep;                 ///< 1 - learning_rate weight_decay
        T share1;               ///< 1 - beta1
        T beta2;                ///< of AdamWOptions
        T share2;               ///< 1 - beta2
        T rate;                 ///< learning_rate / (1 - beta1^t)
        T root_of_correction2;  ///< sqrt(1 - beta2^t)
        T eps;                  ///< of AdamWOptions

    private:
        static double correction(double beta, const UpdateMoment& moment) {
            return 1 - std::pow(beta, static_cast<double>(moment.count));
        }
    };
};

/// AdamW: formula in AdamWRule.
template <class T, class Device = Cpu>
using AdamW = GroupedOptimizer<AdamWRule, T, Device>;

SD_NAMESPACE_END
