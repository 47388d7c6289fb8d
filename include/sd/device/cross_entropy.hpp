// Softmax cross-entropy on a device, a sample a block; formula in reference/cross_entropy.hpp.
#pragma once

#include "sd/core/loss_and_gradient.hpp"
#include "sd/device/samples.hpp"

#include <cmath>
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

/// What both directions have: after phase 3 shared.normaliser is log(sum of exp(logits)), the largest taken out, and
/// shared.total the sum of the smoothed target.
template <class T>
struct SoftmaxOfSample {
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
        A sum = A(0), total = A(0);
        for (int i = 0; i < block_threads; ++i) {
            sum += shared.part[i];
            total += shared.other[i];
        }
        shared.normaliser = shared.largest + log(sum);
        shared.total = total;
    }
};

/// The loss of each sample and the gradient by its logits, each where it is wanted.
template <class T>
struct CrossEntropyOfSample : SoftmaxOfSample<T> {
    using Base = SoftmaxOfSample<T>;
    using typename Base::A;
    using typename Base::Shared;
    using Base::operator();
    A samples;
    A* losses;   ///< (N), or nullptr
    T* dlogits;  ///< (N, C), or nullptr

    CrossEntropyOfSample(const Base& base, A count, A* losses_of_samples, T* gradient)
        : Base(base), samples(count), losses(losses_of_samples), dlogits(gradient) {}
    SD_HOST_DEVICE void operator()(Phase<4>, Thread thread, Shared& shared) const {
        using std::exp;
        A loss = A(0);
        for (Index c = thread.index; c < this->classes; c += block_threads) {
            const A q = this->smoothed(thread, c);
            const A logarithm = this->logit(thread, c) - shared.normaliser;
            // A class of no weight contributes nothing, even if its logit is -infinity.
            if (q != A(0)) loss -= q * logarithm;
            if (dlogits == nullptr) continue;
            dlogits[thread.block * this->classes + c] = T(A((exp(logarithm) * shared.total - q) / samples));
        }
        shared.part[thread.index] = loss;
    }
    SD_HOST_DEVICE void operator()(Phase<5>, Thread thread, Shared& shared) const {
        if (thread.index != 0 || losses == nullptr) return;
        A loss = A(0);
        for (int i = 0; i < block_threads; ++i) loss += shared.part[i];
        losses[thread.block] = loss;
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
        if (thread.index != 0) return;
        A sum = A(0);
        for (int i = 0; i < block_threads; ++i) sum += shared.part[i];
        *mean = sum / static_cast<A>(static_cast<double>(count));
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

template <class T, Accelerator Device>
[[nodiscard]] SoftmaxOfSample<T> softmax_of(const Tensor<T, Device>& logits, const LossTarget<T, Device>& target,
                                            double label_smoothing) {
    using A = accumulate_t<T>;
    return {logits.extent(1), logits.data(), target.view(), static_cast<A>(1 - label_smoothing),
            static_cast<A>(label_smoothing / static_cast<double>(logits.extent(1)))};
}

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
    const SoftmaxOfSample<T> softmax = softmax_of(logits, target, label_smoothing);
    LossAndGradient<T, Device> result;
    Tensor<A, Device> losses;
    if (parts.gradient) result.dlogits = Tensor<T, Device>::empty(logits.shape());
    if (parts.loss) losses = Tensor<A, Device>::empty({samples});
    const auto count = static_cast<A>(static_cast<double>(samples));
    launch<Device>(CrossEntropyOfSample<T>(softmax, count, losses.data(), result.dlogits.data()), samples);
    if (parts.loss) {
        result.loss = Tensor<A, Device>::empty({1});
        launch<Device>(Mean<A>{samples, losses.data(), result.loss.data()}, 1);
    }
    return result;
}

template <class T, Accelerator Device, class Target>
[[nodiscard]] accumulate_t<T> cross_entropy_loss(const Tensor<T, Device>& logits, const Target& target,
                                                 double label_smoothing) {
    const auto parts = cross_entropy_parts("cross_entropy_forward", logits, target, label_smoothing, {true, false});
    return to_host(parts.loss).data()[0];
}

}  // namespace cuda

/// The loss and dlogits for class labels, both left on the device: nobody waits for them. Throws std::invalid_argument
/// for a label outside the classes, another number of labels than samples, no samples, or smoothing outside [0, 1].
template <class T, cuda::Accelerator Device>
[[nodiscard]] LossAndGradient<T, Device> cross_entropy(const Tensor<T, Device>& logits, std::span<const Index> classes,
                                                       double label_smoothing = 0.0) {
    return cuda::cross_entropy_parts("cross_entropy", logits, classes, label_smoothing, {true, true});
}

/// The same for target probabilities (N, C).
template <class T, cuda::Accelerator Device>
[[nodiscard]] LossAndGradient<T, Device> cross_entropy(const Tensor<T, Device>& logits, const Tensor<T, Device>& target,
                                                       double label_smoothing = 0.0) {
    return cuda::cross_entropy_parts("cross_entropy", logits, target, label_smoothing, {true, true});
}

/// The loss for class labels, as on the CPU. Waits for the device.
template <class T, cuda::Accelerator Device>
[[nodiscard]] accumulate_t<T> cross_entropy_forward(const Tensor<T, Device>& logits, std::span<const Index> classes,
                                                    double label_smoothing) {
    return cuda::cross_entropy_loss(logits, classes, label_smoothing);
}

/// The loss for target probabilities (N, C), as on the CPU. Waits for the device.
template <class T, cuda::Accelerator Device>
[[nodiscard]] accumulate_t<T> cross_entropy_forward(const Tensor<T, Device>& logits, const Tensor<T, Device>& target,
                                                    double label_smoothing) {
    return cuda::cross_entropy_loss(logits, target, label_smoothing);
}

/// dlogits for class labels.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> cross_entropy_by_input(const Tensor<T, Device>& logits, std::span<const Index> classes,
                                                       double label_smoothing) {
    return cuda::cross_entropy_parts("cross_entropy_by_input", logits, classes, label_smoothing, {false, true}).dlogits;
}

/// dlogits for target probabilities (N, C).
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> cross_entropy_by_input(const Tensor<T, Device>& logits, const Tensor<T, Device>& target,
                                                       double label_smoothing) {
    return cuda::cross_entropy_parts("cross_entropy_by_input", logits, target, label_smoothing, {false, true}).dlogits;
}

SD_NAMESPACE_END
