// How kernels store what they compute.
#pragma once

#include "sd/core/tensor.hpp"
#include "sd/cpu/simd.hpp"

#include <type_traits>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Outputs too large for the caches to keep go past them.
inline constexpr Index streamed_bytes = Index{24} << 20;

/// A target tensor and how its vectors are stored. Whoever puts calls stream_fence() at the end of its part.
template <class T>
class Target {
public:
    /// All channels are written together.
    explicit Target(Tensor<T>& target) : Target(target.data(), is_streamed(target)) {}
    /// `channels` of the last dimension are written together, a line of some pixels after the other. Those of a group may
    /// be half a line of the cache, which past the caches would cost more than a whole one.
    Target(Tensor<T>& target, Index channels)
        : Target(target.data(), is_streamed(target) && whole_lines &&
                                    (channels == target.extent(target.rank() - 1) ||
                                     channels * static_cast<Index>(sizeof(T)) % 64 == 0)) {}
    /// Elements that go past the caches, or do not.
    Target(T* data, bool streamed) : data_(data), streamed_(streamed) {}

    /// Stores the first `count` lanes at an element.
    [[gnu::always_inline]] void put(const Vector<T>& values, Index element, Index count) const {
        if (streamed_ && count == lanes<T> && element % lanes<T> == 0) {
            stream<T>(values, data_ + element);
        } else {
            store_some<T>(values, data_ + element, count);
        }
    }

    /// Stores neighbouring vectors of columns.
    template <Index count>
    [[gnu::always_inline]] void put(const Vector<T> (&values)[count], Index element) const {
        if (streamed_ && element % (count * lanes<T>) == 0) {
            stream_vectors<T>(values, data_ + element);
        } else {
            store_vectors<T>(values, data_ + element);
        }
    }

private:
    static constexpr bool whole_lines =
        !std::is_same_v<T, bfloat16> || line_vectors<T> * lanes<T> * static_cast<Index>(sizeof(T)) == 64;

    [[nodiscard]] static bool is_streamed(const Tensor<T>& target) {
        return target.size() * static_cast<Index>(sizeof(T)) > streamed_bytes &&
               target.extent(target.rank() - 1) % (line_vectors<T> * lanes<T>) == 0;
    }

    T* data_;
    bool streamed_;
};

}  // namespace cpu

SD_NAMESPACE_END
