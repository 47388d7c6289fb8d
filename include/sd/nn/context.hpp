// What a pass through a network knows about itself.
#pragma once

#include "sd/nn/drawn_blocks.hpp"
#include "sd/nn/joint_pass.hpp"

#include <cstdint>
#include <memory>
#include <type_traits>

SD_NAMESPACE_BEGIN

namespace detail {

/// A setting that must be given: there is no default.
template <class T>
class Required {
public:
    /// From any number that converts to T.
    template <class Value>
    requires std::is_convertible_v<Value, T> Required(Value value)
        : value_(static_cast<T>(value)) {}  // NOLINT(google-explicit-constructor)
    /// The setting.
    operator T() const { return value_; }  // NOLINT(google-explicit-constructor)

private:
    T value_;
};

}  // namespace detail

/// A pass in training. Masks are a function of these numbers and of nothing else.
struct TrainPass {
    detail::Required<std::uint64_t> step;  ///< batches trained so far; microbatches of one batch share it; below 2^56
    detail::Required<std::uint64_t> seed;  ///< of the whole run
    std::uint64_t sample_offset =
        0;                   ///< index of the first sample in the global batch, over all ranks and microbatches
    std::uint32_t rank = 0;  ///< of this process among those that share the batch
    const JointPass* joint = nullptr;  ///< the pass of all ranks, which outlives this one; sets sample_offset and rank
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
        Context context(true, true, pass);
        return pass.joint == nullptr ? context : context.of_rank(pass.joint->rank);
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
    /// The pass of all ranks that this one is a part of, or null.
    [[nodiscard]] const JointPass* joint() const { return pass_.joint; }
    /// Over whom batch norm merges its statistics, or null.
    [[nodiscard]] Communicator* batch_norm_communicator() const {
        return pass_.joint == nullptr ? nullptr : pass_.joint->batch_norm;
    }
    /// The same pass for one network of several that share this context: their blocks may have the same numbers.
    [[nodiscard]] Context of_network() const {
        Context own = *this;
        if (drawn_) own.drawn_ = no_blocks_drawn();
        return own;
    }
    /// Throws std::logic_error if another block of the same number has drawn its masks in this training pass.
    void expect_own_number(std::uint32_t block, const void* address) const {
        if (drawn_) drawn_->expect_own_number(block, address);
    }
    /// Whether predicate(context of a rank, its samples) is true for some rank of the joint pass. What ranks decide by
    /// the pass alone each of them so tells of all, without a message.
    template <class Predicate>
    [[nodiscard]] bool on_any_rank(const Predicate& predicate) const {
        if (pass_.joint == nullptr) return false;
        const std::vector<BatchPart>& parts = pass_.joint->parts;
        for (std::size_t rank = 0; rank < parts.size(); ++rank) {
            if (predicate(of_rank(static_cast<Index>(rank)), parts[rank].count)) return true;
        }
        return false;
    }
    /// The same joint pass as another rank sees it.
    [[nodiscard]] Context of_rank(Index rank) const {
        Context other = *this;
        other.pass_.rank = static_cast<std::uint32_t>(rank);
        other.pass_.sample_offset =
            static_cast<std::uint64_t>(pass_.joint->parts.at(static_cast<std::size_t>(rank)).first);
        return other;
    }

private:
    Context(bool training, bool gradients, const TrainPass& pass)
        : training_(training), gradients_(gradients), pass_(pass) {
        if (training) drawn_ = no_blocks_drawn();
    }

    static std::shared_ptr<detail::DrawnBlocks> no_blocks_drawn() {
        return std::allocate_shared<detail::DrawnBlocks>(PoolAllocator<detail::DrawnBlocks>());
    }

    bool training_;
    bool gradients_;
    TrainPass pass_;
    std::shared_ptr<detail::DrawnBlocks> drawn_;  ///< of a training pass, shared by all copies
};

SD_NAMESPACE_END
