// The settings of stochastic depth, and their names as text.
#pragma once

#include "sd/core/enum_names.hpp"
#include "sd/core/finite.hpp"

#include <string>
#include <string_view>

SD_NAMESPACE_BEGIN

/// What is dropped at random in training.
enum class StochasticMethod {
    block,  ///< a block for the whole batch: its branch is not computed
    sample  ///< a block for single samples
};

/// How the drop rates grow with depth.
enum class DropDistribution {
    uniform,             ///< r everywhere
    linear,              ///< from 0 at the first block to r at the last
    linear_huang,        ///< r (i + 1) / L, of the 2016 paper
    linear_efficientnet  ///< r i / L, of EfficientNet
};

/// What the branch of a sample-wise block computes.
enum class Compute {
    all,       ///< every sample; batch statistics are those of the plain network
    survivors  ///< kept samples only; dropped ones cost nothing, and batch statistics come from the kept ones
};

/// Where survival is made up for.
enum class Scaling {
    inference,  ///< the branch times 1 - p in evaluation
    train       ///< kept branches times 1 / (1 - p) in training
};

/// What the parameters of a branch that did not run receive.
enum class SkippedGradient {
    none,  ///< no gradient: optimizers skip them, weight decay and momentum included
    zero   ///< a gradient of zeros
};

namespace detail {

template <>
struct EnumNames<StochasticMethod> {
    static constexpr std::string_view setting = "stochastic_method";
    static constexpr EnumName<StochasticMethod> names[]{{StochasticMethod::block, "block"},
                                                        {StochasticMethod::sample, "sample"}};
};
template <>
struct EnumNames<DropDistribution> {
    static constexpr std::string_view setting = "drop_distribution";
    static constexpr EnumName<DropDistribution> names[]{{DropDistribution::uniform, "uniform"},
                                                        {DropDistribution::linear, "linear"},
                                                        {DropDistribution::linear_huang, "linear_huang"},
                                                        {DropDistribution::linear_efficientnet, "linear_efficientnet"}};
};
template <>
struct EnumNames<Compute> {
    static constexpr std::string_view setting = "compute";
    static constexpr EnumName<Compute> names[]{{Compute::all, "all"}, {Compute::survivors, "survivors"}};
};
template <>
struct EnumNames<Scaling> {
    static constexpr std::string_view setting = "scaling";
    static constexpr EnumName<Scaling> names[]{{Scaling::inference, "inference"}, {Scaling::train, "train"}};
};
template <>
struct EnumNames<SkippedGradient> {
    static constexpr std::string_view setting = "skipped_gradient";
    static constexpr EnumName<SkippedGradient> names[]{{SkippedGradient::none, "none"},
                                                       {SkippedGradient::zero, "zero"}};
};

/// Refuses a rate outside [0, 1]; NaN is outside.
inline void expect_rate(const char* where, const char* setting, double rate) {
    if (!is_in_range(rate, 0, 1)) refuse(where, setting, rate, "a number from 0 to 1");
}

/// Refuses a name of blocks that is empty or has a space, which settings as text could not hold.
inline void expect_name(const char* where, const char* setting, const std::string& name) {
    if (name.empty() || name.find(' ') != std::string::npos) {
        refuse(where, setting, text('"', name, '"'), "a name without spaces");
    }
}

}  // namespace detail

/// What apply_stochastic_depth does to a network.
struct StochasticDepthOptions {
    std::string target_layer_name = {};                            ///< which blocks become stochastic; empty: all
    StochasticMethod stochastic_method = StochasticMethod::block;  ///< whole blocks or samples
    std::string policy = {};  ///< a policy of register_policy() in the place of the method's; empty: the method's
    double drop_rate = 0.2;   ///< 0 to 1
    DropDistribution drop_distribution = DropDistribution::linear;  ///< over depth
    bool use_same_gpu_seed = true;         ///< `block`: all ranks drop the same blocks; without effect for `sample`
    Compute compute = Compute::all;        ///< of `sample`
    Scaling scaling = Scaling::inference;  ///< where survival is made up for
    SkippedGradient skipped_gradient = SkippedGradient::none;  ///< of parameters whose branch did not run
    bool drop_at_projections = true;  ///< also blocks whose shortcut is not the identity, where the shape changes
};

SD_NAMESPACE_END
