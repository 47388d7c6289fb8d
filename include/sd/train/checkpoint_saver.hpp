// Saving a run while it trains, and going on with it. Needs nlohmann/json and zlib.
#pragma once

#include "sd/core/device.hpp"
#include "sd/core/settings.hpp"
#include "sd/core/warning.hpp"
#include "sd/io/checkpoint_directory.hpp"
#include "sd/io/finite_state.hpp"
#include "sd/train/run_position.hpp"
#include "sd/train/run_settings.hpp"
#include "sd/train/trainer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Settings of a CheckpointSaver.
struct CheckpointOptions {
    std::filesystem::path directory;  ///< the run's own; created if there is none
    Time interval = "1ep";            ///< between two checkpoints; above 0
    Index keep = 3;                   ///< how many stay; 1 or more
    /// What the run was started with and the trainer does not know, such as the model's name: neither a clock time nor
    /// a number of threads nor a path, which would make equal runs differ; none by a name that the trainer itself uses.
    SettingTexts settings = {};
};

/// Saves the run of a trainer while it trains, and lets it go on from there, bit for bit:
///
///     sd::Trainer trainer(model, optimizer, train_loader, eval_loader, {.max_duration = "90ep"});
///     sd::CheckpointSaver saver(trainer, {.directory = "first_run", .interval = "500ba"});
///     saver.resume();
///     trainer.fit();
///
/// Of several ranks, rank 0 alone reads and writes, on its machine; what it loads, all get.
///
/// A checkpoint is written whenever a multiple of the interval has been passed, at the end of the run, and when a stop
/// is requested; after everything else that belongs to the batch, metrics on the disk included. A state whose
/// parameters, running statistics, optimizer's or algorithms' tensors are not all finite is not written: the run then ends
/// with std::runtime_error, which names the first of them, and goes on from the checkpoint before.
template <class Trainer>
class CheckpointSaver {
public:
    /// Saves from now on. To be made after all algorithms were added; must live as long as the trainer trains.
    /// Throws std::invalid_argument for settings outside their ranges, std::runtime_error if the folder cannot be used.
    CheckpointSaver(Trainer& trainer, CheckpointOptions options) : trainer_(trainer), options_(std::move(options)) {
        check_options();
        if (trainer_.communicator().rank() == 0) directory_.emplace(options_.directory, options_.keep);
        trainer_.add(Hook{this});
    }
    CheckpointSaver(const CheckpointSaver&) = delete;
    CheckpointSaver& operator=(const CheckpointSaver&) = delete;

    /// Loads the newest checkpoint of the folder that is whole and of this model, and says which one and what was
    /// passed over; nothing if the folder has none. Ranks other than rank 0 get empty paths. Settings that have changed
    /// since are warned of.
    /// Throws std::runtime_error if every checkpoint is refused, or if rank 0's folder has none and that of another
    /// machine has some; std::invalid_argument if the run differs from that of the checkpoint in seed, batch size,
    /// number of samples or the loader's settings. The trainer is then as it was.
    std::optional<FoundCheckpoint> resume() {
        std::optional<FoundCheckpoint> found;
        std::string changed;
        if (directory_) {
            found = directory_->load_newest([&](const Checkpoint& checkpoint) { changed = load(checkpoint); });
        }
        is_own_ = true;
        share(found);
        if (!changed.empty()) warn(text(found->path.string(), ": the run goes on with other settings: ", changed));
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

    /// What a device chooses by itself is a part of where its runs stand.
    using Model = std::remove_reference_t<decltype(std::declval<Trainer&>().model())>;
    using Choices = DeviceChoices<typename Model::device_type>;
    static constexpr const char* choices_key = "device_choices";

    /// Gives all ranks what rank 0 has loaded, if it has.
    void share(std::optional<FoundCheckpoint>& found) {
        Communicator& communicator = trainer_.communicator();
        bool is_found = found.has_value();
        communicator.broadcast(std::span(&is_found, 1));
        if (!is_found) return expect_none_elsewhere();
        auto& state = trainer_.state();
        broadcast_parameters(trainer_.model(), communicator);
        broadcast_buffers(trainer_.model(), communicator);
        broadcast_optimizer(state.optimizer, communicator);
        broadcast_tensors(state.carried, communicator);
        communicator.broadcast(std::span(&state.timestamp, 1));
        communicator.broadcast(std::span(&state.epoch_score, 1));
        communicator.broadcast(std::span(&state.evaluation_is_pending, 1));
        if constexpr (Choices::are_made) share_choices(communicator);
        saved_ = state.timestamp;
        saved_pending_ = state.evaluation_is_pending;
        if (!found) found.emplace();
    }

    /// A run whose rank 0 has come to another machine would start over, beside what it has done.
    void expect_none_elsewhere() const {
        Communicator& communicator = trainer_.communicator();
        const auto own = static_cast<Index>(CheckpointDirectory::checkpoints_in(options_.directory).size());
        std::vector<Index> all(static_cast<std::size_t>(communicator.size()));
        communicator.all_gather(std::span<const Index>(&own, 1), std::span(all));
        const auto found = std::find_if(all.begin(), all.end(), [](Index count) { return count > 0; });
        if (found == all.end()) return;
        refuse_file(options_.directory.string(), "checkpoints",
                    text("none where rank 0 runs, ", *found, " where rank ", found - all.begin(), " runs"),
                    "them where rank 0 runs, which alone reads them");
    }

    static void share_choices(Communicator& communicator) {
        std::string choices = communicator.rank() == 0 ? Choices::so_far().text() : std::string();
        broadcast_text(choices, communicator);
        if (communicator.rank() != 0) Choices::parse(choices, "rank 0").use();
    }

    void check_options() const {
        if (options_.interval.value() == 0) refuse("CheckpointSaver", "interval", options_.interval, "more than 0");
        const SettingTexts known = detail::settings_of_run(trainer_);
        for (const auto& [key, value] : options_.settings) {
            if (known.contains(key)) refuse("CheckpointSaver", "settings", text('"', key, '"'), "names of other ones");
            for (const std::string& words : {key, value}) (void)detail::json_text(words);  // refuses what is not UTF-8
        }
    }

    template <class T, class Device>
    [[nodiscard]] bool match(Event event, const State<T, Device>& state) const {
        if (event == Event::fit_start) return true;
        if (event != Event::batch_checkpoint && event != Event::epoch_checkpoint) return false;
        if (state.stopping || state.is_finished() || saved_pending_) return true;
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
            checkpoint.carried = to_safetensors(state.carried);
            expect_finite(checkpoint);
            checkpoint.run = detail::run_texts(state.timestamp, state.epoch_score, state.evaluation_is_pending);
            if constexpr (Choices::are_made) checkpoint.run[choices_key] = Choices::so_far().text();
            checkpoint.settings = settings();
            directory_->save(static_cast<Index>(state.timestamp.batch), checkpoint);
        }
        saved_ = state.timestamp;
        saved_pending_ = state.evaluation_is_pending;
        is_own_ = true;
    }

    /// From a state that is not finite no run could go on; it must not take the place of one that is. A loss may be
    /// finite and its update not.
    void expect_finite(const Checkpoint& checkpoint) const {
        const auto refuse_state = [&](const std::string& name, double number) {
            refuse_file(directory_->path().string(),
                        text(detail::in_quotes(name), " after batch ", trainer_.state().timestamp.batch), number,
                        "finite numbers; the state is not saved. Try a smaller learning rate, a warmup of it, or "
                        "clipped gradients, from the last checkpoint");
        };
        detail::expect_finite_state(trainer_.model(), checkpoint.model, refuse_state);
        for (const SafeTensors* tensors : {&checkpoint.optimizer, &checkpoint.carried}) {
            for (const std::string& name : tensors->names()) {
                const auto number = detail::first_not_finite(tensors->entry(name));
                if (number) refuse_state(name, *number);
            }
        }
    }

    /// Takes the checkpoint's state, and returns which settings have changed.
    [[nodiscard]] std::string load(const Checkpoint& checkpoint) {
        auto& state = trainer_.state();
        const std::string& source = checkpoint.model.source();
        const Timestamp timestamp = detail::timestamp_of(checkpoint);
        const Score epoch_score = detail::epoch_score_of(checkpoint);
        const bool evaluation_is_pending = detail::evaluation_is_pending(checkpoint);
        check_state_dict(trainer_.model(), checkpoint.model);
        std::string changed = detail::changed_settings(source, checkpoint.settings, settings());
        detail::check_timestamp(source, timestamp, state.run);
        const auto choices = choices_of(checkpoint);
        using Carried = typename std::remove_reference_t<decltype(state.carried)>::mapped_type;
        auto carried =
            to_named_tensors<typename Carried::value_type, typename Carried::device_type>(checkpoint.carried);
        std::erase_if(carried, [&](const auto& one) { return !trainer_.engine().carries(one.first); });
        restore(checkpoint, trainer_.model(), state.optimizer);
        state.timestamp = timestamp;
        state.epoch_score = epoch_score;
        state.evaluation_is_pending = evaluation_is_pending;
        state.carried = std::move(carried);
        if (choices) choices->use();
        return changed;
    }

    // A checkpoint of another device has none.
    static std::optional<Choices> choices_of(const Checkpoint& checkpoint) {
        const auto found = checkpoint.run.find(choices_key);
        if (!Choices::are_made || found == checkpoint.run.end()) return std::nullopt;
        return Choices::parse(found->second, checkpoint.model.source());
    }

    [[nodiscard]] SettingTexts settings() const {
        SettingTexts all = detail::settings_of_run(trainer_);
        all.insert(options_.settings.begin(), options_.settings.end());
        return all;
    }

    Trainer& trainer_;
    CheckpointOptions options_;
    std::optional<CheckpointDirectory> directory_;  ///< rank 0's
    Timestamp saved_ = {};                          ///< of the last checkpoint written or loaded
    bool saved_pending_ = false;                    ///< whether that one's evaluation was still to come
    bool is_own_ = false;                           ///< whether the folder's checkpoints are of this run
};

SD_NAMESPACE_END
