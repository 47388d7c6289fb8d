// Softmax cross-entropy with label smoothing, for class labels and for probabilities ("soft targets").
//
// With C classes, smoothing s and target probabilities t (1 at the label, or given), q = (1 - s) t + s / C:
//
//     loss = mean over n of  - sum over c of q(n, c) log softmax(logits)(n, c)
//     dlogits(n, c) = (softmax(n, c) sum over k of q(n, k) - q(n, c)) / N
//
// C. Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7; as PyTorch's cross_entropy.
#pragma once

#include "sd/core/loss_and_gradient.hpp"
#include "sd/core/tensor.hpp"

#include <cmath>
#include <span>
#include <utility>

SD_NAMESPACE_BEGIN

namespace detail {

// The target probability of class c for sample n, before smoothing.
template <class T>
class TargetProbability {
public:
    TargetProbability(const char* where, const Tensor<T>& logits, std::span<const Index> classes) : classes_(classes) {
        expect_labels(where, logits.shape(), classes);
    }
    TargetProbability(const char* where, const Tensor<T>& logits, const Tensor<T>& probabilities)
        : probabilities_(probabilities) {
        expect_shape(where, "target", probabilities.shape(), logits.shape());
    }
    [[nodiscard]] T operator()(Index n, Index c) const {
        if (probabilities_) return probabilities_(n, c);
        return classes_[static_cast<std::size_t>(n)] == c ? T(1) : T(0);
    }

private:
    std::span<const Index> classes_;
    Tensor<T> probabilities_;
};

// log(sum over c of exp(logits(n, c))), the largest taken out so that nothing overflows.
template <class T>
[[nodiscard]] accumulate_t<T> log_sum_exp(const Tensor<T>& logits, Index n) {
    using A = accumulate_t<T>;
    using std::exp;
    using std::log;
    A largest(logits(n, 0));
    for (Index c = 1; c < logits.extent(1); ++c) {
        const A other(logits(n, c));
        if (other > largest) largest = other;
    }
    A sum(0);
    for (Index c = 0; c < logits.extent(1); ++c) sum = sum + exp(A(logits(n, c)) - largest);
    return largest + log(sum);
}

// The loss and, if it is wanted, the gradient, by one softmax of each sample.
template <class T, class Target>
[[nodiscard]] accumulate_t<T> softmax_cross_entropy(const char* where, const Tensor<T>& logits, const Target& target,
                                                    double label_smoothing, Tensor<T>* dlogits) {
    using A = accumulate_t<T>;
    using std::exp;
    expect_logits(where, logits.shape(), label_smoothing);
    const TargetProbability<T> probability(where, logits, target);
    const A keep = static_cast<A>(1 - label_smoothing);
    const A share = static_cast<A>(label_smoothing / static_cast<double>(logits.extent(1)));
    const A samples = static_cast<A>(static_cast<double>(logits.extent(0)));
    if (dlogits != nullptr) *dlogits = Tensor<T>(logits.shape());
    A loss(0);
    for (Index n = 0; n < logits.extent(0); ++n) {
        const A normaliser = log_sum_exp(logits, n);
        A total(0);
        for (Index c = 0; c < logits.extent(1); ++c) {
            const A q = keep * A(probability(n, c)) + share;
            total = total + q;
            // A class of no weight contributes nothing, even if its logit is -infinity.
            if (q != A(0)) loss = loss - q * (A(logits(n, c)) - normaliser);
        }
        if (dlogits == nullptr) continue;
        for (Index c = 0; c < logits.extent(1); ++c) {
            const A q = keep * A(probability(n, c)) + share;
            const A softmax = exp(A(logits(n, c)) - normaliser);
            (*dlogits)(n, c) = T((softmax * total - q) / samples);
        }
    }
    return logits.extent(0) == 0 ? loss : loss / samples;
}

template <class T, class Target>
[[nodiscard]] accumulate_t<T> cross_entropy_loss(const Tensor<T>& logits, const Target& target,
                                                 double label_smoothing) {
    expect_samples("cross_entropy_forward", logits.shape());
    return softmax_cross_entropy<T>("cross_entropy_forward", logits, target, label_smoothing, nullptr);
}

template <class T, class Target>
[[nodiscard]] Tensor<T> cross_entropy_gradient(const Tensor<T>& logits, const Target& target, double label_smoothing) {
    Tensor<T> dlogits;
    (void)softmax_cross_entropy("cross_entropy_by_input", logits, target, label_smoothing, &dlogits);
    return dlogits;
}

template <class T, class Target>
[[nodiscard]] LossAndGradient<T> loss_and_gradient(const Tensor<T>& logits, const Target& target,
                                                   double label_smoothing) {
    expect_samples("cross_entropy", logits.shape());
    Tensor<T> dlogits;
    const accumulate_t<T> loss = softmax_cross_entropy("cross_entropy", logits, target, label_smoothing, &dlogits);
    return {loss, std::move(dlogits)};
}

}  // namespace detail

namespace reference {

/// The loss and dlogits for class labels, by one softmax:  auto [loss, dlogits] = sd::cross_entropy(logits, labels);
/// Throws std::invalid_argument for a label outside the classes, another number of labels than samples, no samples, or
/// smoothing outside [0, 1].
template <class T>
[[nodiscard]] LossAndGradient<T> cross_entropy(const Tensor<T>& logits, std::span<const Index> classes,
                                               double label_smoothing = 0.0) {
    return detail::loss_and_gradient(logits, classes, label_smoothing);
}

/// The same for target probabilities (N, C).
template <class T>
[[nodiscard]] LossAndGradient<T> cross_entropy(const Tensor<T>& logits, const Tensor<T>& target,
                                               double label_smoothing = 0.0) {
    return detail::loss_and_gradient(logits, target, label_smoothing);
}

/// The loss for class labels. Throws std::invalid_argument as cross_entropy does.
template <class T>
[[nodiscard]] accumulate_t<T> cross_entropy_forward(const Tensor<T>& logits, std::span<const Index> classes,
                                                    double label_smoothing) {
    return detail::cross_entropy_loss(logits, classes, label_smoothing);
}

/// dlogits for class labels; without samples, an empty tensor.
template <class T>
[[nodiscard]] Tensor<T> cross_entropy_by_input(const Tensor<T>& logits, std::span<const Index> classes,
                                               double label_smoothing) {
    return detail::cross_entropy_gradient(logits, classes, label_smoothing);
}

/// The loss for target probabilities (N, C).
template <class T>
[[nodiscard]] accumulate_t<T> cross_entropy_forward(const Tensor<T>& logits, const Tensor<T>& target,
                                                    double label_smoothing) {
    return detail::cross_entropy_loss(logits, target, label_smoothing);
}

/// dlogits for target probabilities (N, C); without samples, an empty tensor.
template <class T>
[[nodiscard]] Tensor<T> cross_entropy_by_input(const Tensor<T>& logits, const Tensor<T>& target,
                                               double label_smoothing) {
    return detail::cross_entropy_gradient(logits, target, label_smoothing);
}

}  // namespace reference

SD_NAMESPACE_END
