// Random start values as a pure function of the seed and the order of construction.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/philox.hpp"
#include "sd/core/tensor.hpp"

#include <cmath>

SD_NAMESPACE_BEGIN

namespace detail {

/// A tensor of value(words), of the words that belong to each element of one tensor of the initialization stream.
template <class T, class Value>
Tensor<T> drawn_values(const Shape& shape, std::uint64_t seed, std::uint32_t tensor, const Value& value) {
    Tensor<T> drawn = Tensor<T>::empty(shape);
    parallel_ranges(drawn.size(), 1 << 14, [&](Index first, Index last) {
        for (Index i = first; i < last; ++i) {
            drawn.data()[i] =
                T(value(random_words(seed, Stream::initialization, 0, tensor, static_cast<std::uint32_t>(i))));
        }
    });
    return drawn;
}

}  // namespace detail

/// A tensor of values from N(0, deviation^2), block `tensor` of the initialization stream.
template <class T>
[[nodiscard]] Tensor<T> normal_values(const Shape& shape, std::uint64_t seed, std::uint32_t tensor, double deviation) {
    return detail::drawn_values<T>(
        shape, seed, tensor, [=](const PhiloxCounter& words) { return deviation * normal_from(words[0], words[1]); });
}

/// A tensor of values from U(-bound, bound), block `tensor` of the initialization stream.
template <class T>
[[nodiscard]] Tensor<T> uniform_values(const Shape& shape, std::uint64_t seed, std::uint32_t tensor, double bound) {
    return detail::drawn_values<T>(
        shape, seed, tensor, [=](const PhiloxCounter& words) { return bound * (2 * uniform_from(words[0]) - 1); });
}

/// Hands out start values. Every tensor asked for is one block of the initialization stream, so its values depend on
/// the seed and on how many tensors were asked for before it.
class Initializer {
public:
    /// The seed is of all tensors that will be asked for.
    explicit Initializer(std::uint64_t seed) : seed_(seed) {}

    /// Values from N(0, 2 / fan_out) with fan_out = O KH KW for a weight (O, I, KH, KW).
    /// K. He et al., "Delving deep into rectifiers", ICCV 2015; the `fan_out` mode that torchvision's ResNet uses.
    template <class T>
    [[nodiscard]] Tensor<T> he_normal_fan_out(const Shape& shape) {
        return normal<T>(shape, std::sqrt(2.0 / static_cast<double>(shape[0] * shape[2] * shape[3])));
    }

    /// Values from N(0, deviation^2).
    template <class T>
    [[nodiscard]] Tensor<T> normal(const Shape& shape, double deviation) {
        return normal_values<T>(shape, seed_, tensors_++, deviation);
    }

    /// Values from U(-bound, bound).
    template <class T>
    [[nodiscard]] Tensor<T> uniform(const Shape& shape, double bound) {
        return uniform_values<T>(shape, seed_, tensors_++, bound);
    }

private:
    std::uint64_t seed_;
    std::uint32_t tensors_ = 0;
};

SD_NAMESPACE_END
