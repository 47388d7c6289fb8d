// What a run is and where it stands: all that algorithms see and change.
#pragma once

#include "sd/core/named_tensors.hpp"
#include "sd/core/tensor.hpp"
#include "sd/train/loss.hpp"
#include "sd/train/model_view.hpp"
#include "sd/train/score.hpp"
#include "sd/optim/optimizer.hpp"
#include "sd/core/timestamp.hpp"

#include <cstdint>

SD_NAMESPACE_BEGIN

/// A run. Everything in it is a function of the seed, the settings and the timestamp, but for the model, the optimizer
/// and what algorithms carry, which are what the run has made of them.
template <class T, class Device = Cpu>
struct State {
    ModelView model;                                  ///< what is trained
    ModelTensors<accumulate_t<T>, Device> tensors;    ///< its parameters and buffers
    OptimizerRef<accumulate_t<T>, Device> optimizer;  ///< by what; its learning rate is set before every batch
    std::uint64_t seed;                               ///< of masks and of what algorithms draw
    RunLength run;                                    ///< how long it is
    Index classes;                                    ///< labels are 0 to classes - 1
    Timestamp timestamp = {};                         ///< what is finished
    LossOptions loss_options = {};                    ///< of training
    LabelledImages<T, Device> batch = {};             ///< the whole batch
    Index microbatches = 1;                           ///< how many parts it goes through the model in
    Index microbatch = 0;                             ///< the part under way
    LabelledImages<T, Device> part = {};              ///< its images; those of `batch` if it is the only one
    Tensor<T, Device> logits = {};                    ///< (N, classes) of the last forward pass
    double loss = 0;         ///< mean loss of the last microbatch read, or of an evaluation's batch
    Score epoch_score = {};  ///< training passes of the epoch under way
    Score eval_score = {};   ///< of the last evaluation, or of that under way
    /// What algorithms carry from batch to batch, as "ALGORITHM.NAME", where ALGORITHM is the name in traces. Checkpoints
    /// hold it.
    NamedTensors<accumulate_t<T>, Device> carried = {};
    bool stopping = false;               ///< the run ends after the checkpoint event under way
    bool evaluation_is_pending = false;  ///< that of this timestamp was put off by a stop, or is under way

    /// True in the six events of a batch's last microbatch: after_backward then sees the gradients of the whole batch.
    [[nodiscard]] bool is_last_microbatch() const { return microbatch + 1 == microbatches; }
    /// True if nothing is left: all batches are trained, and their last epoch, if it is whole, is finished as such.
    [[nodiscard]] bool is_finished() const {
        return timestamp.batch >= run.total_batches && timestamp.batch_in_epoch < run.batches_per_epoch;
    }
};

SD_NAMESPACE_END
