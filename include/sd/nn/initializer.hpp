// Random start values as a pure function of the seed and the order of construction.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/philox.hpp"
#include "sd/core/tensor.hpp"

#include <cmath>

SD_NAMESPACE_BEGIN

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
        return draw<T>(shape, [&](const PhiloxCounter& words) { return deviation * normal_from(words[0], words[1]); });
    }

    /// Values from U(-bound, bound).
    template <class T>
    [[nodiscard]] Tensor<T> uniform(const Shape& shape, double bound) {
        return draw<T>(shape, [&](const PhiloxCounter& words) { return bound * (2 * uniform_from(words[0]) - 1); });
    }

private:
    template <class T, class Value>
    Tensor<T> draw(const Shape& shape, const Value& value) {
        Tensor<T> tensor = Tensor<T>::empty(shape);
        parallel_ranges(tensor.size(), 1 << 14, [&](Index first, Index last) {
            for (Index i = first; i < last; ++i) {
                tensor.data()[i] =
                    T(value(random_words(seed_, Stream::initialization, 0, tensors_, static_cast<std::uint32_t>(i))));
            }
        });
        ++tensors_;
        return tensor;
    }

    std::uint64_t seed_;
    std::uint32_t tensors_ = 0;
};

SD_NAMESPACE_END
