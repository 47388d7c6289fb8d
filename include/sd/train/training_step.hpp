// What a batch does to a model: forward, loss and backward of its parts, and the optimizer's step.
#pragma once

#include "sd/core/device.hpp"
#include "sd/models/resnet.hpp"
#include "sd/train/data_parallel.hpp"
#include "sd/train/event.hpp"
#include "sd/train/loss.hpp"
#include "sd/train/rank_part.hpp"
#include "sd/train/state.hpp"
#include "sd/train/trainer_options.hpp"
#include "sd/train/training_metrics.hpp"
#include "sd/train/training_scores.hpp"

#include <algorithm>
#include <cstddef>
#include <set>
#include <span>
#include <utility>

SD_NAMESPACE_BEGIN

/// Trains a model on one batch after the other, each in microbatches, on this rank's part of it, and started on the
/// device as one graph where TrainerOptions::step_graph asks for it.
template <TrainableModel Model, class L = CrossEntropy>
class TrainingStep {
public:
    using T = typename Model::value_type;
    using Device = typename Model::device_type;

    /// All but the options must outlive this, the loss too. Gives every rank rank 0's parameters and buffers.
    TrainingStep(Model& model, State<T, Device>& state, TrainingMetrics& metrics, TrainingScores<T, Device>& scores,
                 Communicator& communicator, const TrainerOptions<T, Device>& options, const L& loss = {})
        : model_(model),
          loss_(loss),
          state_(state),
          metrics_(metrics),
          scores_(scores),
          communicator_(communicator),
          parallel_(model, communicator, options.data_parallel),
          microbatches_(options.microbatches),
          uses_graph_(options.step_graph) {}

    /// Trains on State::batch, this rank's part of a batch of `samples`. Calls run_event(event) at the events from
    /// before_forward to after_backward, for every microbatch.
    /// Throws std::invalid_argument for a batch of another number of samples, std::runtime_error for a loss that is not
    /// finite, and what run_event throws.
    template <class RunEvent>
    void run(Index samples, const RunEvent& run_event) {
        state_.optimizer.zero_grad();
        const Index largest_part = detail::expect_part_of_rank(state_, samples, communicator_);
        state_.microbatches = std::min(microbatches_, largest_part);
        metrics_.begin_batch(state_);
        scores_.begin();
        const auto step = [&] {
            for (state_.microbatch = 0; state_.microbatch < state_.microbatches; ++state_.microbatch) {
                train_microbatch(samples, run_event);
            }
            state_.optimizer.step();
        };
        if (has_graph(samples)) {
            scores_.hold_back([&] { graph_.run(step); });
        } else {
            step();
            trained_sizes_.insert(samples);
        }
        scores_.finish();
    }

private:
    /// Whether the step has a graph. The first step of a size runs without: libraries make plans in it, and the
    /// optimizer its buffers.
    [[nodiscard]] bool has_graph(Index samples) const {
        const auto blocks = state_.model.blocks();
        return uses_graph_ && trained_sizes_.contains(samples) &&
               std::all_of(blocks.begin(), blocks.end(),
                           [](const BlockView& block) { return block.policy().always_runs; });
    }

    /// Forward and backward of one part of the batch. Parts weigh as much as they have samples, so that the sum of
    /// their gradients, over ranks and microbatches, is that of the whole batch.
    template <class RunEvent>
    void train_microbatch(Index samples, const RunEvent& run_event) {
        const Context context = parallel_.context({.step = state_.timestamp.batch, .seed = state_.seed}, samples,
                                                  state_.microbatch, state_.microbatches);
        state_.part = state_.microbatches == 1
                          ? state_.batch
                          : detail::gather_part(state_.batch, parallel_.part(), samples, communicator_);
        run_event(Event::before_forward);
        state_.logits = model_.forward(state_.part.images, context);
        metrics_.add_part(state_);
        run_event(Event::after_forward);
        run_event(Event::before_loss);
        state_.loss = 0;
        const std::span<const Index> labels(state_.part.labels);
        auto dlogits = Tensor<T, Device>::empty(state_.logits.shape());
        if (!labels.empty()) {
            auto given = detail::loss_of(loss_, state_.logits, state_.part, state_.loss_options);
            scores_.add(score_numbers(state_.logits, labels, given.loss), labels.size());
            dlogits = std::move(given.dlogits);
        }
        run_event(Event::after_loss);
        run_event(Event::before_backward);
        dlogits = parallel_.share(dlogits);
        if (state_.is_last_microbatch()) {
            parallel_.backward([&] { backward(dlogits); });
        } else {
            backward(dlogits);
        }
        run_event(Event::after_backward);
    }

    void backward(const Tensor<T, Device>& dlogits) {
        if constexpr (requires { model_.backward(dlogits, InputGradient::skipped); }) {
            model_.backward(dlogits, InputGradient::skipped);
        } else {
            model_.backward(dlogits);
        }
    }

    Model& model_;
    const L& loss_;
    State<T, Device>& state_;
    TrainingMetrics& metrics_;
    TrainingScores<T, Device>& scores_;
    Communicator& communicator_;
    DataParallel<Model> parallel_;
    Index microbatches_;
    bool uses_graph_;
    StepGraph<Device> graph_;
    std::set<Index> trained_sizes_;  ///< of batches
};

SD_NAMESPACE_END
