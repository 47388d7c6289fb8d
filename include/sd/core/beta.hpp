// Beta-distributed numbers as a pure function of what they are drawn for.
#pragma once

#include "sd/core/error.hpp"
#include "sd/core/finite.hpp"
#include "sd/core/philox.hpp"

#include <cmath>
#include <cstdint>

SD_NAMESPACE_BEGIN

namespace detail {

/// The logarithm of a number with density proportional to x^(shape - 1) exp(-x): candidates, drawn one after the other
/// with index 0, 1, ..., until one is accepted. For a shape below 1 that of shape + 1 times u^(1 / shape).
/// G. Marsaglia, W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000).
inline double log_gamma_from(std::uint64_t seed, Stream stream, std::uint64_t step, std::uint32_t block, double shape) {
    const double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3;
    const double c = 1 / std::sqrt(9 * d);
    for (std::uint32_t index = 0;; ++index) {
        const PhiloxCounter words = random_words(seed, stream, step, block, index);
        const double normal = normal_from(words[0], words[1]);
        const double root = 1 + c * normal;
        if (root <= 0) continue;
        const double v = root * root * root;
        const double log_u = std::log((words[2] + 1.0) * 0x1p-32);  // u in (0, 1]: the logarithm is finite
        if (log_u >= 0.5 * normal * normal + d * (1 - v + std::log(v))) continue;
        const double log_boost = shape < 1 ? std::log((words[3] + 1.0) * 0x1p-32) / shape : 0;
        return std::log(d * v) + log_boost;
    }
}

}  // namespace detail

/// A number of the symmetric Beta distribution on [0, 1], with density proportional to (x (1 - x))^(alpha - 1), that
/// belongs to (seed, stream, step). It uses the blocks 1 and 2 of the stream.
/// Throws std::invalid_argument unless alpha is finite and above 0.
[[nodiscard]] inline double symmetric_beta_from(std::uint64_t seed, Stream stream, std::uint64_t step, double alpha) {
    if (!is_finite(alpha) || alpha <= 0) refuse("symmetric_beta_from", "alpha", alpha, "a finite number above 0");
    const double x = detail::log_gamma_from(seed, stream, step, 1, alpha);
    const double y = detail::log_gamma_from(seed, stream, step, 2, alpha);
    return 1 / (1 + std::exp(y - x));  // by logarithms: for a small alpha both may be below the smallest double
}

SD_NAMESPACE_END
