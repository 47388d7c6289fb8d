// Saving a run while it trains, and going on with it. Needs nlohmann/json and zlib.
#pragma once

#include "sd/core/number_text.hpp"
#include "sd/core/warning.hpp"
#include "sd/io/checkpoint_directory.hpp"
#include "sd/train/trainer.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

SD_NAMESPACE_BEGIN

/// Settings of a CheckpointSaver.
struct CheckpointOptions {
    std::filesystem::path directory;  ///< the run's own; created if there is none
    Time interval = "1ep";            ///< between two checkpoints; above 0
    Index keep = 3;                   ///< how many stay; 1 or more
    /// What the run was started with and the trainer does not know, such as the model's name: neither a clock time nor a
    /// number of threads nor a path, which would make equal runs differ.
    std::map<std::string, std::string> settings = {};
};

namespace detail {

/// Where a run stands, as texts of a checkpoint.
inline std::map<std::string, std::string> run_texts(const Timestamp& timestamp, const Score& epoch_score) {
    return {{"epoch", text(timestamp.epoch)},
            {"batch", text(timestamp.batch)},
            {"sample", text(timestamp.sample)},
            {"batch_in_epoch", text(timestamp.batch_in_epoch)},
            {"sample_in_epoch", text(timestamp.sample_in_epoch)},
            {"epoch_score.loss_sum", number_text(epoch_score.loss_sum)},
            {"epoch_score.correct", text(epoch_score.correct)},
            {"epoch_score.correct_in_top5", text(epoch_score.correct_in_top5)},
            {"epoch_score.samples", text(epoch_score.samples)}};
}

/// Reads the numbers of a checkpoint's `run`.
class RunReader {
public:
    explicit RunReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

    [[nodiscard]] std::uint64_t count(const std::string& key) const {
        const std::string& value = text_of(key);
        std::uint64_t number = 0;
        const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
        if (error != std::errc() || end != value.data() + value.size() || number >= count_limit) {
            refuse_run(key, in_quotes(value), text("a whole number below ", count_limit));
        }
        return number;
    }
    [[nodiscard]] double number(const std::string& key) const {
        const std::optional<double> number = parse_finite(text_of(key));
        if (!number) refuse_run(key, in_quotes(text_of(key)), "a finite number");
        return *number;
    }

private:
    [[nodiscard]] const std::string& text_of(const std::string& key) const {
        const auto found = checkpoint_.run.find(key);
        if (found == checkpoint_.run.end()) refuse_run(key, "none", "a number");
        return found->second;
    }
    [[noreturn]] void refuse_run(const std::string& key, const std::string& got, const std::string& expected) const {
        refuse_file(checkpoint_.model.source(), "run." + key, got, expected);
    }

    const Checkpoint& checkpoint_;
};

inline Timestamp timestamp_of(const Checkpoint& checkpoint) {
    const RunReader run(checkpoint);
    return {.epoch = run.count("epoch"),
            .batch = run.count("batch"),
            .sample = run.count("sample"),
            .batch_in_epoch = run.count("batch_in_epoch"),
            .sample_in_epoch = run.count("sample_in_epoch")};
}

inline Score epoch_score_of(const Checkpoint& checkpoint) {
    const RunReader run(checkpoint);
    return {.loss_sum = run.number("epoch_score.loss_sum"),
            .correct = run.count("epoch_score.correct"),
            .correct_in_top5 = run.count("epoch_score.correct_in_top5"),
            .samples = run.count("epoch_score.samples")};
}

/// Refuses a timestamp that no run of that length passes.
inline void check_timestamp(const std::string& source, const Timestamp& timestamp, const RunLength& run) {
    const auto expect = [&](const char* key, std::uint64_t got, std::uint64_t expected) {
        if (got != expected) refuse_file(source, text("run.", key), got, expected);
    };
    if (timestamp.batch_in_epoch > run.batches_per_epoch) {
        refuse_file(source, "run.batch_in_epoch", timestamp.batch_in_epoch, text("0 to ", run.batches_per_epoch));
    }
    expect("batch", timestamp.batch, timestamp.epoch * run.batches_per_epoch + timestamp.batch_in_epoch);
    expect("sample_in_epoch", timestamp.sample_in_epoch,
           std::min(timestamp.batch_in_epoch * run.batch_size, run.samples_per_epoch));
    expect("sample", timestamp.sample, timestamp.epoch * run.samples_per_epoch + timestamp.sample_in_epoch);
}

/// Compares what the run of a checkpoint was started with and what this one is. Without the settings that say which
/// samples a batch has and what is drawn for them, a position means nothing: they are refused, by std::invalid_argument.
/// Others may be changed on purpose, and are told.
inline void compare_settings(const std::string& source, const std::map<std::string, std::string>& before,
                             const std::map<std::string, std::string>& now) {
    constexpr std::array<std::string_view, 4> binding{"seed", "batch_size", "batches_per_epoch", "samples_per_epoch"};
    const auto value = [](const std::map<std::string, std::string>& settings, const std::string& key) {
        const auto found = settings.find(key);
        return found == settings.end() ? std::string("none") : found->second;
    };
    std::map<std::string, std::string> all = before;
    all.insert(now.begin(), now.end());
    std::string changed;
    for (const auto& [key, unused] : all) {
        const std::string was = value(before, key), is = value(now, key);
        if (was == is) continue;
        if (std::find(binding.begin(), binding.end(), key) != binding.end()) {
            refuse(source, "setting " + key, is, was + ", as its run had");
        }
        changed += text(changed.empty() ? "" : "; ", key, ": ", is, " instead of ", was);
    }
    if (!changed.empty()) warn(text(source, ": the run goes on with other settings: ", changed));
}

}  // namespace detail

/// Saves the run of a trainer while it trains, and lets it go on from there, bit for bit:
///
///     sd::Trainer trainer(model, optimizer, train_loader, eval_loader, {.max_duration = "90ep"});
///     sd::CheckpointSaver saver(trainer, {.directory = "first_run", .interval = "500ba"});
///     saver.resume();
///     trainer.fit();
///
/// Of several ranks, rank 0 alone reads and writes; what it loads, all get.
///
/// A checkpoint is written whenever a multiple of the interval has been passed, at the end of the run, and when a stop is
/// requested; after everything else that belongs to the batch, metrics on the disk included.
template <class Trainer>
class CheckpointSaver {
public:
    /// Saves from now on. To be made after all algorithms were added; must live as long as the trainer trains.
    /// Throws std::invalid_argument for settings outside their ranges, std::runtime_error if the folder cannot be used.
    CheckpointSaver(Trainer& trainer, CheckpointOptions options)
        : trainer_(trainer), options_(checked(std::move(options))) {
        if (trainer_.communicator().rank() == 0) directory_.emplace(options_.directory, options_.keep);
        trainer_.add(Hook{this});
    }
    CheckpointSaver(const CheckpointSaver&) = delete;
    CheckpointSaver& operator=(const CheckpointSaver&) = delete;

    /// Loads the newest checkpoint of the folder that is whole and of this model, and says which one and what was passed
    /// over; nothing if the folder has none. Ranks other than rank 0 get empty paths. Settings that have changed since are
    /// warned of.
    /// Throws std::runtime_error if every checkpoint is refused, std::invalid_argument if the run differs from that of
    /// the checkpoint in seed, batch size or number of samples. The trainer is then as it was.
    std::optional<FoundCheckpoint> resume() {
        std::optional<FoundCheckpoint> found;
        if (directory_) found = directory_->load_newest([this](const Checkpoint& checkpoint) { load(checkpoint); });
        is_own_ = true;
        share(found);
        return found;
    }

private:
    /// What the trainer's events reach.
    struct Hook {
        static constexpr std::string_view name = "CheckpointSaver";
        CheckpointSaver* saver;

        template <class T, class Device>
        [[nodiscard]] bool match(Event event, const State<T, Device>& state) const {
            return saver->match(event, state);
        }
        template <class T, class Device>
        void apply(Event event, State<T, Device>&, Logger& logger) {
            event == Event::fit_start ? saver->expect_own_folder() : saver->save(logger);
        }
    };

    /// Gives all ranks what rank 0 has loaded, if it has.
    void share(std::optional<FoundCheckpoint>& found) {
        Communicator& communicator = trainer_.communicator();
        bool is_found = found.has_value();
        communicator.broadcast(std::span(&is_found, 1));
        if (!is_found) return;
        auto& state = trainer_.state();
        broadcast_parameters(trainer_.model(), communicator);
        broadcast_buffers(trainer_.model(), communicator);
        broadcast_momentum(state.optimizer, communicator);
        communicator.broadcast(std::span(&state.timestamp, 1));
        communicator.broadcast(std::span(&state.epoch_score, 1));
        saved_ = state.timestamp;
        if (!found) found.emplace();
    }

    static CheckpointOptions checked(CheckpointOptions options) {
        if (options.interval.value() == 0) refuse("CheckpointSaver", "interval", options.interval, "more than 0");
        return options;
    }

    template <class T, class Device>
    [[nodiscard]] bool match(Event event, const State<T, Device>& state) const {
        if (event == Event::fit_start) return true;
        if (event != Event::batch_checkpoint && event != Event::epoch_checkpoint) return false;
        if (state.stopping || state.is_finished()) return true;
        // The last batch of an epoch is followed by the epoch's own checkpoint event.
        if (state.timestamp.batch_in_epoch == state.run.batches_per_epoch) return false;
        return reaches_interval(options_.interval, saved_, state.timestamp, state.run);
    }

    void expect_own_folder() const {
        const std::size_t others = is_own_ || !directory_ ? 0 : directory_->checkpoints().size();
        if (others == 0) return;
        refuse_file(directory_->path().string(), "checkpoints", text(others, " of another run"),
                    "none, or to resume that run");
    }

    void save(Logger& logger) {
        const auto& state = trainer_.state();
        if (directory_) {
            logger.flush();
            Checkpoint checkpoint;
            capture(checkpoint, trainer_.model(), state.optimizer);
            checkpoint.run = detail::run_texts(state.timestamp, state.epoch_score);
            checkpoint.settings = settings();
            directory_->save(static_cast<Index>(state.timestamp.batch), checkpoint);
        }
        saved_ = state.timestamp;
        is_own_ = true;
    }

    void load(const Checkpoint& checkpoint) {
        auto& state = trainer_.state();
        const Timestamp timestamp = detail::timestamp_of(checkpoint);
        const Score epoch_score = detail::epoch_score_of(checkpoint);
        check_state_dict(trainer_.model(), checkpoint.model);
        detail::compare_settings(checkpoint.model.source(), checkpoint.settings, settings());
        detail::check_timestamp(checkpoint.model.source(), timestamp, state.run);
        restore(checkpoint, trainer_.model(), state.optimizer);
        state.timestamp = timestamp;
        state.epoch_score = epoch_score;
    }

    [[nodiscard]] std::map<std::string, std::string> settings() const {
        const auto& state = trainer_.state();
        const SgdOptions& sgd = state.optimizer.options();
        std::map<std::string, std::string> result = options_.settings;
        result.insert({{"seed", text(state.seed)},
                       {"batch_size", text(state.run.batch_size)},
                       {"batches_per_epoch", text(state.run.batches_per_epoch)},
                       {"samples_per_epoch", text(state.run.samples_per_epoch)},
                       {"max_duration", to_string(trainer_.options().max_duration)},
                       {"microbatches", text(trainer_.options().microbatches)},
                       {"learning_rate_schedule", to_string(trainer_.options().learning_rate)},
                       {"learning_rate", detail::number_text(trainer_.base_learning_rate())},
                       {"momentum", detail::number_text(sgd.momentum)},
                       {"dampening", detail::number_text(sgd.dampening)},
                       {"weight_decay", detail::number_text(sgd.weight_decay)},
                       {"nesterov", sgd.nesterov ? "true" : "false"}});
        return result;
    }

    Trainer& trainer_;
    CheckpointOptions options_;
    std::optional<CheckpointDirectory> directory_;  ///< rank 0's
    Timestamp saved_ = {};                          ///< of the last checkpoint written or loaded
    bool is_own_ = false;                           ///< whether the folder's checkpoints are of this run
};

SD_NAMESPACE_END
