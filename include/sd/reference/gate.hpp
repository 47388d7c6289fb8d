// A gate: each sample's channel of x times a factor that depends on x through the channel's mean. Forward it is a part of a
// pending tensor; here is what the backward pass gathers.
#pragma once

#include "sd/core/moments.hpp"
#include "sd/reference/pending.hpp"

SD_NAMESPACE_BEGIN

namespace reference {

/// The sums over the pixels of each sample's channel that GateSums says, of dy (N, H, W, C) and x of the same shape. If x
/// comes from a batch norm, `before` is its forward pass and the norm's parts are gathered too.
/// Throws std::invalid_argument if shapes do not fit.
template <class T>
[[nodiscard]] GateSums<T> gate_sums(const Tensor<T>& dy, const Pending<T>& x,
                                    const BatchNormPass<T>* before = nullptr) {
    using A = accumulate_t<T>;
    detail::expect_gate_sums(dy.shape(), x.shape(), before);
    const Index samples = dy.extent(0);
    const Index channels = dy.extent(3);
    Tensor<A> of_gate(Shape{samples, channels});
    Tensor<A> of_norm;
    if (before != nullptr) of_norm = Tensor<A>(Shape{samples, 4, channels});
    for (Index i = 0; i < dy.size(); ++i) {
        const Index n = i / (dy.size() / samples);
        const Index c = i % channels;
        of_gate(n, c) = of_gate(n, c) + A(dy.data()[i]) * A(x.value(i));
        if (before == nullptr) continue;
        const T z = before->y.raw.data()[i];
        const T v = before->y.before_activation(z, c);
        const A g = A(activation_gradient(before->y.activation, dy.data()[i], v));
        const A slope = A(activation_derivative(before->y.activation, v));
        const A deviation = A(z) - before->mean(c);
        of_norm(n, 0, c) = of_norm(n, 0, c) + g * deviation;
        of_norm(n, 1, c) = of_norm(n, 1, c) + g;
        of_norm(n, 2, c) = of_norm(n, 2, c) + slope * deviation;
        of_norm(n, 3, c) = of_norm(n, 3, c) + slope;
    }
    GateSums<T> sums{Tensor<T>(of_gate.shape()), of_norm};
    for (Index i = 0; i < of_gate.size(); ++i) sums.of_gate.data()[i] = T(of_gate.data()[i]);
    return sums;
}

/// The sums of the backward of the batch norm before a gate, whose gradient by the norm's output is gate.factor dy +
/// gate.common: of what gate_sums() gathered of it. Throws std::invalid_argument if shapes do not fit.
template <class T>
[[nodiscard]] BatchNormSums<accumulate_t<T>> batch_norm_sums(const GateSums<T>& sums, const GateGradient<T>& gate,
                                                             const Tensor<accumulate_t<T>>& inverse_std) {
    using A = accumulate_t<T>;
    const Shape& shape = sums.of_gate.shape();
    detail::expect_sums_of_norm(shape, sums.of_norm.shape(), inverse_std.shape());
    BatchNormSums<A> result{Tensor<A>(Shape{shape[1]}), Tensor<A>(Shape{shape[1]})};
    for (Index n = 0; n < shape[0]; ++n) {
        for (Index c = 0; c < shape[1]; ++c) {
            const A factor = A(gate.factor(n, c));
            const A common = A(gate.common(n, c));
            const A deviations = factor * sums.of_norm(n, 0, c) + common * sums.of_norm(n, 2, c);
            result.dweight(c) = result.dweight(c) + deviations * inverse_std(c);
            result.dbias(c) = result.dbias(c) + factor * sums.of_norm(n, 1, c) + common * sums.of_norm(n, 3, c);
        }
    }
    return result;
}

}  // namespace reference

SD_NAMESPACE_END
