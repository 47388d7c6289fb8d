// What a pass through a network knows about itself.
#pragma once

#include "sd/core/error.hpp"

#include <cstdint>
#include <type_traits>

SD_NAMESPACE_BEGIN

/// A setting that must be given: there is no default.
template <class T>
class Required {
public:
    /// From any number that converts to T.
    template <class Value>
        requires std::is_convertible_v<Value, T>
    Required(Value value) : value_(static_cast<T>(value)) {}  // NOLINT(google-explicit-constructor)
    /// The setting.
    operator T() const { return value_; }                     // NOLINT(google-explicit-constructor)

private:
    T value_;
};

/// A pass in training. Masks are a function of these numbers and of nothing else.
struct TrainPass {
    Required<std::uint64_t> step;     ///< batches trained so far; microbatches of one batch share it; below 2^56
    Required<std::uint64_t> seed;     ///< of the whole run
    std::uint64_t sample_offset = 0;  ///< index of the first sample in the global batch, over all ranks and microbatches
    std::uint32_t rank = 0;           ///< of this process among those that share the batch
};

/// A pass in evaluation.
struct EvalPass {
    bool gradients = false;  ///< keep what backward needs
};

/// Tells layers whether a pass trains, and where in the run and in the global batch it stands.
class Context {
public:
    /// Batch statistics are used and updated, masks are drawn, and what backward needs is kept.
    [[nodiscard]] static Context train(const TrainPass& pass) {
        if (pass.step >= (std::uint64_t{1} << 56)) {
            refuse("Context::train", "step", static_cast<std::uint64_t>(pass.step), "less than 2^56");
        }
        return {true, true, pass};
    }

    /// Running statistics are used and every block runs.
    [[nodiscard]] static Context eval(const EvalPass& pass = {}) {
        return {false, pass.gradients, TrainPass{.step = 0, .seed = 0}};
    }

    /// Whether the pass trains.
    [[nodiscard]] bool training() const { return training_; }
    /// Whether layers keep what backward needs.
    [[nodiscard]] bool gradients() const { return gradients_; }
    /// Batches trained so far.
    [[nodiscard]] std::uint64_t step() const { return pass_.step; }
    /// The seed of the run.
    [[nodiscard]] std::uint64_t seed() const { return pass_.seed; }
    /// The index of the first sample in the global batch.
    [[nodiscard]] std::uint64_t sample_offset() const { return pass_.sample_offset; }
    /// The rank of this process.
    [[nodiscard]] std::uint32_t rank() const { return pass_.rank; }

private:
    Context(bool training, bool gradients, const TrainPass& pass)
        : training_(training), gradients_(gradients), pass_(pass) {}

    bool training_;
    bool gradients_;
    TrainPass pass_;
};

SD_NAMESPACE_END
