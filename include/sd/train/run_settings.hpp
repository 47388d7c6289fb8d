// What a run was started with, as texts of a checkpoint, and which of it a run that goes on may change.
#pragma once

#include "sd/core/error.hpp"
#include "sd/core/number_text.hpp"
#include "sd/core/settings.hpp"
#include "sd/core/shape.hpp"
#include "sd/nn/freeze.hpp"
#include "sd/train/loss.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

SD_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::string_view loader_prefix = "loader.";

/// The number of ranks if batch norm's statistics depend on it by more than rounding, or else 1.
template <class Trainer>
[[nodiscard]] Index batch_norm_ranks(Trainer& trainer) {
    const auto& options = trainer.options();
    if (options.data_parallel.synchronised_batch_norm && options.microbatches == 1) return 1;
    bool has_buffers = false;
    for_each_state(
        trainer.model(), [](const std::string&, const auto&) {},
        [&](const std::string&, const auto&) { has_buffers = true; });
    return has_buffers ? trainer.communicator().size() : 1;
}

/// What decides the numbers of a trainer's run: its own settings, those of the optimizer, of the loss, of the loaders and of
/// the algorithms. The number of ranks is in it where the numbers depend on it by more than rounding, the kind of machine
/// where their last bits do.
template <class Trainer>
[[nodiscard]] SettingTexts settings_of_run(Trainer& trainer) {
    const auto& state = trainer.state();
    const auto& options = trainer.options();
    SettingTexts all = trainer.engine().settings(trainer.communicator().size());
    for (const auto& [key, value] : settings_of(trainer.train_loader())) all[text(loader_prefix, key)] = value;
    if (const auto& loader = trainer.eval_loader()) {
        for (const auto& [key, value] : settings_of(*loader)) all[text("eval_loader.", key)] = value;
        all["eval_loader.samples"] = text(loader->samples());
    }
    all.insert({{"seed", text(state.seed)},
                {"batch_size", text(state.run.batch_size)},
                {"batches_per_epoch", text(state.run.batches_per_epoch)},
                {"samples_per_epoch", text(state.run.samples_per_epoch)},
                {"max_duration", to_string(options.max_duration)},
                {"eval_interval", to_string(options.eval_interval)},
                {"microbatches", text(options.microbatches)},
                {"batch_norm_ranks", text(batch_norm_ranks(trainer))},
                {"learning_rate_schedule", to_string(options.learning_rate)},
                {"learning_rate", number_text(trainer.base_learning_rate())},
                {"loss", name_of<std::remove_cvref_t<decltype(trainer.loss())>>()}});
    for (const auto& [key, value] : state.optimizer.settings()) all[text("optimizer.", key)] = value;
    for (const auto& [key, value] : settings_of(trainer.loss())) all[text("loss.", key)] = value;
    if (std::string frozen = frozen_parameters(trainer.model()); frozen != "none") all["frozen"] = std::move(frozen);
    if (!trainer.machines().empty()) all["machine"] = trainer.machines();
    return all;
}

/// How a run's settings differ from those of a checkpoint, as "KEY: NOW instead of BEFORE; ..."; empty if they do not.
/// Without the settings that say which samples a batch has and what is drawn for them, a position means nothing: they
/// are refused, by std::invalid_argument. Others may be changed on purpose.
[[nodiscard]] inline std::string changed_settings(const std::string& source, const SettingTexts& before,
                                                  const SettingTexts& now) {
    constexpr std::array<std::string_view, 4> binding{"seed", "batch_size", "batches_per_epoch", "samples_per_epoch"};
    const auto binds = [&](const std::string& key) {
        return key.starts_with(loader_prefix) || std::find(binding.begin(), binding.end(), key) != binding.end();
    };
    const auto value = [](const SettingTexts& settings, const std::string& key) {
        const auto found = settings.find(key);
        return found == settings.end() ? std::string("none") : found->second;
    };
    SettingTexts all = before;
    all.insert(now.begin(), now.end());
    std::string changed;
    for (const auto& [key, unused] : all) {
        const std::string was = value(before, key), is = value(now, key);
        if (was == is) continue;
        if (binds(key)) refuse(source, "setting " + key, is, was + ", as its run had");
        changed += text(changed.empty() ? "" : "; ", key, ": ", is, " instead of ", was);
    }
    return changed;
}

}  // namespace detail

SD_NAMESPACE_END
