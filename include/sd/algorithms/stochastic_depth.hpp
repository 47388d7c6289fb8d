// Stochastic depth as an algorithm of a training run: surgery at the start, and a warmup of the drop rates.
#pragma once

#include "sd/core/settings.hpp"
#include "sd/core/warning.hpp"
#include "sd/stochastic_depth/options.hpp"
#include "sd/stochastic_depth/options_text.hpp"
#include "sd/stochastic_depth/schedule.hpp"
#include "sd/stochastic_depth/surgery.hpp"
#include "sd/train/event.hpp"
#include "sd/logs/logger.hpp"
#include "sd/train/model_view.hpp"
#include "sd/core/timestamp.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Makes the model's blocks stochastic when the trainer is made, as apply_stochastic_depth does, and lets the drop
/// rates grow from 0 to the full ones over the warmup w. Before batch t, counted from 0 over the whole run, block i has
/// the rate
///
///     p_i(t) = p_i min(1, t / w)
///
/// with p_i of drop_rate_of_block: 0 at the first batch, exactly p_i from batch w on. An evaluation has the rates of
/// the last finished batch, before the first one those of batch 0, also where a run goes on from a checkpoint. Logs at
/// the start `stochastic_depth/num_stochastic_layers`, and there, where training begins or goes on and at every batch at
/// which it acts `stochastic_depth/drop_rate`: the setting times the same factor, which is the rate of the next batch.
/// Origin: MosaicML Composer, composer/algorithms/stochastic_depth.
class StochasticDepth {
public:
    /// The name in traces.
    static constexpr std::string_view name = "StochasticDepth";

    /// `drop_warmup` is a time, such as "5ep", or a fraction of the run, 0 to 1; 0 is none.
    /// Throws std::invalid_argument for a setting outside its range.
    explicit StochasticDepth(StochasticDepthOptions options = {}, TimeOrFraction drop_warmup = 0.0)
        : options_(std::move(options)), drop_warmup_(drop_warmup.time()) {
        detail::validate(options_);
    }

    /// At Event::init, and while a warmup is set at Event::fit_start, Event::batch_start and Event::eval_start.
    template <class State>
    [[nodiscard]] bool match(Event event, const State&) const {
        if (event == Event::init) return true;
        const bool needs_rates = event == Event::fit_start || event == Event::batch_start || event == Event::eval_start;
        return needs_rates && drop_warmup_.value() > 0;
    }

    /// Surgery at Event::init, and a warning if the warmup is longer than the run; the rates of the batch, or of the
    /// evaluation.
    template <class State>
    void apply(Event event, State& state, Logger& logger) const {
        if (event == Event::init) {
            state.model.apply_stochastic_depth(options_, {state.optimizer});
            warn_of_long_warmup(state.run);
        }
        std::vector<const BlockView*> blocks;
        for (const BlockView& block : state.model.blocks()) {
            const std::string& target = options_.target_layer_name;
            if (target.empty() || block.layer_name == target) blocks.push_back(&block);
        }
        const std::uint64_t finished = state.timestamp.batch;
        const std::uint64_t batch = event == Event::eval_start ? std::max<std::uint64_t>(finished, 1) - 1 : finished;
        const double full = warmup_factor(batch, state.run);
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            const double rate = drop_rate_of_block(options_, blocks[i]->has_identity_shortcut, static_cast<Index>(i),
                                                   static_cast<Index>(blocks.size()));
            if (blocks[i]->has_shortcut && blocks[i]->policy().drop_rate != full * rate) {
                blocks[i]->set_policy(make_policy(options_, full * rate));
            }
        }
        if (event == Event::init) {
            const auto droppable =
                std::count_if(blocks.begin(), blocks.end(), [](const BlockView* block) { return block->has_shortcut; });
            logger.log("stochastic_depth/num_stochastic_layers", droppable);
        }
        if (event != Event::eval_start) logger.log("stochastic_depth/drop_rate", full * options_.drop_rate);
    }

    /// What decides the numbers of a run. That ranks draw block-wise masks of their own tells on several ranks alone.
    [[nodiscard]] SettingTexts settings(Index ranks) const {
        SettingTexts all{{"drop_warmup", to_string(drop_warmup_)}};
        for (const auto& [key, value] : detail::option_texts(options_)) all.emplace(key, value);
        const bool draws_alike = options_.use_same_gpu_seed || options_.stochastic_method == StochasticMethod::sample;
        all["use_same_gpu_seed"] = draws_alike || ranks == 1 ? "true" : text("false, ", ranks, " ranks");
        return all;
    }

private:
    void warn_of_long_warmup(const RunLength& run) const {
        if (batches_of(drop_warmup_, run) <= static_cast<double>(run.total_batches)) return;
        warn(text("StochasticDepth: drop_warmup: got ", drop_warmup_, ", expected at most the run's ",
                  run.total_batches, " batches: the full drop rates are never reached"));
    }

    /// min(1, t / w) at batch t
    [[nodiscard]] double warmup_factor(std::uint64_t batch, const RunLength& run) const {
        const double warmup = batches_of(drop_warmup_, run);
        return warmup > 0 ? std::min(1.0, static_cast<double>(batch) / warmup) : 1.0;
    }

    StochasticDepthOptions options_;
    Time drop_warmup_;
};

SD_NAMESPACE_END
