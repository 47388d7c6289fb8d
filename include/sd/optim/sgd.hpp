// Stochastic gradient descent with momentum.
#pragma once

#include "sd/optim/grouped_optimizer.hpp"

#include <array>
#include <cstddef>
#include <string_view>

SD_NAMESPACE_BEGIN

/// Settings of Sgd.
struct SgdOptions {
    double learning_rate = 0.1;  ///< 0 or more
    double momentum = 0;         ///< 0 or more
    double dampening = 0;        ///< of the gradient that enters the momentum
    double weight_decay = 0;     ///< 0 or more
    bool nesterov = false;       ///< needs momentum and no dampening
};

/// For every parameter w that received a gradient, in PyTorch's order of operations:
///
///     g = dw + weight_decay w
///     v = momentum v + (1 - dampening) g       (v = g at the parameter's first step)
///     w = w - learning_rate (nesterov ? g + momentum v : v)        (g for v without momentum)
///
/// I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.
struct SgdRule {
    using Options = SgdOptions;                      ///< its settings
    static constexpr std::string_view name = "Sgd";  ///< in settings and refusals
    /// What it keeps of each parameter, by PyTorch's names.
    static constexpr std::array buffers{OptimizerBuffer{.name = "momentum_buffer", .only_with_momentum = true}};
    static constexpr bool counts_updates = false;  ///< whether the state has PyTorch\'s `step`

    /// Throws std::invalid_argument for options outside their ranges.
    template <class T>
    static void check(const Options& options, const OptionCheck<T>& check) {
        check.not_negative("momentum", options.momentum);
        if (!is_in_range(options.dampening, -check.most, check.most)) {
            refuse("Sgd", "dampening", options.dampening, "a finite number");
        }
        if (options.nesterov && (options.momentum == 0 || options.dampening != 0)) {
            refuse("Sgd", "nesterov", text("momentum ", options.momentum, " and dampening ", options.dampening),
                   "a momentum above 0 and no dampening");
        }
    }
    /// What decides the numbers.
    [[nodiscard]] static SettingTexts settings(const Options& options) {
        return {{"momentum", detail::number_text(options.momentum)},
                {"dampening", detail::number_text(options.dampening)},
                {"nesterov", options.nesterov ? "true" : "false"}};
    }

    /// The formula.
    template <class T>
    struct Update {
        static constexpr std::size_t buffers = 1;  ///< that the formula takes

        /// Of these settings, at this update of the parameter.
        Update(const Options& options, const UpdateMoment& moment)
            : learning_rate(static_cast<T>(options.learning_rate)),
              momentum(static_cast<T>(options.momentum)),
              weight_decay(static_cast<T>(options.weight_decay)),
              share(static_cast<T>(moment.is_first ? 1.0 : 1 - options.dampening)),
              has_momentum(options.momentum != 0),
              nesterov(options.nesterov) {}

        /// One update of w and its buffers by dw: numbers, or arrays of them.
        template <class V>
        SD_HOST_DEVICE void operator()(V& w, const V& dw, V& v) const {
            const V g = dw + weight_decay * w;
            V direction = g;
            if (has_momentum) {
                const V kept = momentum * v;  // by itself, so that the compiler fuses the same product for every V
                v = kept + share * g;
                direction = nesterov ? V(g + momentum * v) : v;
            }
            w = w - learning_rate * direction;
        }

        T learning_rate;    ///< of SgdOptions
        T momentum;         ///< of SgdOptions
        T weight_decay;     ///< of SgdOptions
        T share;            ///< of the gradient in the momentum: 1 at the first update, else 1 - dampening
        bool has_momentum;  ///< whether there is a v
        bool nesterov;      ///< of SgdOptions
    };
};

/// SGD: formula in SgdRule.
template <class T, class Device = Cpu>
using Sgd = GroupedOptimizer<SgdRule, T, Device>;

SD_NAMESPACE_END
