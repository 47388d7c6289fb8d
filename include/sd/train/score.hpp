// Loss and accuracy over any number of samples.
#pragma once

#include "sd/core/tensor.hpp"

#include <cstdint>
#include <span>

SD_NAMESPACE_BEGIN

/// How many samples have their label among the k largest of their logits (N, C). Of equal logits the one of the lower
/// class counts as larger; a label whose logit is not a number is never among them. Throws std::invalid_argument unless
/// there is one label for each sample, 0 to C - 1.
template <class T>
[[nodiscard]] std::uint64_t count_in_top(const Tensor<T>& logits, std::span<const Index> labels, Index k) {
    expect_rank("count_in_top", "logits", logits.shape(), 2);
    const Index classes = logits.extent(1);
    if (static_cast<Index>(labels.size()) != logits.extent(0)) {
        refuse("count_in_top", "number of labels", labels.size(), logits.extent(0));
    }
    using A = accumulate_t<T>;
    std::uint64_t count = 0;
    const T* row = logits.data();
    for (const Index label : labels) {
        if (label < 0 || label >= classes) refuse("count_in_top", "label", label, text("0 to ", classes - 1));
        const A own(row[label]);
        Index larger = 0;
        for (Index c = 0; c < classes && larger < k; ++c) {
            const bool is_smaller = c < label ? A(row[c]) < own : A(row[c]) <= own;  // false for not a number
            if (!is_smaller) ++larger;
        }
        if (larger < k) ++count;
        row += classes;
    }
    return count;
}

/// Sums over the samples seen so far, from which come mean loss and accuracies.
struct Score {
    double loss_sum = 0;                ///< of every sample's loss
    std::uint64_t correct = 0;          ///< samples whose label has the largest logit
    std::uint64_t correct_in_top5 = 0;  ///< samples whose label has one of the five largest logits
    std::uint64_t samples = 0;          ///< how many samples were seen

    /// Adds samples by their logits, their labels and their mean loss.
    template <class T, class Device>
    void add(const Tensor<T, Device>& logits, std::span<const Index> labels, double mean_loss) {
        const auto& numbers = to_host_numbers(logits);
        loss_sum += mean_loss * static_cast<double>(labels.size());
        correct += count_in_top(numbers, labels, 1);
        correct_in_top5 += count_in_top(numbers, labels, 5);
        samples += labels.size();
    }
    /// Adds other samples.
    void add(const Score& other) {
        loss_sum += other.loss_sum;
        correct += other.correct;
        correct_in_top5 += other.correct_in_top5;
        samples += other.samples;
    }

    /// The mean loss; 0 without samples.
    [[nodiscard]] double loss() const { return mean(loss_sum); }
    /// The fraction of samples whose label has the largest logit.
    [[nodiscard]] double accuracy() const { return mean(static_cast<double>(correct)); }
    /// The fraction of samples whose label has one of the five largest logits.
    [[nodiscard]] double top5_accuracy() const { return mean(static_cast<double>(correct_in_top5)); }

    friend bool operator==(const Score&, const Score&) = default;

private:
    [[nodiscard]] double mean(double sum) const { return samples == 0 ? 0 : sum / static_cast<double>(samples); }
};

SD_NAMESPACE_END
