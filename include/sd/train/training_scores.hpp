// The scores of a training run on their way from a device to the state of the run and its log.
#pragma once

#include "sd/core/error.hpp"
#include "sd/core/finite.hpp"
#include "sd/train/late_scores.hpp"
#include "sd/logs/logger.hpp"
#include "sd/train/rank_part.hpp"
#include "sd/train/state.hpp"
#include "sd/train/training_metrics.hpp"

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Keeps the scores of the batches of a run until they are read, then puts them where they belong: the loss into
/// State::loss, the score of a batch, over all ranks, into State::epoch_score, its record into the log.
///
///     begin() ; add(numbers, samples) for each part ; finish() ; close(record)      for every batch
///     read_late()                                                                   whenever more has been started
///     read_all()                                                                    where all of it is wanted
template <class T, class Device>
class TrainingScores {
public:
    /// What is logged of a batch beside its score.
    using Record = TrainingMetrics::BatchRecord;

    /// All of it must outlive this.
    TrainingScores(State<T, Device>& state, TrainingMetrics& metrics, Logger& logger, Communicator& communicator)
        : state_(state), metrics_(metrics), logger_(logger), communicator_(communicator) {}

    /// The batch after the finished ones begins.
    void begin() { late_.begin(state_.timestamp.batch, state_.optimizer.learning_rate()); }
    /// A part of it has gone through the model: its score_numbers() are on their way from now on, or, while they are
    /// held back, from then on when they no longer are.
    void add(const Tensor<double, Device>& numbers, std::size_t samples) {
        if (is_holding_back_) {
            held_back_.emplace_back(numbers, samples);
        } else {
            late_.add({numbers, samples});
            read_late();
        }
    }
    /// It has no further parts.
    void finish() {
        late_.finish();
        read_late();
    }
    /// What is logged of it beside its score.
    void close(Record record) {
        late_.close(std::move(record));
        read_late();
    }

    /// Calls work(), during which nothing can be read from the device.
    template <class Work>
    void hold_back(const Work& work) {
        is_holding_back_ = true;
        try {
            work();
        } catch (...) {
            is_holding_back_ = false;
            held_back_.clear();
            throw;
        }
        is_holding_back_ = false;
        for (const auto& [numbers, samples] : held_back_) late_.add({numbers, samples});
        held_back_.clear();
    }

    /// How many batches the scores are late. The sums over ranks wait for the device anyway.
    [[nodiscard]] std::size_t lateness() const {
        return communicator_.size() == 1 ? detail::scores_are_late<Device> : 0;
    }
    /// Whether there may be scores that can be read and have not been.
    [[nodiscard]] bool may_wait() const { return lateness() > 0 && !is_holding_back_; }
    /// Whether all that was started has been read and logged.
    [[nodiscard]] bool empty() const { return late_.empty(); }

    /// Reads those of all batches but the newest lateness(). Throws std::runtime_error for a loss that is not finite;
    /// what has not been read is then forgotten: batches after it are worth nothing.
    void read_late() { late_.read(lateness(), Reader{*this}); }
    /// Waits for all of them, and throws as read_late() does.
    void read_all() { late_.read(0, Reader{*this}); }
    /// Forgets all that has not been read.
    void forget() { late_.forget(); }

private:
    using Batch = typename LateScores<Device, Record>::Batch;

    struct Reader {
        TrainingScores& scores;

        void read_loss(const Batch& batch, double loss) const {
            scores.state_.loss = loss;
            scores.expect_finite_loss(batch);
        }
        void read_score(Batch& batch) const {
            batch.score = detail::over_ranks(batch.score, scores.communicator_);
            scores.state_.epoch_score.add(batch.score);
        }
        void read_record(const Batch& batch) const {
            scores.metrics_.write_batch(*batch.record, batch.learning_rate, batch.score, scores.logger_);
        }
    };

    void expect_finite_loss(const Batch& batch) {
        if (is_finite(state_.loss)) return;
        const std::string words =
            text("Trainer: loss at batch ", batch.number, ": got ", state_.loss, ", expected a finite number; ",
                 lateness() == 0 ? "the optimizer has not stepped" : "the optimizer has stepped since",
                 ". Try a smaller learning rate (now ", batch.learning_rate,
                 "), a warmup of it, or clipped gradients, from the last checkpoint");
        forget();
        throw std::runtime_error(words);
    }

    State<T, Device>& state_;
    TrainingMetrics& metrics_;
    Logger& logger_;
    Communicator& communicator_;
    LateScores<Device, Record> late_;
    bool is_holding_back_ = false;
    /// The numbers of parts meanwhile, with their samples.
    std::vector<std::pair<Tensor<double, Device>, std::size_t>> held_back_;
};

SD_NAMESPACE_END
