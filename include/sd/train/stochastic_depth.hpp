// Stochastic depth as an algorithm of a training run: surgery at the start, and a warmup of the drop rates.
#pragma once

#include "sd/stochastic_depth/options.hpp"
#include "sd/stochastic_depth/schedule.hpp"
#include "sd/stochastic_depth/surgery.hpp"
#include "sd/train/event.hpp"
#include "sd/train/logger.hpp"
#include "sd/train/model_view.hpp"
#include "sd/train/timestamp.hpp"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Makes the model's blocks stochastic when the trainer is made, as apply_stochastic_depth does, and lets the drop rates
/// grow from 0 to the full ones over the warmup w. Before batch t, counted from 0 over the whole run, block i has the rate
///
///     p_i(t) = p_i min(1, t / w)
///
/// with p_i of drop_rate_of_block: 0 at the first batch, exactly p_i from batch w on. Logs, whenever it acts,
/// `stochastic_depth/num_stochastic_layers` (at the start alone) and `stochastic_depth/drop_rate`: the setting times the
/// same factor, which is the applied rate.
/// Origin: MosaicML Composer, composer/algorithms/stochastic_depth.
class StochasticDepth {
public:
    /// The name in traces.
    static constexpr std::string_view name = "StochasticDepth";

    /// `drop_warmup` is a time, such as "5ep", or a fraction of the run, 0 to 1; 0 is none.
    /// Throws std::invalid_argument for a setting outside its range.
    explicit StochasticDepth(StochasticDepthOptions options = {}, TimeOrFraction drop_warmup = 0.0)
        : options_(std::move(options)), drop_warmup_(drop_warmup.time()) {
        validate(options_);
    }

    /// At Event::init, and at Event::batch_start while a warmup is set.
    template <class State>
    [[nodiscard]] bool match(Event event, const State&) const {
        return event == Event::init || (event == Event::batch_start && drop_warmup_.value() > 0);
    }

    /// Surgery at Event::init; the batch's rates.
    template <class State>
    void apply(Event event, State& state, Logger& logger) const {
        if (event == Event::init) state.model.apply_stochastic_depth(options_, {state.optimizer});
        std::vector<const BlockView*> blocks;
        for (const BlockView& block : state.model.blocks()) {
            if (block.layer_name == options_.target_layer_name) blocks.push_back(&block);
        }
        const double full = warmup_factor(state.timestamp, state.run);
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            const double rate = drop_rate_of_block(options_.drop_distribution, options_.drop_rate,
                                                   static_cast<Index>(i), static_cast<Index>(blocks.size()));
            if (blocks[i]->policy->drop_rate() != full * rate)
                blocks[i]->set_policy(make_policy(options_, full * rate));
        }
        if (event == Event::init) logger.log("stochastic_depth/num_stochastic_layers", blocks.size());
        logger.log("stochastic_depth/drop_rate", full * options_.drop_rate);
    }

private:
    /// min(1, t / w)
    [[nodiscard]] double warmup_factor(const Timestamp& timestamp, const RunLength& run) const {
        const double warmup = batches_of(drop_warmup_, run);
        return warmup > 0 ? std::min(1.0, static_cast<double>(timestamp.batch) / warmup) : 1.0;
    }

    StochasticDepthOptions options_;
    Time drop_warmup_;
};

SD_NAMESPACE_END
