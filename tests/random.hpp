// Random tensors and the distance between tensors, for all tests.
#pragma once

#include "sd/core/philox.hpp"
#include "sd/core/tensor.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace sd_test {

/// Every random input of the tests comes from this number; the test programs print it.
inline constexpr std::uint64_t seed = 20160330;

/// Values uniform in [low, high), a function of `stream` alone, the same on every device.
template <class T, class Device = sd::Cpu>
sd::Tensor<T, Device> random_tensor(const sd::Shape& shape, std::uint64_t stream, double low = -1, double high = 1) {
    auto tensor = sd::Tensor<T>::empty(shape);
    for (sd::Index i = 0; i < tensor.size(); ++i) {
        const auto words = sd::random_words(seed, sd::Stream::synthetic, stream, 0, static_cast<std::uint32_t>(i));
        tensor.data()[i] = T(static_cast<sd::accumulate_t<T>>(low + (high - low) * sd::uniform_from(words[0])));
    }
    return sd::to_device<Device>(tensor);
}

/// max |a - b| / max(1e-3, max |b|); infinite for other shapes or a NaN.
template <class T>
double relative_error(const sd::Tensor<T>& a, const sd::Tensor<T>& b) {
    if (!(a.shape() == b.shape())) return std::numeric_limits<double>::infinity();
    double difference = 0;
    double scale = 1e-3;
    for (sd::Index i = 0; i < a.size(); ++i) {
        const double distance = std::abs(static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i]));
        if (std::isnan(distance)) return std::numeric_limits<double>::infinity();
        difference = std::max(difference, distance);
        scale = std::max(scale, std::abs(static_cast<double>(b.data()[i])));
    }
    return difference / scale;
}

}  // namespace sd_test
