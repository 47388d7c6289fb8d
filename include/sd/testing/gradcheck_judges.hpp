// The two judges of a gradient, finite differences and dual numbers, and the comparison with them.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/philox.hpp"
#include "sd/testing/gradcheck_layer.hpp"
#include "sd/testing/gradcheck_report.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

SD_NAMESPACE_BEGIN

namespace testing::detail {

inline double dot(const Tensor<double>& a, const Tensor<double>& b) {
    double sum = 0;
    for (Index i = 0; i < a.size(); ++i) sum += a.data()[i] * b.data()[i];
    return sum;
}

/// A direction of unit length in which a tensor is moved: one entry, or the entries [begin, end) with random signs.
struct Direction {
    Index begin = 0;
    Index end = 0;
    std::uint64_t seed = 0;
    std::uint32_t stream = 0;

    [[nodiscard]] bool is_entry() const { return end - begin == 1; }
    [[nodiscard]] double at(Index i) const {
        if (i < begin || i >= end) return 0;
        if (is_entry()) return 1;
        const auto words = random_words(seed, Stream::synthetic, 1, stream, static_cast<std::uint32_t>(i));
        return ((words[0] & 1U) != 0 ? 1 : -1) / std::sqrt(static_cast<double>(end - begin));
    }
    /// The derivative in this direction, by the gradient.
    [[nodiscard]] double along(const Tensor<double>& gradient) const {
        double sum = 0;
        for (Index i = begin; i < end; ++i) sum += gradient.data()[i] * at(i);
        return sum;
    }
    [[nodiscard]] std::string name(const Shape& shape) const {
        if (!is_entry()) return "a direction over all entries";
        std::string indices;
        Index rest = begin;
        for (Index d = shape.rank() - 1; d >= 0; --d) {
            indices = text(rest % shape[d], indices.empty() ? "" : ", ", indices);
            rest /= shape[d];
        }
        return text("entry (", indices, ")");
    }
};

/// Single entries spread at random, then directions over all entries; of a small tensor every entry.
inline std::vector<Direction> directions_of(Index size, std::uint32_t stream, const GradcheckOptions& options) {
    std::vector<Direction> result;
    const bool whole = size <= options.entries;
    for (Index i = 0; i < std::min(size, options.entries); ++i) {
        const auto words = random_words(options.seed, Stream::synthetic, 2, stream, static_cast<std::uint32_t>(i));
        const Index entry = whole ? i : static_cast<Index>(uniform_below(words[0], static_cast<std::uint32_t>(size)));
        result.push_back({entry, entry + 1, options.seed, stream});
    }
    for (Index i = 0; i < (whole ? 0 : options.directions); ++i) {
        result.push_back({0, size, options.seed, stream * 1000U + static_cast<std::uint32_t>(i) + 1U});
    }
    return result;
}

/// Directional derivatives by central differences with step h.
template <class Device>
std::vector<double> differences(Checked<double, Device>& checked, Tensor<double, Device>& value,
                                const std::vector<Direction>& directions, const Tensor<double>& dy, double h) {
    const Tensor<double> before = to_host(value).clone();
    Tensor<double> moved = before.clone();
    std::vector<double> result;
    for (const Direction& direction : directions) {
        const auto loss_at = [&](double distance) {
            for (Index i = 0; i < moved.size(); ++i) moved.data()[i] = before.data()[i] + distance * direction.at(i);
            value.write(moved.data());
            return dot(dy, checked.forward());
        };
        const double above = loss_at(h);
        result.push_back((above - loss_at(-h)) / (2 * h));
    }
    value.write(before.data());
    return result;
}

/// Directional derivatives by dual numbers, Dual::directions at a time.
inline std::vector<double> dual_derivatives(Checked<Dual>& checked, Tensor<Dual>& value,
                                            const std::vector<Direction>& directions, const Tensor<double>& dy) {
    std::vector<double> result;
    for (std::size_t first = 0; first < directions.size(); first += Dual::directions) {
        const std::size_t count = std::min(Dual::directions, directions.size() - first);
        for (Index i = 0; i < value.size(); ++i) {
            for (std::size_t k = 0; k < count; ++k) value.data()[i].slope[k] = directions[first + k].at(i);
        }
        const Tensor<Dual> y = checked.forward();
        for (std::size_t k = 0; k < count; ++k) {
            double sum = 0;
            for (Index i = 0; i < y.size(); ++i) sum += dy.data()[i] * y.data()[i].slope[k];
            result.push_back(sum);
        }
        for (Index i = 0; i < value.size(); ++i) value.data()[i].slope = {};  // last: y may be the input itself
    }
    return result;
}

/// The single entry of a wrong direction that is most to blame: of eight parts the worst, again and again.
/// right(directions) are the derivatives as the judge sees them.
template <class Judge>
Direction narrowed(Direction direction, const Tensor<double>& gradient, const Judge& right) {
    while (!direction.is_entry()) {
        const Index step = (direction.end - direction.begin + 7) / 8;
        std::vector<Direction> parts;
        for (Index begin = direction.begin; begin < direction.end; begin += step) {
            parts.push_back({begin, std::min(begin + step, direction.end), direction.seed, direction.stream});
        }
        const std::vector<double> expected = right(parts);
        double worst = -1;
        for (std::size_t k = 0; k < parts.size(); ++k) {
            const double length = std::sqrt(static_cast<double>(parts[k].end - parts[k].begin));
            const double error = std::abs(parts[k].along(gradient) - expected[k]) * length;
            if (error <= worst) continue;  // a part with NaN is taken
            worst = !is_finite(error) ? HUGE_VAL : error;
            direction = parts[k];
        }
    }
    return direction;
}

/// Compares one tensor's gradient with both judges.
template <class Device>
GradcheckRow check_tensor(Checked<double, Device>& checked, Checked<Dual>& twin, std::size_t index,
                          const Tensor<double>& gradient, const Tensor<double>& dy, const GradcheckOptions& options) {
    Tensor<double, Device>& value = *checked.variables()[index].value;
    const auto by_differences = [&](double step) {
        return [&, step](const std::vector<Direction>& along) { return differences(checked, value, along, dy, step); };
    };
    const auto by_dual_numbers = [&](const std::vector<Direction>& along) {
        return dual_derivatives(twin, *twin.variables()[index].value, along, dy);
    };
    const auto directions = directions_of(value.size(), static_cast<std::uint32_t>(index), options);
    const std::vector<double> exact = by_dual_numbers(directions);
    const std::vector<double> near = by_differences(options.step)(directions);
    const std::vector<double> far = by_differences(2 * options.step)(directions);

    GradcheckRow row{.tensor = checked.variables()[index].name, .probes = static_cast<Index>(directions.size())};
    double largest = 1e-3;
    for (const double entry : gradient) largest = std::max(largest, std::abs(entry));
    for (const double entry : exact) largest = std::max(largest, std::abs(entry));
    const auto relative = [&](double error) { return !is_finite(error) ? HUGE_VAL : std::abs(error) / largest; };
    double worst = -1;
    Direction where;
    for (std::size_t i = 0; i < directions.size(); ++i) {
        const double ours = directions[i].along(gradient);
        const bool at_a_kink = std::abs(near[i] - far[i]) / largest > options.difference_tolerance;
        const double difference_error = at_a_kink ? 0 : relative(ours - near[i]);
        const double dual_error = relative(ours - exact[i]);
        row.kinks += at_a_kink ? 1 : 0;
        row.difference_error = std::max(row.difference_error, difference_error);
        row.dual_error = std::max(row.dual_error, dual_error);
        if (std::max(difference_error, dual_error) > worst) {
            worst = std::max(difference_error, dual_error);
            where = directions[i];
        }
    }
    if (directions.empty()) return row;
    const bool dual_fails = row.dual_error > options.dual_tolerance;
    const bool differences_fail = row.difference_error > options.difference_tolerance;
    if (dual_fails) where = narrowed(where, gradient, by_dual_numbers);
    if (differences_fail && !dual_fails) where = narrowed(where, gradient, by_differences(options.step));
    row.where = where.name(value.shape());
    row.backward = where.along(gradient);
    row.expected =
        (differences_fail && !dual_fails ? by_differences(options.step)({where}) : by_dual_numbers({where}))[0];
    return row;
}

}  // namespace testing::detail

SD_NAMESPACE_END
