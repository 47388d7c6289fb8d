// What a trainer logs.
#pragma once

#include "sd/train/data_parallel.hpp"
#include "sd/logs/logger.hpp"
#include "sd/train/state.hpp"

#include <chrono>
#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Gathers and logs the metrics of a run, named as in Trainer, over all ranks. Speeds and the time that communication
/// held up come from the clock; nothing else does.
class TrainingMetrics {
public:
    /// Of these ranks, which must outlive it.
    explicit TrainingMetrics(Communicator& communicator) : communicator_(communicator) {}

    /// Training begins, or goes on: its speed is measured from here on.
    void start() {
        restart_clock();
        epoch_ = {};
    }
    /// What happened since the last batch, such as an evaluation, does not count as training.
    void restart_clock() {
        batch_start_ = Clock::now();
        traffic_ = communicator_.traffic();
    }

    /// A batch goes through the model.
    template <class State>
    void begin_batch(const State& state) {
        kept_.assign(state.model.blocks().size(), 0.0);
    }
    /// A part of it has gone through.
    template <class State>
    void add_part(const State& state) {
        const auto blocks = state.model.blocks();
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            for (const auto keeps : *blocks[i].mask) kept_[i] += keeps;
        }
    }
    /// What is logged of a batch beside its score, which may come later.
    struct BatchRecord {
        Timestamp timestamp;             ///< after the batch
        std::vector<Metric> algorithms;  ///< by them
        std::vector<Metric> others;      ///< by the trainer
    };
    /// All of a batch of so many samples, over all ranks, has gone through. All ranks take part.
    template <class State>
    [[nodiscard]] BatchRecord end_batch(const State& state, double samples, Logger& logger) {
        BatchRecord record{state.timestamp, logger.take(), {}};
        Logger others;
        log_traffic(others);
        sum_over_ranks(kept_, communicator_);
        std::vector<double> rates, kept;
        const auto blocks = state.model.blocks();
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            const PolicySummary policy = blocks[i].policy();
            if (!policy.is_stochastic) continue;
            rates.push_back(policy.drop_rate);
            kept.push_back(kept_[i] / samples);
        }
        if (!rates.empty()) {
            others.log("stochastic_depth/drop_rates", std::move(rates));
            others.log("stochastic_depth/kept_fraction", std::move(kept));
        }
        record.others = others.take();
        return record;
    }
    /// Writes the record of a batch that had that score. Its time is that since the batch before was written.
    void write_batch(BatchRecord record, double learning_rate, const Score& score, Logger& logger) {
        std::vector<Metric> of_later_batches = logger.take();
        logger.log(std::move(record.algorithms));
        log_score("train", score, logger);
        logger.log("learning_rate", learning_rate);
        const Speed batch{static_cast<double>(score.samples),
                          std::chrono::duration<double>(Clock::now() - batch_start_).count()};
        batch_start_ = Clock::now();
        log_speed(batch, logger);
        epoch_.samples += batch.samples;
        epoch_.seconds += batch.seconds;
        logger.log(std::move(record.others));
        logger.write(LogEvent::batch, record.timestamp);
        logger.log(std::move(of_later_batches));
    }
    /// An epoch is finished, with that score.
    void log_epoch(const Score& score, Logger& logger) {
        log_score("train_epoch", score, logger);
        log_speed(epoch_, logger);
        epoch_ = {};
    }
    /// An evaluation is finished, with that score.
    static void log_evaluation(const Score& score, Logger& logger) { log_score("eval", score, logger); }

private:
    using Clock = std::chrono::steady_clock;
    struct Speed {
        double samples = 0;
        double seconds = 0;
    };

    static void log_score(std::string_view of, const Score& score, Logger& logger) {
        logger.log(text("loss/", of), score.loss());
        logger.log(text("accuracy/", of), score.accuracy());
        logger.log(text("top5_accuracy/", of), score.top5_accuracy());
    }
    static void log_speed(const Speed& speed, Logger& logger) {
        if (speed.seconds > 0) logger.log("images_per_second", speed.samples / speed.seconds);
    }

    void log_traffic(Logger& logger) const {
        if (communicator_.size() == 1) return;
        const Traffic traffic = communicator_.traffic();
        logger.log("communication/bytes_sent", static_cast<double>(traffic.bytes_sent - traffic_.bytes_sent));
        logger.log("communication/seconds", traffic.seconds - traffic_.seconds);
    }

    Communicator& communicator_;
    Clock::time_point batch_start_ = {};
    Traffic traffic_ = {};      ///< of this rank by then
    Speed epoch_;               ///< of the epoch's batches since start()
    std::vector<double> kept_;  ///< of every block, how many samples of the batch kept it
};

SD_NAMESPACE_END
