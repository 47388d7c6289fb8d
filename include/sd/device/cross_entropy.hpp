// Softmax cross-entropy on a device, a sample a block; formula in reference/cross_entropy.hpp.
#pragma once

#include "sd/core/loss_and_gradient.hpp"
#include "sd/device/samples.hpp"

#include <cmath>
#include <concepts>
#include <span>

SD_NAMESPACE_BEGIN

namespace cuda {

/// Target probabilities before smoothing: 1 at the label, or given ones.
template <class T>
struct TargetView {
    using A = accumulate_t<T>;
    const Index* classes;    ///< (N), or nullptr
    const T* probabilities;  ///< (N, C) then
    [[nodiscard]] SD_HOST_DEVICE A operator()(Index n, Index c, Index count) const {
        if (classes == nullptr) return A(probabilities[n * count + c]);
        return classes[n] == c ? A(1) : A(0);
    }
};

/// The loss of each sample and the gradient by its logits, each where it is wanted. After phase 3 shared.normaliser is
/// log(sum of exp(logits)), the largest taken out, and shared.total the sum of the smoothed target.
template <class T>
struct CrossEntropyOfSample {
    using A = accumulate_t<T>;
    static constexpr int phases = 6;
    struct Shared {
        A part[block_threads], other[block_threads];
        A largest, normaliser, total;
    };
    Index classes;
    const T* logits;
    TargetView<T> target;
    A keep, share;  ///< q = keep t + share
    A samples;
    A* losses;   ///< (N), or nullptr
    T* dlogits;  ///< (N, C), or nullptr

    [[nodiscard]] SD_HOST_DEVICE A logit(Thread thread, Index c) const { return A(logits[thread.block * classes + c]); }
    [[nodiscard]] SD_HOST_DEVICE A smoothed(Thread thread, Index c) const {
        return keep * target(thread.block, c, classes) + share;
    }
    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        A largest = logit(thread, 0);
        for (Index c = thread.index; c < classes; c += block_threads) {
            if (logit(thread, c) > largest) largest = logit(thread, c);
        }
        shared.part[thread.index] = largest;
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        if (thread.index != 0) return;
        A largest = shared.part[0];
        for (int i = 1; i < block_threads; ++i) {
            if (shared.part[i] > largest) largest = shared.part[i];
        }
        shared.largest = largest;
    }
    SD_HOST_DEVICE void operator()(Phase<2>, Thread thread, Shared& shared) const {
        using std::exp;
        A sum = A(0), total = A(0);
        for (Index c = thread.index; c < classes; c += block_threads) {
            sum += exp(A(logit(thread, c) - shared.largest));
            total += smoothed(thread, c);
        }
        shared.part[thread.index] = sum;
        shared.other[thread.index] = total;
    }
    SD_HOST_DEVICE void operator()(Phase<3>, Thread thread, Shared& shared) const {
        using std::log;
        if (thread.index != 0) return;
        shared.normaliser = shared.largest + log(sum_of_block(shared.part));
        shared.total = sum_of_block(shared.other);
    }
    SD_HOST_DEVICE void operator()(Phase<4>, Thread thread, Shared& shared) const {
        using std::exp;
        A loss = A(0);
        for (Index c = thread.index; c < classes; c += block_threads) {
            const A q = smoothed(thread, c);
            const A logarithm = logit(thread, c) - shared.normaliser;
            // A class of no weight contributes nothing, even if its logit is -infinity.
            if (q != A(0)) loss -= q * logarithm;
            if (dlogits == nullptr) continue;
            dlogits[thread.block * classes + c] = T(A((exp(logarithm) * shared.total - q) / samples));
        }
        shared.part[thread.index] = loss;
    }
    SD_HOST_DEVICE void operator()(Phase<5>, Thread thread, Shared& shared) const {
        if (thread.index == 0 && losses != nullptr) losses[thread.block] = sum_of_block(shared.part);
    }
};

/// The mean of all values, by one block.
template <class A>
struct Mean {
    static constexpr int phases = 2;
    struct Shared {
        A part[block_threads];
    };
    Index count;
    const A* values;
    A* mean;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        A sum = A(0);
        for (Index i = thread.index; i < count; i += block_threads) sum += values[i];
        shared.part[thread.index] = sum;
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        if (thread.index == 0) *mean = sum_of_block(shared.part) / static_cast<A>(static_cast<double>(count));
    }
};

/// A target on the device, checked; labels are copied there.
template <class T, Accelerator Device>
class LossTarget {
public:
    LossTarget(const char* where, const Shape& logits, std::span<const Index> classes) {
        detail::expect_labels(where, logits, classes);
        classes_ = uploaded<Device>(classes);
    }
    LossTarget(const char* where, const Shape& logits, const Tensor<T, Device>& probabilities)
        : probabilities_(probabilities) {
        expect_shape(where, "target", probabilities.shape(), logits);
    }
    [[nodiscard]] TargetView<T> view() const { return {classes_.data(), probabilities_.data()}; }

private:
    Tensor<Index, Device> classes_;
    Tensor<T, Device> probabilities_;
};

/// What of the loss is computed.
struct LossParts {
    bool loss, gradient;
};

template <class T, Accelerator Device, class Target>
[[nodiscard]] LossAndGradient<T, Device> cross_entropy_parts(const char* where, const Tensor<T, Device>& logits,
                                                             const Target& given, double label_smoothing,
                                                             const LossParts& parts) {
    using A = accumulate_t<T>;
    if (parts.loss) detail::expect_samples(where, logits.shape());
    detail::expect_logits(where, logits.shape(), label_smoothing);
    const Index samples = logits.extent(0);
    const LossTarget<T, Device> target(where, logits.shape(), given);
    LossAndGradient<T, Device> result;
    Tensor<A, Device> losses;
    if (parts.gradient) result.dlogits = Tensor<T, Device>::empty(logits.shape());
    if (parts.loss) losses = Tensor<A, Device>::empty({samples});
    launch<Device>(
        CrossEntropyOfSample<T>{logits.extent(1), logits.data(), target.view(), static_cast<A>(1 - label_smoothing),
                                static_cast<A>(label_smoothing / static_cast<double>(logits.extent(1))),
                                static_cast<A>(static_cast<double>(samples)), losses.data(), result.dlogits.data()},
        samples);
    if (parts.loss) {
        result.loss = Tensor<A, Device>::empty({1});
        launch<Device>(Mean<A>{samples, losses.data(), result.loss.data()}, 1);
    }
    return result;
}

/// Class labels, or a tensor of probabilities on the device.
template <class Target, class T, class Device>
concept LossTargetOf = std::constructible_from < LossTarget<T, Device>,
const char*, const Shape&, const Target& > ;

}  // namespace cuda

/// The loss and dlogits for class labels, or for target probabilities (N, C), both left on the device: nobody waits for
/// them. Throws std::invalid_argument for a label outside the classes, a target of another number of samples or
/// classes, no samples, or smoothing outside [0, 1].
template <class T, cuda::Accelerator Device, cuda::LossTargetOf<T, Device> Target>
[[nodiscard]] LossAndGradient<T, Device> cross_entropy(const Tensor<T, Device>& logits, const Target& target,
                                                       double label_smoothing = 0.0) {
    return cuda::cross_entropy_parts("cross_entropy", logits, target, label_smoothing, {true, true});
}

/// The loss alone, as on the CPU. Waits for the device.
template <class T, cuda::Accelerator Device, cuda::LossTargetOf<T, Device> Target>
[[nodiscard]] accumulate_t<T> cross_entropy_forward(const Tensor<T, Device>& logits, const Target& target,
                                                    double label_smoothing) {
    const auto parts =
        cuda::cross_entropy_parts("cross_entropy_forward", logits, target, label_smoothing, {true, false});
    return to_host(parts.loss).data()[0];
}

/// dlogits alone.
template <class T, cuda::Accelerator Device, cuda::LossTargetOf<T, Device> Target>
[[nodiscard]] Tensor<T, Device> cross_entropy_by_input(const Tensor<T, Device>& logits, const Target& target,
                                                       double label_smoothing) {
    return cuda::cross_entropy_parts("cross_entropy_by_input", logits, target, label_smoothing, {false, true}).dlogits;
}

SD_NAMESPACE_END
