// What a trainer is made of and what it must be told.
#pragma once

#include "sd/data/loader.hpp"
#include "sd/nn/context.hpp"
#include "sd/train/algorithm.hpp"
#include "sd/train/data_parallel.hpp"
#include "sd/optim/learning_rate.hpp"

#include <concepts>
#include <cstdint>
#include <memory>
#include <vector>

SD_NAMESPACE_BEGIN

/// A model that can be trained: logits (N, classes) of images, gradients by their gradient, and visit(visitor), which
/// names layers, parameters and buffers (see nn/visit.hpp).
template <class Model>
concept TrainableModel = requires(Model& model,
                                  const Tensor<typename Model::value_type, typename Model::device_type>& x,
                                  const Context& context) {
    {
        model.forward(x, context)
        } -> std::convertible_to<Tensor<typename Model::value_type, typename Model::device_type>>;
    model.backward(x);
};

/// Gives out the batches of any epoch from any batch on: DataLoader, PrefetchLoader, or a user's own.
///
///     batches()              of an epoch
///     samples()              in an epoch's batches
///     batch_size()           samples of every batch but perhaps an epoch's last
///     num_classes()          labels are 0 to num_classes() - 1
///     epoch(epoch, first)    a range of batches, each with `images` and `labels`; the same ones whenever it is asked
///
/// On several ranks these numbers are those of whole batches, while epoch() gives this rank's part of each, which
/// part_of_rank says.
///
/// A loader may have settings(), SettingTexts that decide its batches: a run is then resumed with the same ones alone,
/// and with a warning where those of the loader for evaluation differ.
template <class Loader>
concept BatchLoader = std::copy_constructible<Loader> && requires(const Loader& loader, Index i) {
    { loader.batches() } -> std::convertible_to<Index>;
    { loader.samples() } -> std::convertible_to<Index>;
    { loader.batch_size() } -> std::convertible_to<Index>;
    { loader.num_classes() } -> std::convertible_to<Index>;
    (*loader.epoch(i, i).begin()).images;
    (*loader.epoch(i, i).begin()).labels;
};

namespace detail {

/// Whether a loader's images are what a model of T on the device takes.
template <class Loader, class T, class Device>
inline constexpr bool gives_images = requires(const Loader& loader, Index i) {
    { (*loader.epoch(i, i).begin()).images } -> std::convertible_to<const Tensor<T, Device>&>;
};

}  // namespace detail

/// Settings of a run.
template <class T, class Device = Cpu>
struct TrainerOptions {
    Time max_duration = "1ep";                                  ///< of the run, in ep, ba or sp; above 0
    std::vector<Algorithm<T, Device>> algorithms = {};          ///< act in this order
    std::uint64_t seed = 0;                                     ///< of masks and of what algorithms draw
    LearningRateSchedule learning_rate = {};                    ///< multiplies the optimizer's learning rate
    Index microbatches = 1;                                     ///< parts of a batch whose gradients add up; 1 or more
    Time eval_interval = "1ep";                                 ///< and at the end of the run; above 0
    std::vector<std::shared_ptr<LogDestination>> loggers = {};  ///< who is told of it; on several ranks, rank 0's alone
    Communicator* communicator = nullptr;    ///< of the ranks that share each batch; null: this process trains alone
    DataParallelOptions data_parallel = {};  ///< how the ranks train together
    /// Start each training step on the device as one graph, see StepGraph: forward, loss, backward and optimizer. For
    /// devices that replay steps and one rank. Steps of a size of batch that has not been trained yet, and of networks
    /// with branches that may not run on all samples, run without. Algorithms that act within a step may start work on
    /// the device but not read from it, and see the step's loss from Event::batch_end on.
    bool step_graph = false;
};

/// How fit() ended.
enum class FitEnd {
    finished,  ///< the whole run is done
    stopped    ///< request_stop() was called
};

SD_NAMESPACE_END
