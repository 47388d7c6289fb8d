// What a loss gives, and what its kernels refuse alike.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/tensor.hpp"

#include <span>
#include <type_traits>

SD_NAMESPACE_BEGIN

/// A mean loss: a number, or on a device that runs beside the CPU a tensor of one, which nobody has waited for.
template <class T, class Device = Cpu>
using mean_loss_t = std::conditional_t<Device::runs_beside_cpu, Tensor<accumulate_t<T>, Device>, accumulate_t<T>>;

/// The mean loss over the samples of a batch and its gradient by their logits.
template <class T, class Device = Cpu>
struct LossAndGradient {
    mean_loss_t<T, Device> loss;  ///< over the samples
    Tensor<T, Device> dlogits;    ///< (N, classes)
};

namespace detail {

/// Refuses logits of no samples, which have no mean loss.
inline void expect_samples(const char* where, const Shape& logits) {
    expect_rank(where, "logits", logits, 2);
    if (logits[0] == 0) refuse(where, "shape of logits", logits, "at least one sample");
}

/// Refuses logits without classes, and smoothing outside [0, 1].
inline void expect_logits(const char* where, const Shape& logits, double label_smoothing) {
    expect_rank(where, "logits", logits, 2);
    if (logits[1] == 0) refuse(where, "shape of logits", logits, "at least one class");
    if (!is_in_range(label_smoothing, 0, 1)) {
        refuse(where, "label_smoothing", label_smoothing, "a number from 0 to 1");
    }
}

/// Refuses labels that are not one a sample, each among the classes.
inline void expect_labels(const char* where, const Shape& logits, std::span<const Index> labels) {
    if (static_cast<Index>(labels.size()) != logits[0]) refuse(where, "number of labels", labels.size(), logits[0]);
    for (const Index label : labels) {
        if (label < 0 || label >= logits[1]) refuse(where, "label", label, text("0 to ", logits[1] - 1));
    }
}

}  // namespace detail

SD_NAMESPACE_END
