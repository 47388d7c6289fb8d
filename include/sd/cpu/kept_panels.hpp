// Panels of weights that are kept while the weights are the same.
#pragma once

#include "sd/core/kept_weights.hpp"
#include "sd/core/parallel.hpp"
#include "sd/cpu/weights.hpp"

#include <algorithm>
#include <cstring>
#include <memory>

SD_NAMESPACE_BEGIN

namespace cpu {

/// A number that tells what it was made of apart: of other bytes it is another, but for a chance of 2^-64.
class Fingerprint {
public:
    /// Adds a number.
    void add(std::uint64_t value) {
        sum_ = (sum_ ^ value) * 0x9E3779B97F4A7C15U;
        sum_ ^= sum_ >> 32;
    }
    /// Adds the bytes of numbers, in parallel.
    template <class T>
    void add(const T* values, Index count) {
        constexpr Index range = Index{1} << 15;
        const Index ranges = quotient_up(count, range);
        PooledVector<std::uint64_t> parts(static_cast<std::size_t>(ranges));
        parallel_for(ranges, [&](Index i) {
            parts[static_cast<std::size_t>(i)] =
                of_bytes(reinterpret_cast<const char*>(values + i * range),
                         std::min(range, count - i * range) * static_cast<Index>(sizeof(T)));
        });
        add(static_cast<std::uint64_t>(count));
        for (const std::uint64_t part : parts) add(part);
    }
    [[nodiscard]] std::uint64_t value() const { return sum_; }

private:
    using Lanes [[gnu::vector_size(64)]] = std::uint32_t;
    static constexpr Index sums = 4;  // that do not wait for each other

    // Each step is a bijection of its lane, so that one changed word is never missed; the shift brings its high bits,
    // signs among them, to where a product spreads them.
    [[nodiscard]] static std::uint64_t of_bytes(const char* bytes, Index count) {
        Lanes lanes[sums] = {};
        const auto add_lanes = [&](const char* from, Index i) {
            Lanes words;
            std::memcpy(&words, from, sizeof words);
            lanes[i] = (lanes[i] ^ words) * 0x9E3779B1U;
            lanes[i] ^= lanes[i] >> 15;
        };
        constexpr Index size = sizeof(Lanes);
        for (; count >= sums * size; count -= sums * size, bytes += sums * size) {
            for (Index i = 0; i < sums; ++i) add_lanes(bytes + i * size, i);
        }
        for (Index i = 0; count > 0; ++i, count -= size, bytes += size) {
            char rest[size] = {};
            std::memcpy(rest, bytes, static_cast<std::size_t>(std::min(size, count)));
            add_lanes(rest, i);
        }
        Fingerprint all;
        for (const Lanes& sum : lanes) {
            for (std::size_t i = 0; i < sizeof(Lanes) / sizeof(std::uint32_t); ++i) all.add(sum[i]);
        }
        return all.value();
    }

    std::uint64_t sum_ = 0;
};

/// Where the products of a convolution get their panels from: those that are kept, or new ones.
template <class T>
class PanelSource {
public:
    /// Of weights, each column times its factor if factors are given; with nullptr for `kept` all panels are new.
    PanelSource(KeptWeights* kept, const Tensor<T>& weight, const T* factors, Index factor_count)
        : kept_(kept), weight_(weight), factors_(factors) {
        if (kept_ == nullptr) return;
        numbers_.add(weight.data(), weight.size());
        if (factors != nullptr) numbers_.add(factors, factor_count);
    }

    /// Of the group whose columns begin with this one.
    [[nodiscard]] PanelSource of_group(Index group, Index first_column) const {
        PanelSource result = *this;
        result.group_ = static_cast<std::size_t>(group);
        if (factors_ != nullptr) result.factors_ += first_column;
        return result;
    }

    [[nodiscard]] const Tensor<T>& weight() const { return weight_; }
    [[nodiscard]] const T* factors() const { return factors_; }

    /// The panels of a map, `width` columns in each, that make() packs.
    template <class Panels, class Make>
    [[nodiscard]] std::shared_ptr<const Panels> panels(const WeightMap& map, Index width, const Make& make) const {
        if (kept_ == nullptr) return sd::detail::pooled_shared<Panels>(make());
        Fingerprint key = numbers_;
        key.add(static_cast<std::uint64_t>(width));
        key.add(map.depth.data(), map.depth_count());
        key.add(map.columns.data(), map.column_count());
        key.add(map.taps.data(), map.tap_count());
        return kept_->get<Panels>(group_, key.value(), make);
    }

private:
    KeptWeights* kept_;
    const Tensor<T>& weight_;
    const T* factors_;
    Fingerprint numbers_;
    std::size_t group_ = 0;
};

}  // namespace cpu

SD_NAMESPACE_END
