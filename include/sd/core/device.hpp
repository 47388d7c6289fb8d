// What a device is: the contract of everything that holds tensors and computes on them. All that the library asks of one
// is on this page.
//
// A device is a tag, an empty type that says what it is in three constants:
//
//     in_cpu_memory      its elements are in the CPU's memory: nothing is copied to it and from it
//     runs_beside_cpu    what is called on it has only been started when the call returns; whoever reads from it waits
//     replays_steps      it can take all that a training step starts as one graph
//
// For its tag it has
//
//     Storage<T, D>        the memory of tensors                     core/storage.hpp: what the CPU's has
//     Readback<T, D>       numbers on their way to the CPU           below; needed if it runs beside the CPU
//     StepGraph<D>         a training step as one piece              below; needed if it replays steps
//     DeviceChoices<D>     what it chooses by itself in a run        below; needed if it chooses anything
//     JoinOutput<T, D>     what the residual join keeps of y         core/join.hpp; y if it has none of its own
//     machine_kind(x)      which of its kinds of machines computes   below; none if it has none of its own
//     kernels              overloads for Tensor<T, D>                HasKernels below: their names and arguments
//     poison_pool(D)       fills memory that is free with NaN, for checks
//
// and all else follows: to_device, to_host, clone() and in_room() are Storage's, mean_loss_t and scores_are_late follow
// from runs_beside_cpu. Layers and training call kernels by their plain names, and the overload is found by the type of
// its arguments (argument-dependent lookup). A tensor that a kernel makes may have room for more samples than its shape
// says (Tensor::room()): nobody but the device's own kernels looks at it.
//
// A device that starts kernels of its own brings no kernels at all: it sets runs_kernels in its tag, and those of
// sd/device/, written for any such device, are its own; device/kernels.hpp says what they ask of it.
#pragma once

#include "sd/core/activation.hpp"
#include "sd/core/communicator.hpp"
#include "sd/core/join.hpp"
#include "sd/core/kept_weights.hpp"
#include "sd/core/layer_norm.hpp"
#include "sd/core/loss_and_gradient.hpp"
#include "sd/core/moments.hpp"
#include "sd/core/parameter_update.hpp"
#include "sd/core/pending_gradient.hpp"
#include "sd/core/tensor.hpp"
#include "sd/core/window.hpp"

#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>

SD_NAMESPACE_BEGIN

// ---------------------------------------------------------------------------------------------- numbers on their way

/// A copy of a device's tensor in the CPU's memory, started when it is made, in the order of everything else that
/// was started on the device; get() waits for it. Movable; it may go before the copy is finished. A device that runs
/// beside the CPU has its own.
template <class T, class Device>
class Readback;

/// Of a device that the CPU waits for anyway, the numbers are there at once.
template <class T, class Device>
requires(!Device::runs_beside_cpu) class Readback<T, Device> {
public:
    /// Of these numbers as they are now.
    explicit Readback(const Tensor<T, Device>& numbers) : numbers_(to_host(numbers.clone())) {}
    /// The numbers, valid as long as this is.
    [[nodiscard]] std::span<const T> get() { return {numbers_.data(), static_cast<std::size_t>(numbers_.size())}; }

private:
    Tensor<T> numbers_;
};

// ------------------------------------------------------------------------------------------------------ a step's graph

/// Starts on a device all that some work starts there, as one graph: the device goes from kernel to kernel by itself. A
/// device that replays steps has its own; on any other, the work runs as it would without.
///
///     run(work)    calls work(), which must neither read from the device nor wait for it, then starts the graph, or
///                  nothing of it if work() throws
template <class Device>
class StepGraph;

/// Of a device that has no graphs.
template <class Device>
requires(!Device::replays_steps) class StepGraph<Device> {
public:
    /// Calls work().
    template <class Work>
    void run(const Work& work) {
        work();
    }
};

// ------------------------------------------------------------------------------------------------ choices of a device

/// What a device has chosen in this process so far, such as a library's way to run a convolution, in the form of a text
/// that a checkpoint keeps: after a resume it must choose alike. The CPU chooses nothing; a device that does has its
/// own.
template <class Device>
struct DeviceChoices {
    static constexpr bool are_made = false;  ///< whether there is anything to keep

    /// Those made so far.
    [[nodiscard]] static DeviceChoices so_far() { return {}; }
    /// From the text of a checkpoint, which `source` names in errors. Throws std::runtime_error for any other text.
    [[nodiscard]] static DeviceChoices parse(const std::string& /*text*/, const std::string& /*source*/) { return {}; }
    /// The text of a checkpoint.
    [[nodiscard]] std::string text() const { return {}; }
    /// Chooses so from now on, wherever the choice has not been made yet; warns if it cannot be made.
    void use() const {}
};

// ---------------------------------------------------------------------------------------------------- kinds of machines

/// What computes with tensors of such elements, by name, if a device has several kinds of machines for that whose results
/// differ in their last bits; a run's log and its checkpoints have the name. Empty for any other; a device that has
/// several has an overload for its tensors.
template <class T, class Device>
[[nodiscard]] std::string machine_kind(const Tensor<T, Device>& /*x*/) {
    return {};
}

// --------------------------------------------------------------------------------------------------------- the contract

namespace detail {

template <class D>
concept SaysWhatItIs = std::default_initializable<D> && requires {
    typename std::bool_constant<D::in_cpu_memory>;
    typename std::bool_constant<D::runs_beside_cpu>;
    typename std::bool_constant<D::replays_steps>;
};

/// A device has its own of a class that is declared for all.
template <class Own>
concept IsDefined = requires {
    sizeof(Own);
};

template <class D, class T>
concept HasStorage = IsDefined<Storage<T, D>> && std::copyable<Storage<T, D>> &&
    requires(Storage<T, D> memory, const Storage<T, D>& other, const T& value, const T* source, T* target,
             Index count) {
    Storage<T, D>();
    Storage<T, D>(count);
    { other.data() } -> std::same_as<T*>;
    memory.fill(value);
    memory.copy_from(other);
    memory.write(source, count);
    other.read(target, count);
    { other.is_only_reference() } -> std::same_as<bool>;
};

template <class D, class T>
concept HasReadback = IsDefined<Readback<T, D>> && std::movable<Readback<T, D>> &&
    requires(Readback<T, D> copy, const Tensor<T, D>& numbers) {
    Readback<T, D>(numbers);
    { copy.get() } -> std::same_as<std::span<const T>>;
};

template <class D>
concept HasStepGraph = IsDefined<StepGraph<D>> && requires(StepGraph<D> graph, void (*work)()) {
    StepGraph<D>();
    graph.run(work);
};

template <class D>
concept HasChoices = requires(const DeviceChoices<D>& choices, const std::string& words) {
    typename std::bool_constant<DeviceChoices<D>::are_made>;
    { DeviceChoices<D>::so_far() } -> std::same_as<DeviceChoices<D>>;
    { DeviceChoices<D>::parse(words, words) } -> std::same_as<DeviceChoices<D>>;
    { choices.text() } -> std::convertible_to<std::string>;
    choices.use();
};

/// An optimizer's formula without buffers, to ask for update_parameters with.
struct AnyUpdate {
    static constexpr std::size_t buffers = 0;
};

}  // namespace detail

/// A device, see the head of this file: its tag with memory, readbacks, graphs and choices.
template <class D>
concept ComputeDevice = detail::SaysWhatItIs<D> && requires(D device) {
    requires detail::HasStorage<D, float>;
    requires detail::HasStorage<D, double>;
    requires detail::HasStorage<D, Index>;
    requires detail::HasReadback<D, double>;
    requires detail::HasStepGraph<D>;
    requires detail::HasChoices<D>;
    poison_pool(device);
};

/// A device has every kernel for elements of type T, with parameters, statistics and sums of A. What each computes, and
/// which of its arguments may be left out, stands in the files that are named.
template <class D, class T, class A = accumulate_t<T>>
concept HasKernels = requires(Tensor<T, D> x, Tensor<A, D> a, Pending<T, D> pending, PendingGradient<T, D> gradient,
                              BatchNormPass<T, D> pass, BatchNormSums<A, D> sums, Moments<A, D> moments,
                              GateSums<T, D> gate_parts, GateGradient<T, D> gate, LayerNormStatistics<A, D> statistics,
                              join_output_t<T, D> joined, ResidualJoin<T, D> join, mean_loss_t<T, D> loss, A number,
                              Shape shape, Index index, std::span<const Index> indices, Conv2dOptions conv,
                              Pool2dOptions pool, Activation activation, KeptWeights kept, Communicator& communicator) {
    // Convolution: reference/conv2d.hpp
    { conv2d_operand(pending, shape, conv) } -> std::convertible_to<Pending<T, D>>;
    { conv2d_operand(gradient, shape, conv) } -> std::convertible_to<PendingGradient<T, D>>;
    { conv2d_forward(pending, a, conv, &moments) } -> std::same_as<Tensor<T, D>>;
    { conv2d_batch_norm_forward(pending, a, conv, a, a, activation, &kept) } -> std::same_as<Tensor<T, D>>;
    { conv2d_join_forward(pending, a, conv, a, a, join, &kept) } -> std::same_as<Tensor<T, D>>;
    { conv2d_by_input(gradient, a, conv, shape, &pass, &sums) } -> std::same_as<Tensor<T, D>>;
    { conv2d_join_by_input(gradient, a, conv, x) } -> std::same_as<Tensor<T, D>>;
    { conv2d_by_weight(pending, gradient, conv, shape) } -> std::same_as<Tensor<A, D>>;
    // Batch norm: reference/batch_norm.hpp, nn/joint_statistics.hpp
    { batch_moments(x) } -> std::same_as<Moments<A, D>>;
    { batch_norm_factors(a, a, index, a, a, 1e-5) } -> std::same_as<BatchNormFactors<A, D>>;
    update_running_statistics(a, a, moments, 0.1);
    { batch_norm_sums(x, pass) } -> std::same_as<BatchNormSums<A, D>>;
    { batch_norm_by_input(x, pass, sums) } -> std::same_as<PendingGradient<T, D>>;
    { materialize(pending) } -> std::same_as<Tensor<T, D>>;
    { materialize(gradient) } -> std::same_as<Tensor<T, D>>;
    { merged_over_ranks(moments, communicator) } -> std::same_as<Moments<A, D>>;
    { summed_over_ranks(sums, communicator, 1.0) } -> std::same_as<BatchNormSums<A, D>>;
    // Layer norm: reference/layer_norm.hpp
    { layer_norm_forward(x, a, a, 1e-6, &statistics) } -> std::same_as<Tensor<T, D>>;
    { layer_norm_backward(x, x, a, statistics) } -> std::same_as<LayerNormGradient<T, D>>;
    // Squeeze-and-excitation: reference/gate.hpp
    { gate_sums(x, pending, &pass) } -> std::same_as<GateSums<T, D>>;
    { batch_norm_sums(gate_parts, gate, a) } -> std::same_as<BatchNormSums<A, D>>;
    // Pooling, activations, linear: reference/pooling.hpp, activation.hpp, channels.hpp, linear.hpp
    { max_pool2d_forward(pending, pool) } -> std::same_as<Tensor<T, D>>;
    { max_pool2d_by_input(x, pending, pool) } -> std::same_as<Tensor<T, D>>;
    { avg_pool2d_forward(x, pool) } -> std::same_as<Tensor<T, D>>;
    { avg_pool2d_by_input(x, pool, shape) } -> std::same_as<Tensor<T, D>>;
    { global_avg_pool_forward(pending) } -> std::same_as<Tensor<T, D>>;
    { global_avg_pool_by_input(x, shape) } -> std::same_as<Tensor<T, D>>;
    { activation_forward(x, activation) } -> std::same_as<Tensor<T, D>>;
    { activation_by_input(x, x, activation) } -> std::same_as<Tensor<T, D>>;
    { with_channels(x, index) } -> std::same_as<Tensor<T, D>>;
    { linear_forward(x, a, a, &kept) } -> std::same_as<Tensor<T, D>>;
    { linear_by_input(x, a) } -> std::same_as<Tensor<T, D>>;
    { linear_by_weight(x, x) } -> std::same_as<Tensor<A, D>>;
    { linear_by_bias(x) } -> std::same_as<Tensor<A, D>>;
    // Stochastic depth: reference/residual_join.hpp
    { residual_join_forward(pending, pending, indices, number, true, &joined) } -> std::same_as<Tensor<T, D>>;
    {
        residual_join_backward(x, joined, indices, index, number, true, &pass, &sums)
        } -> std::same_as<ResidualJoinGradient<T, D>>;
    { gather_samples(x, indices) } -> std::same_as<Tensor<T, D>>;
    { add_selected(x, x, indices) } -> std::same_as<Tensor<T, D>>;
    // Loss and scores: reference/cross_entropy.hpp, train/late_scores.hpp
    { cross_entropy(x, indices, 0.0) } -> std::same_as<LossAndGradient<T, D>>;
    { cross_entropy(x, x, 0.0) } -> std::same_as<LossAndGradient<T, D>>;
    { cross_entropy_forward(x, indices, 0.0) } -> std::same_as<A>;
    { cross_entropy_forward(x, x, 0.0) } -> std::same_as<A>;
    { cross_entropy_by_input(x, indices, 0.0) } -> std::same_as<Tensor<T, D>>;
    { cross_entropy_by_input(x, x, 0.0) } -> std::same_as<Tensor<T, D>>;
    { score_numbers(x, indices, loss) } -> std::same_as<Tensor<double, D>>;
    { to_host_numbers(x) } -> std::convertible_to<Tensor<A>>;
    // Training: reference/elementwise.hpp, mixup.hpp, clip_norm.hpp, core/parameter_update.hpp
    add_to(a, a);
    scale_by(a, number);
    move_towards(a, a, number);
    copy_elements(a, index, index, a, index);
    { mix_samples(x, indices, 0.5) } -> std::same_as<Tensor<T, D>>;
    { paste_samples(x, indices, ImageBox{}) } -> std::same_as<Tensor<T, D>>;
    { one_hot_like(x, indices, index) } -> std::same_as<Tensor<T, D>>;
    { clip_norm(std::span<Tensor<A, D>>(), 1.0) } -> std::same_as<Tensor<double, D>>;
    update_parameters(std::span<ParameterUpdate<detail::AnyUpdate, A, D>>());
    // Log and checkpoints: train/machine_kind.hpp
    { machine_kind(x) } -> std::same_as<std::string>;
};

SD_NAMESPACE_END
