// Extents of a tensor, at most four.
#pragma once

#include "sd/core/error.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <ostream>
#include <string>

SD_NAMESPACE_BEGIN

/// Every extent, offset and count of elements.
using Index = std::ptrdiff_t;

/// The extents of a contiguous tensor, outermost first. Images are (N, H, W, C); convolution weights are (O, I, H, W);
/// a matrix is (rows, columns); the empty shape is a scalar.
/// Throws std::invalid_argument for more than four extents, a negative one, or more elements than an Index can count.
class Shape {
public:
    /// The largest number of dimensions.
    static constexpr Index max_rank = 4;

    Shape() = default;
    /// A shape of these extents, outermost first. Throws std::invalid_argument for more than max_rank, a negative
    /// extent, or a product that does not fit an Index.
    Shape(std::initializer_list<Index> extents) : Shape(extents.begin(), extents.end()) {}

    /// The same from a range.
    template <class Iterator>
    Shape(Iterator first, Iterator last) {
        for (; first != last; ++first) append(static_cast<Index>(*first));
    }

    /// The number of dimensions.
    [[nodiscard]] Index rank() const { return rank_; }

    /// Extent i, 0 <= i < rank().
    [[nodiscard]] Index operator[](Index i) const {
        if (i < 0 || i >= rank_) refuse("Shape", "dimension", i, text("0 to ", rank_ - 1));
        return extents_[static_cast<std::size_t>(i)];
    }

    /// The number of elements: the product of the extents, 1 for a scalar.
    [[nodiscard]] Index size() const { return size_; }

    /// The outermost extent.
    [[nodiscard]] const Index* begin() const { return extents_.data(); }
    /// Past the innermost extent.
    [[nodiscard]] const Index* end() const { return extents_.data() + rank_; }

    /// Equal if all extents are.
    friend bool operator==(const Shape& a, const Shape& b) {
        return std::equal(a.begin(), a.end(), b.begin(), b.end());
    }

    /// Prints "(2, 3)".
    friend std::ostream& operator<<(std::ostream& out, const Shape& shape) {
        out << '(';
        for (Index i = 0; i < shape.rank(); ++i) out << (i ? ", " : "") << std::to_string(shape[i]);
        return out << ')';
    }

private:
    void append(Index extent) {
        if (rank_ == max_rank) refuse("Shape", "rank", "more than 4 extents", "at most 4");
        if (extent < 0) refuse("Shape", "extent", extent, "0 or more");
        // An extent of 0 must not hide an overflow in the others, so the product is taken over max(extent, 1).
        const Index factor = std::max<Index>(extent, 1);
        if (capacity_ > std::numeric_limits<Index>::max() / 64 / factor) {
            refuse("Shape", "number of elements", text(capacity_, " x ", factor), "a count that fits memory");
        }
        capacity_ *= factor;
        size_ *= extent;
        extents_[static_cast<std::size_t>(rank_++)] = extent;
    }

    std::array<Index, max_rank> extents_{};
    Index rank_ = 0;
    Index size_ = 1;
    Index capacity_ = 1;
};

/// The shape with another first extent: as many samples of the same kind.
[[nodiscard]] inline Shape with_samples(const Shape& shape, Index samples) {
    std::array<Index, static_cast<std::size_t>(Shape::max_rank)> extents{samples};
    if (shape.rank() == 0) refuse("with_samples", "shape", shape, "at least one dimension");
    std::copy(shape.begin() + 1, shape.end(), extents.begin() + 1);
    return {extents.begin(), extents.begin() + shape.rank()};
}

/// Refuses a shape that is not the expected one.
inline void expect_shape(const char* where, const char* what, const Shape& got, const Shape& expected) {
    if (!(got == expected)) refuse(where, text("shape of ", what), got, expected);
}

/// Refuses a shape of another rank.
inline void expect_rank(const char* where, const char* what, const Shape& got, Index rank) {
    if (got.rank() != rank) refuse(where, text("shape of ", what), got, text(rank, " dimensions"));
}

SD_NAMESPACE_END
