// The scores of a run whose numbers a device computes: started when a batch is trained, read when they have come.
//
//     device      | batch 0      | batch 1      | batch 2      | ...
//     processor   starts 0, starts 1, reads 0, starts 2, reads 1, ...
//
// On the CPU nothing is late: what is started is read at once.
#pragma once

#include "sd/core/device.hpp"
#include "sd/train/score.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// After how many more batches a trainer reads a batch's scores: at once on the CPU. A device that runs beside it and is
/// told of the next batch before it is asked for the last one's scores never waits for the CPU.
template <class Device>
inline constexpr std::size_t scores_are_late = Device::runs_beside_cpu ? 1 : 0;

}  // namespace detail

/// Mean loss, and how many samples have their label as the first and among the first five of their logits (N, C): three
/// numbers. Throws std::invalid_argument as count_in_top does.
template <class T>
[[nodiscard]] Tensor<double> score_numbers(const Tensor<T>& logits, std::span<const Index> labels,
                                           const accumulate_t<T>& loss) {
    return {Shape{3},
            {static_cast<double>(loss), static_cast<double>(count_in_top(logits, labels, 1)),
             static_cast<double>(count_in_top(logits, labels, 5))}};
}

/// The score of samples that have gone through the model together, perhaps still on its way.
template <class Device>
class LateScore {
public:
    /// Of the numbers that score_numbers() gives for so many samples.
    LateScore(const Tensor<double, Device>& numbers, std::size_t samples) : numbers_(numbers), samples_(samples) {}

    /// Mean loss.
    [[nodiscard]] double loss() { return numbers_.get()[0]; }
    /// The score; its loss is the mean loss times the samples.
    [[nodiscard]] Score score() {
        const std::span<const double> numbers = numbers_.get();
        return {.loss_sum = numbers[0] * static_cast<double>(samples_),
                .correct = static_cast<std::uint64_t>(numbers[1]),
                .correct_in_top5 = static_cast<std::uint64_t>(numbers[2]),
                .samples = samples_};
    }

private:
    Readback<double, Device> numbers_;
    std::size_t samples_;
};

/// Batches whose scores have not all been read, oldest first, each with what is to be logged of it.
///
///     begin(number) ; add(score) for each part ; finish() ; close(record)      by whoever trains
///     read(leave, reader)                                                      whenever scores are wanted
template <class Device, class Record>
class LateScores {
public:
    /// A batch, as a reader sees it.
    struct Batch {
        std::uint64_t number;                     ///< how many came before it
        double learning_rate;                     ///< that it is trained with
        PooledVector<LateScore<Device>> parts{};  ///< in their order
        std::size_t parts_read = 0;               ///< of them
        Score score{};                            ///< of those that were read
        bool is_finished = false;                 ///< no parts are to come
        bool is_scored = false;                   ///< the reader has its score
        std::optional<Record> record{};           ///< what else is logged of it, once it is known
    };

    /// A batch begins.
    void begin(std::uint64_t number, double learning_rate) {
        batches_.push_back({.number = number, .learning_rate = learning_rate});
    }
    /// A part of the newest batch has gone through the model.
    void add(LateScore<Device> part) { batches_.back().parts.push_back(std::move(part)); }
    /// The newest batch has no further parts.
    void finish() { batches_.back().is_finished = true; }
    /// What is logged of the newest batch beside its score.
    void close(Record record) { batches_.back().record.emplace(std::move(record)); }

    /// Waits for all scores but those of the newest `leave` batches, and tells the reader, in this order and once:
    ///
    ///     read_loss(batch, loss)    of every part
    ///     read_score(batch)         when the last part of a finished batch is read; the score may be changed
    ///     read_record(batch)        of every closed batch, which then goes
    ///
    /// What the reader throws goes through; the same is not told again.
    template <class Reader>
    void read(std::size_t leave, Reader&& reader) {
        for (std::size_t i = 0; i + leave < batches_.size(); ++i) {
            Batch& batch = batches_[i];
            while (batch.parts_read < batch.parts.size()) {
                LateScore<Device>& part = batch.parts[batch.parts_read++];
                batch.score.add(part.score());
                reader.read_loss(batch, part.loss());
            }
            if (!batch.is_finished || batch.is_scored) continue;
            batch.is_scored = true;
            reader.read_score(batch);
        }
        while (!batches_.empty() && batches_.front().is_scored && batches_.front().record) {
            const Batch batch = std::move(batches_.front());
            batches_.erase(batches_.begin());
            reader.read_record(batch);
        }
    }

    /// Forgets all batches.
    void forget() { batches_.clear(); }
    /// Whether all that was started has been read.
    [[nodiscard]] bool empty() const { return batches_.empty(); }

private:
    PooledVector<Batch> batches_;
};

SD_NAMESPACE_END
