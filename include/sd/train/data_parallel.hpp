// Synchronous data parallel training: every rank has the whole network and a part of each batch.
//
// A step on rank r of P, with n_r of the batch's N samples:
//
//     forward      on n_r samples, masks by their place in the whole batch
//     dlogits      of  sum over the rank's samples of loss / N,  so that gradients of all ranks simply add up
//     backward     and, meanwhile, gradients summed over ranks (GradientSum)
//     optimizer    the same update on every rank, from the same bits
#pragma once

#include "sd/core/named_tensors.hpp"
#include "sd/nn/context.hpp"
#include "sd/nn/visit.hpp"
#include "sd/train/gradient_sum.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

SD_NAMESPACE_BEGIN

namespace detail {

/// A tensor's elements, in the memory of its device.
template <class T, class Device>
[[nodiscard]] std::span<T> elements_of(Tensor<T, Device>& x) {
    return {x.data(), static_cast<std::size_t>(x.size())};
}

}  // namespace detail

/// Gives every rank rank 0's parameters of a layer or model.
template <class Layer>
void broadcast_parameters(Layer& layer, Communicator& communicator) {
    for_each_parameter(layer, [&](const std::string&, auto& parameter) {
        communicator.broadcast(detail::elements_of(parameter->value));
    });
}

/// Gives every rank rank 0's buffers, such as running statistics.
template <class Layer>
void broadcast_buffers(Layer& layer, Communicator& communicator) {
    for_each_state(
        layer, [](const std::string&, auto&) {},
        [&]<class Buffer>(const std::string&, Buffer& buffer) {
            if constexpr (std::is_same_v<Buffer, std::int64_t>) {
                communicator.broadcast(std::span(&buffer, 1));
            } else {
                communicator.broadcast(detail::elements_of(buffer));
            }
        });
}

/// Gives every rank rank 0's text.
inline void broadcast_text(std::string& words, Communicator& communicator) {
    std::uint64_t size = words.size();
    communicator.broadcast(std::span(&size, 1));
    words.resize(size);
    communicator.broadcast(std::span(words));
}

/// Gives every rank rank 0's tensors, in place of its own.
template <class T, class Device>
void broadcast_tensors(NamedTensors<T, Device>& tensors, Communicator& communicator) {
    const bool is_first = communicator.rank() == 0;
    std::uint64_t count = tensors.size();
    communicator.broadcast(std::span(&count, 1));
    NamedTensors<T, Device> all;
    auto own = tensors.begin();
    for (std::uint64_t i = 0; i < count; ++i) {
        std::string name = is_first ? own->first : std::string();
        Shape shape = is_first ? own->second.shape() : Shape();
        broadcast_text(name, communicator);
        communicator.broadcast(std::span(&shape, 1));
        Tensor<T, Device> tensor = is_first ? own->second : Tensor<T, Device>::empty(shape);
        communicator.broadcast(detail::elements_of(tensor));
        all.emplace(std::move(name), std::move(tensor));
        if (is_first) ++own;
    }
    tensors = std::move(all);
}

/// Gives every rank the state of rank 0's optimizer. The optimizers train the same parameters.
template <class Optimizer>
void broadcast_optimizer(Optimizer& optimizer, Communicator& communicator) {
    auto state = optimizer.state_dict();
    broadcast_tensors(state, communicator);
    optimizer.load_state_dict(state);
}

/// Replaces numbers by their sums over all ranks, added in rank order; for few numbers, which are exact up to 2^53.
inline void sum_over_ranks(std::span<double> numbers, Communicator& communicator) {
    PooledVector<double> all(numbers.size() * static_cast<std::size_t>(communicator.size()));
    communicator.all_gather(std::span<const double>(numbers), std::span(all));
    std::fill(numbers.begin(), numbers.end(), 0.0);
    for (std::size_t i = 0; i < all.size(); ++i) numbers[i % numbers.size()] += all[i];
}

/// Settings of DataParallel.
struct DataParallelOptions {
    /// Batch norm's statistics come from the samples of all ranks; otherwise each rank normalises by its own samples.
    bool synchronised_batch_norm = false;
    GradientSumOptions gradients = {};  ///< how gradients are sent
};

/// What a training loop needs to train one network on the ranks of a communicator:
///
///     sd::DataParallel parallel(model, communicator, {.synchronised_batch_norm = true});
///     ...
///     optimizer.zero_grad();
///     const auto logits = model.forward(batch.images, parallel.context({.step = step, .seed = seed}, batch.samples));
///     parallel.backward([&] { model.backward(parallel.share(sd::cross_entropy_by_input(logits, labels, 0.0))); });
///     optimizer.step();
template <class Model>
class DataParallel {
public:
    using T = typename Model::value_type;
    using Device = typename Model::device_type;

    /// Gives every rank rank 0's parameters and buffers. Model and communicator outlive this.
    DataParallel(Model& model, Communicator& communicator, const DataParallelOptions& options = {})
        : communicator_(communicator),
          options_(options),
          gradients_(parameters_of(model), communicator, options.gradients) {
        broadcast_parameters(model, communicator);
        broadcast_buffers(model, communicator);
    }

    /// The context of the next forward pass, on this rank's part of a batch of `samples` over all ranks, or on one of
    /// the microbatches into which every rank cuts its part. Sets rank and sample_offset of the pass. To be used before
    /// the next call.
    [[nodiscard]] Context context(TrainPass pass, Index samples, Index microbatch = 0, Index microbatches = 1) {
        joint_ = joint_pass(samples, communicator_, options_.synchronised_batch_norm, microbatch, microbatches);
        share_ = samples == 0 ? 0 : static_cast<double>(joint_.own_part().count) / static_cast<double>(samples);
        pass.joint = &joint_;
        return Context::train(pass);
    }

    /// Which samples of the batch the pass of the last context holds here.
    [[nodiscard]] const BatchPart& part() const { return joint_.own_part(); }

    /// Makes the gradient by the logits of the mean loss over the samples of the pass that of their share in the mean
    /// over the whole batch.
    [[nodiscard]] Tensor<T, Device> share(const Tensor<T, Device>& dlogits) const {
        const auto factor = static_cast<accumulate_t<T>>(share_);
        if (factor == accumulate_t<T>(1)) return dlogits;
        Tensor<T, Device> scaled = dlogits.clone();
        scale_by(scaled, factor);
        return scaled;
    }

    /// Calls run_backward(), the last backward pass of a step, and sums the gradients over ranks, as GradientSum::run.
    template <class Backward>
    void backward(const Backward& run_backward) {
        gradients_.run(run_backward);
    }

private:
    static ParameterList<accumulate_t<T>, Device> parameters_of(Model& model) {
        ParameterList<accumulate_t<T>, Device> list;
        for_each_parameter(model, [&](const std::string&, auto& parameter) { list.push_back(parameter); });
        return list;
    }

    Communicator& communicator_;
    DataParallelOptions options_;
    GradientSum<accumulate_t<T>, Device> gradients_;
    JointPass joint_;
    double share_ = 1;  ///< of the pass in the whole batch
};

SD_NAMESPACE_END
