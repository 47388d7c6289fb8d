// The training loop.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/warning.hpp"
#include "sd/nn/stand_in.hpp"
#include "sd/train/engine.hpp"
#include "sd/train/late_scores.hpp"
#include "sd/train/loss.hpp"
#include "sd/train/machine_kind.hpp"
#include "sd/train/rank_part.hpp"
#include "sd/train/trainer_options.hpp"
#include "sd/train/training_metrics.hpp"
#include "sd/train/training_scores.hpp"
#include "sd/train/training_step.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Trains a model:
///
///     sd::Trainer trainer(model, optimizer, train_loader, eval_loader,
///                         {.max_duration = "90ep", .algorithms = {sd::StochasticDepth(options)}});
///     trainer.fit();
///
/// with any Optimizer, and the cross-entropy or any Loss: sd::Trainer(model, optimizer, MyLoss(), train_loader, ...).
///
/// The events of a run are in event.hpp. What a batch does is a function of model, optimizer, seed and timestamp, so
/// a run that starts from the state of an interrupted one (set state().timestamp and epoch_score, load model and
/// optimizer) goes on as the other would have.
///
/// Logged at the start, if the last bits of results depend on it: `machine`, the kind of machine, see machines().
/// Logged after every batch: `loss/train`, `accuracy/train`, `top5_accuracy/train`, `learning_rate`,
/// `images_per_second` and, if there are stochastic blocks, one number for each of them in
/// `stochastic_depth/drop_rates`, the applied ones, and `stochastic_depth/kept_fraction`, the mean of their masks.
/// After every epoch: the first three as `.../train_epoch`, over all its batches, and `images_per_second`, over those
/// since fit() began. After every evaluation: `loss/eval`, `accuracy/eval`, `top5_accuracy/eval`. Accuracies are
/// fractions.
///
/// With a communicator of several ranks each trains on its part of every batch and evaluates its part of every batch.
/// State and algorithms are those of each rank: its part of the batch, but timestamp, scores, parameters and, from
/// Event::after_backward of the last microbatch on, gradients of all ranks. Numbers that are logged are of all ranks,
/// and rank 0 logs, after every batch also what it has sent for it and how long that held it up:
/// `communication/bytes_sent`, `communication/seconds`. Running statistics that ranks do not share are rank 0's before
/// every evaluation. An exception on one rank must end all of them, as run_ranks sees to.
///
/// On a device that computes beside the CPU, scores are read a batch late, so that it never waits: see
/// late_scores.hpp. What is logged is the same, in the same order. Scores are read before an evaluation, at the end of
/// an epoch and of the run, and before an algorithm that may look at them acts at an event from after_loss on, such as
/// the writing of a checkpoint; at earlier events of a batch it sees State::loss and State::epoch_score as they were last
/// read. With several ranks nothing is late.
template <TrainableModel Model, BatchLoader TrainLoader, BatchLoader EvalLoader = TrainLoader, class L = CrossEntropy>
requires(!BatchLoader<L>)  // so that a loader is not taken for a loss
    class Trainer {
    // A bool, since g++ lists every requirement of a concept.
    static constexpr bool loss_is_right = Loss<L, typename Model::value_type, typename Model::device_type>;
    static_assert(loss_is_right,
                  "sd::Trainer: the loss is no Loss: loss(logits, batch) must give loss and dlogits, as a "
                  "sd::LossAndGradient of the model's scalar type has them");

public:
    using T = typename Model::value_type;
    using Device = typename Model::device_type;
    static_assert(
        detail::gives_images<TrainLoader, T, Device>,
        "the loader's images are of another type than the model computes with: for a model of double it takes "
        "a loader of double, such as sd::DataLoader<sd::InMemoryDataset, double>");
    static_assert(std::is_same_v<EvalLoader, TrainLoader> || detail::gives_images<EvalLoader, T, Device>,
                  "the evaluation loader's images are of another type than the model computes with");
    /// The loss's type.
    using LossType = detail::or_stand_in_t<loss_is_right, L, CrossEntropy>;
    /// The settings.
    using Options = TrainerOptions<typename Model::value_type, typename Model::device_type>;

    /// Model and optimizer are looked at and must outlive the trainer; loaders and loss are copied. Numbers the model's
    /// blocks, see number_blocks(), and runs Event::init. Warns of a schedule that the run is too short for.
    /// Throws std::invalid_argument for settings outside their ranges or a loader without batches.
    template <class O>
    Trainer(Model& model, O& optimizer, const TrainLoader& train_loader, const EvalLoader& eval_loader,
            TrainerOptions<typename Model::value_type, typename Model::device_type> options = {})
        : Trainer(model, seen(optimizer), L(), train_loader, std::optional<EvalLoader>(eval_loader), std::move(options),
                  0) {}
    /// The same without evaluations.
    template <class O>
    Trainer(Model& model, O& optimizer, const TrainLoader& train_loader,
            TrainerOptions<typename Model::value_type, typename Model::device_type> options = {})
        : Trainer(model, seen(optimizer), L(), train_loader, std::optional<EvalLoader>(), std::move(options), 0) {}
    /// The same with a loss of one's own, see Loss.
    template <class O>
    Trainer(Model& model, O& optimizer, L loss, const TrainLoader& train_loader, const EvalLoader& eval_loader,
            TrainerOptions<typename Model::value_type, typename Model::device_type> options = {})
        : Trainer(model, seen(optimizer), std::move(loss), train_loader, std::optional<EvalLoader>(eval_loader),
                  std::move(options), 0) {}
    /// The same with a loss of one's own and without evaluations.
    template <class O>
    Trainer(Model& model, O& optimizer, L loss, const TrainLoader& train_loader,
            TrainerOptions<typename Model::value_type, typename Model::device_type> options = {})
        : Trainer(model, seen(optimizer), std::move(loss), train_loader, std::optional<EvalLoader>(),
                  std::move(options), 0) {}

    Trainer(const Trainer&) = delete;
    Trainer& operator=(const Trainer&) = delete;

    /// Trains from state().timestamp to the end of the run, or until a stop is requested. Of a run that is finished the
    /// end alone is left, Event::fit_end and its record, which the process that trained it may not have lived to see.
    /// Throws std::runtime_error if a loss is not finite, and what loaders, algorithms and loggers throw. If scores are
    /// not late, the optimizer has not stepped then; if they are, it has, and the last good state is the last
    /// checkpoint: none is written, and no evaluation made, before all losses so far have been read and were finite.
    /// However it ends, the optimizer then has the learning rate again that the schedule multiplied, so that another
    /// trainer starts from it too.
    FitEnd fit() {
        const LearningRateRestored restored{state_.optimizer, base_learning_rate_};
        state_.stopping = false;
        run_event(Event::fit_start);
        if (!machines_.empty()) logger_.log("machine", machines_);
        logger_.start(state_.run, state_.timestamp, state_.evaluation_is_pending);
        metrics_.start();
        scores_.forget();
        try {
            if (state_.evaluation_is_pending) resume_evaluation();
            while (!state_.is_finished() && !state_.stopping) train_epoch();
            scores_.read_all();
        } catch (...) {
            // What was trained before is logged. Among ranks, others may wait for something else.
            if (communicator_.size() == 1) scores_.read_all();
            throw;
        }
        const bool is_finished = state_.is_finished() && !state_.evaluation_is_pending;
        const FitEnd end = is_finished ? FitEnd::finished : FitEnd::stopped;
        if (end == FitEnd::finished) run_event(Event::fit_end);
        logger_.write(LogEvent::fit_end, state_.timestamp);
        stop_.store(false);
        return end;
    }

    /// Makes fit() return after the batch under way and its checkpoint event. An evaluation ends after its batch under
    /// way, and is made anew when the run goes on. To be called from any thread or from a signal's handler.
    void request_stop() noexcept { stop_.store(true); }

    /// The score of the model as it is, on the loader for evaluation: running statistics, all blocks, no smoothing.
    /// Throws std::invalid_argument if there is no such loader, std::runtime_error for a loss that is not finite.
    Score evaluate() {
        if (!eval_loader_) refuse("Trainer::evaluate", "loader for evaluation", "none", "one");
        (void)evaluate_unless([] { return false; });
        return state_.eval_score;
    }

    /// Puts an algorithm after the others.
    void add(Algorithm<T, Device> algorithm) { engine_.add(std::move(algorithm)); }

    /// The model.
    [[nodiscard]] Model& model() { return model_; }
    /// Where the run stands.
    [[nodiscard]] State<T, Device>& state() { return state_; }
    /// The same, read only.
    [[nodiscard]] const State<T, Device>& state() const { return state_; }
    /// The loss.
    [[nodiscard]] const LossType& loss() const { return loss_; }
    /// The ranks that train together.
    [[nodiscard]] Communicator& communicator() { return communicator_; }
    /// The kind of machine that computes, see machine_kind(), where the last bits of results depend on it, or else nothing;
    /// of ranks on different ones the kind of each, as in "amx, float".
    [[nodiscard]] const std::string& machines() const { return machines_; }
    /// The settings, as given.
    [[nodiscard]] const Options& options() const { return options_; }
    /// Where the batches come from.
    [[nodiscard]] const TrainLoader& train_loader() const { return train_loader_; }
    /// Where those to evaluate come from, if there are any.
    [[nodiscard]] const std::optional<EvalLoader>& eval_loader() const { return eval_loader_; }
    /// What the schedule multiplies: the optimizer's learning rate when the trainer was made.
    [[nodiscard]] double base_learning_rate() const { return base_learning_rate_; }
    /// Where metrics go.
    [[nodiscard]] Logger& logger() { return logger_; }
    /// What the algorithms did.
    [[nodiscard]] const Engine<T, Device>& engine() const { return engine_; }

private:
    static_assert(std::atomic<bool>::is_always_lock_free, "a signal's handler may set a lock-free flag alone");

    /// What trains the model's parameters.
    using AnyOptimizer = OptimizerRef<accumulate_t<T>, Device>;

    template <class O>
    static AnyOptimizer seen(O& optimizer) {
        constexpr bool is_right = Optimizer<O, accumulate_t<T>, Device>;
        static_assert(
            is_right,
            "sd::Trainer: this is no optimizer of the model's parameters: optim/optimizer.hpp says what one has, "
            "step() among it; for a model of double it takes one of double, such as sd::Sgd<double>");
        if constexpr (is_right) {
            return optimizer;
        } else {
            std::terminate();  // never compiled to code
        }
    }

    Trainer(Model& model, AnyOptimizer optimizer, L loss, const TrainLoader& train_loader,
            std::optional<EvalLoader> eval_loader, Options options, int)
        : model_(number_blocks(model)),
          loss_(std::move(loss)),
          options_(std::move(options)),
          communicator_(options_.communicator == nullptr ? alone_ : *options_.communicator),
          machines_(detail::machines_of<T, Device>(communicator_)),
          train_loader_(train_loader),
          eval_loader_(std::move(eval_loader)),
          base_learning_rate_(optimizer.learning_rate()),
          state_{.model = ModelView(model),
                 .tensors = ModelTensors<accumulate_t<T>, Device>(model),
                 .optimizer = optimizer,
                 .seed = options_.seed,
                 .run = run_length(options_.max_duration, static_cast<std::uint64_t>(train_loader_.batches()),
                                   static_cast<std::uint64_t>(train_loader_.samples()),
                                   static_cast<std::uint64_t>(train_loader_.batch_size())),
                 .classes = train_loader_.num_classes()},
          logger_(communicator_.rank() == 0 ? options_.loggers : std::vector<std::shared_ptr<LogDestination>>()),
          engine_(options_.algorithms),
          metrics_(communicator_),
          scores_(state_, metrics_, logger_, communicator_),
          step_(model, state_, metrics_, scores_, communicator_, options_, loss_) {
        if (options_.microbatches < 1) refuse("Trainer", "microbatches", options_.microbatches, "1 or more");
        if (options_.eval_interval.value() == 0) {
            refuse("Trainer", "eval_interval", options_.eval_interval, "more than 0");
        }
        if (options_.step_graph && (!Device::replays_steps || communicator_.size() > 1)) {
            refuse("Trainer", "step_graph", "true", "false, or one rank with a device that has graphs");
        }
        if (eval_loader_ && eval_loader_->batches() < 1) {
            refuse("Trainer", "batches of the loader for evaluation", eval_loader_->batches(), "1 or more");
        }
        warn_of_untrained();
        run_event(Event::init);
        if (communicator_.rank() != 0) return;
        for (const std::string& words : options_.learning_rate.settings_without_effect(state_.run)) warn(words);
    }

    /// A parameter that is in no optimizer is seldom meant to stay: reset_classifier after the optimizer was made.
    void warn_of_untrained() {
        Index count = 0;
        std::string first;
        for_each_parameter(model_, [&](const std::string& name, const auto& parameter) {
            if (!parameter->requires_grad || state_.optimizer.holds(parameter.get())) return;
            if (count++ == 0) first = name;
        });
        if (count == 0) return;
        warn(text("Trainer: the optimizer does not hold ", first,
                  count > 1 ? text(" and ", count - 1, " more of the model's parameters") : std::string(),
                  ": not trained. Freeze them if that is meant"));
    }

    /// Sets an optimizer's learning rate when it goes.
    struct LearningRateRestored {
        AnyOptimizer& optimizer;
        double learning_rate;
        ~LearningRateRestored() { optimizer.set_learning_rate(learning_rate); }
    };

    void run_event(Event event) {
        // Whoever acts then sees the scores; nobody else has to wait for them.
        const bool has_scores = event >= Event::after_loss;
        if (has_scores && scores_.may_wait() && engine_.sees_scores(event, state_)) scores_.read_all();
        engine_.run_event(event, state_, logger_);
    }

    /// What is left of the epoch under way, or of the run if that ends earlier.
    void train_epoch() {
        const auto epoch = static_cast<Index>(state_.timestamp.epoch);
        const auto first = static_cast<Index>(state_.timestamp.batch_in_epoch);
        if (first == 0) run_event(Event::epoch_start);
        if (state_.timestamp.batch_in_epoch < state_.run.batches_per_epoch) {
            for (auto& batch : train_loader_.epoch(epoch, first)) {
                if (state_.timestamp.batch_in_epoch == state_.run.batches_per_epoch) {
                    refuse_batches(text("more than ", state_.run.batches_per_epoch));
                }
                state_.batch = {std::move(batch.images), std::move(batch.labels)};
                train_batch();
                if (state_.stopping) return;
                if (state_.is_finished()) break;
            }
        }
        if (state_.timestamp.batch_in_epoch == state_.run.batches_per_epoch) {
            finish_epoch();
        } else if (!state_.is_finished()) {
            refuse_batches(text(state_.timestamp.batch_in_epoch));
        }
    }
    [[noreturn]] void refuse_batches(const std::string& got) const {
        refuse("Trainer", "batches of an epoch that the loader gave", got, state_.run.batches_per_epoch);
    }

    void train_batch() {
        state_.optimizer.set_learning_rate(base_learning_rate_ *
                                           options_.learning_rate.factor(state_.timestamp, state_.run));
        run_event(Event::batch_start);
        const Index samples = detail::samples_of_batch(state_.timestamp, state_.run);
        step_.run(samples, [this](Event event) { run_event(event); });

        const Timestamp before = state_.timestamp;
        state_.timestamp.to_next_batch(static_cast<std::uint64_t>(samples));
        run_event(Event::batch_end);
        scores_.close(metrics_.end_batch(state_, static_cast<double>(samples), logger_));
        // A run that ends within an epoch is evaluated at its end too.
        finish_part(before, state_.is_finished(), Event::batch_checkpoint);
    }

    /// Whether any rank was asked to stop: all ranks end with the same batch.
    [[nodiscard]] bool must_stop() {
        std::array requests{stop_.load() ? 1.0 : 0.0};
        sum_over_ranks(requests, communicator_);
        return requests[0] > 0;
    }

    /// Evaluates, but for a stop, about which it asks before each batch. Says whether it came to the end. Event::eval_end
    /// comes however it ends: what an algorithm changed for the evaluation is undone there.
    template <class MustStop>
    [[nodiscard]] bool evaluate_unless(const MustStop& must_stop) {
        forget_passes(model_);  // evaluation runs in the memory of the training pass before
        state_.eval_score = {};
        share_running_statistics();
        run_event(Event::eval_start);
        bool is_whole = false;
        try {
            is_whole = evaluate_batches(must_stop);
        } catch (...) {
            state_.eval_score = {};
            run_event(Event::eval_end);
            throw;
        }
        state_.eval_score = is_whole ? detail::over_ranks(state_.eval_score, communicator_) : Score();
        run_event(Event::eval_end);
        return is_whole;
    }

    /// Makes running statistics rank 0's where each rank has its own.
    void share_running_statistics() {
        if (!options_.data_parallel.synchronised_batch_norm) broadcast_buffers(model_, communicator_);
    }

    template <class MustStop>
    [[nodiscard]] bool evaluate_batches(const MustStop& must_stop) {
        share_running_statistics();  // those that an algorithm put there for the evaluation, such as averages
        std::optional<LateScore<Device>> late;
        for (auto& batch : eval_loader_->epoch(0, 0)) {
            if (must_stop()) return false;
            state_.batch = {std::move(batch.images), std::move(batch.labels)};
            run_event(Event::eval_batch_start);
            run_event(Event::eval_before_forward);
            state_.logits = model_.forward(state_.batch.images, Context::eval());
            run_event(Event::eval_after_forward);
            const std::span<const Index> labels(state_.batch.labels);
            state_.loss = 0;
            if (!labels.empty()) {
                const auto given = detail::loss_of(loss_, state_.logits, state_.batch, {});
                LateScore<Device> score(score_numbers(state_.logits, labels, given.loss), labels.size());
                add_eval_score(std::exchange(late, std::move(score)));
                if (scores_.lateness() == 0 || engine_.sees_scores(Event::eval_batch_end, state_)) {
                    add_eval_score(std::exchange(late, std::nullopt));
                }
            }
            run_event(Event::eval_batch_end);
        }
        add_eval_score(std::move(late));
        return true;
    }

    void add_eval_score(std::optional<LateScore<Device>> late) {
        if (!late) return;
        state_.loss = late->loss();
        if (!is_finite(state_.loss)) {
            throw std::runtime_error(text("Trainer: loss of the evaluation after batch ", state_.timestamp.batch,
                                          ": got ", state_.loss, ", expected a finite number. Try a smaller learning ",
                                          "rate, a warmup of it, or clipped gradients, from the last checkpoint"));
        }
        state_.eval_score.add(late->score());
    }

    void finish_epoch() {
        scores_.read_all();
        const Timestamp before = state_.timestamp;
        state_.timestamp.to_next_epoch();
        run_event(Event::epoch_end);
        metrics_.log_epoch(state_.epoch_score, logger_);
        logger_.write(LogEvent::epoch, state_.timestamp);
        state_.epoch_score = {};
        finish_part(before, state_.is_finished(), Event::epoch_checkpoint);
    }

    /// Evaluates if it is time to or must be, and lets checkpoints be written, also of a run that is to stop.
    void finish_part(const Timestamp& before, bool must_evaluate, Event checkpoint) {
        const bool is_time =
            must_evaluate || reaches_interval(options_.eval_interval, before, state_.timestamp, state_.run);
        state_.evaluation_is_pending = eval_loader_ && is_time;
        finish_part(checkpoint);
    }
    void finish_part(Event checkpoint) {
        if (state_.evaluation_is_pending) evaluate_for_run();
        state_.stopping = must_stop();
        run_event(checkpoint);
        if (scores_.empty()) metrics_.restart_clock();
    }

    /// The evaluation that is pending, unless a stop is requested before its end.
    void evaluate_for_run() {
        scores_.read_all();
        if (!evaluate_unless([this] { return must_stop(); })) {
            (void)logger_.take();  // what algorithms logged of it
            return;
        }
        state_.evaluation_is_pending = false;
        metrics_.log_evaluation(state_.eval_score, logger_);
        logger_.write(LogEvent::evaluation, state_.timestamp);
    }

    /// The evaluation before which, or in which, the run was stopped, and the event that comes after it.
    void resume_evaluation() {
        state_.evaluation_is_pending = eval_loader_.has_value();
        finish_part(state_.timestamp.batch_in_epoch == 0 ? Event::epoch_checkpoint : Event::batch_checkpoint);
    }

    Model& model_;
    LossType loss_;
    Options options_;
    Communicator alone_;
    Communicator& communicator_;
    std::string machines_;
    TrainLoader train_loader_;
    std::optional<EvalLoader> eval_loader_;
    double base_learning_rate_;
    State<T, Device> state_;
    Logger logger_;
    Engine<T, Device> engine_;
    TrainingMetrics metrics_;
    TrainingScores<T, Device> scores_;
    TrainingStep<Model, LossType> step_;
    std::atomic<bool> stop_ = false;
};

SD_NAMESPACE_END
