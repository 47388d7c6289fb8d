// The moments of a run at which algorithms can act.
#pragma once

#include "sd/core/enum_names.hpp"

#include <string_view>

SD_NAMESPACE_BEGIN

/// What has just happened, or is about to. In training, in this order:
///
///     init                                                  once, when the trainer is made
///     fit_start                                             when fit() begins, also after a resume
///         epoch_start                                       not after a resume within the epoch
///             batch_start
///                 before_forward, after_forward             these six for every microbatch
///                 before_loss, after_loss
///                 before_backward, after_backward
///             batch_end                                     the optimizer has stepped, the timestamp has advanced
///             batch_checkpoint
///         epoch_end                                         the timestamp has advanced
///         epoch_checkpoint
///     fit_end                                               not if the run was asked to stop
///
/// and in an evaluation, which takes place before batch_checkpoint or epoch_checkpoint:
///
///     eval_start
///         eval_batch_start, eval_before_forward, eval_after_forward, eval_batch_end
///     eval_end                                              also after a stop or an exception: State::eval_score is
///                                                           empty then
///
/// A run that was stopped before the end of an evaluation begins, when it goes on, with that evaluation and the
/// checkpoint event after it.
///
/// After `composer.core.Event` (mosaicml/composer).
enum class Event {
    init,                 ///< the trainer has been made
    fit_start,            ///< training begins or goes on
    epoch_start,          ///< before an epoch's first batch
    batch_start,          ///< the batch is there, its learning rate is set; it may be changed now
    before_forward,       ///< before a microbatch goes through the model
    after_forward,        ///< its logits are there
    before_loss,          ///< before the loss is computed; its options may be changed now
    after_loss,           ///< the loss is there
    before_backward,      ///< before the gradients are computed
    after_backward,       ///< gradients are there, those of earlier microbatches included
    batch_end,            ///< the optimizer has stepped
    batch_checkpoint,     ///< everything that belongs to the batch has been logged
    epoch_end,            ///< after an epoch's last batch
    epoch_checkpoint,     ///< everything that belongs to the epoch has been logged
    fit_end,              ///< the run is finished
    eval_start,           ///< an evaluation begins
    eval_batch_start,     ///< a batch to evaluate is there
    eval_before_forward,  ///< before it goes through the model
    eval_after_forward,   ///< its logits are there
    eval_batch_end,       ///< its loss is there
    eval_end              ///< the evaluation's score is there
};

namespace detail {

template <>
struct EnumNames<Event> {
    static constexpr std::string_view setting = "event";
    static constexpr EnumName<Event> names[]{{Event::init, "init"},
                                             {Event::fit_start, "fit_start"},
                                             {Event::epoch_start, "epoch_start"},
                                             {Event::batch_start, "batch_start"},
                                             {Event::before_forward, "before_forward"},
                                             {Event::after_forward, "after_forward"},
                                             {Event::before_loss, "before_loss"},
                                             {Event::after_loss, "after_loss"},
                                             {Event::before_backward, "before_backward"},
                                             {Event::after_backward, "after_backward"},
                                             {Event::batch_end, "batch_end"},
                                             {Event::batch_checkpoint, "batch_checkpoint"},
                                             {Event::epoch_end, "epoch_end"},
                                             {Event::epoch_checkpoint, "epoch_checkpoint"},
                                             {Event::fit_end, "fit_end"},
                                             {Event::eval_start, "eval_start"},
                                             {Event::eval_batch_start, "eval_batch_start"},
                                             {Event::eval_before_forward, "eval_before_forward"},
                                             {Event::eval_after_forward, "eval_after_forward"},
                                             {Event::eval_batch_end, "eval_batch_end"},
                                             {Event::eval_end, "eval_end"}};
};

}  // namespace detail

SD_NAMESPACE_END
