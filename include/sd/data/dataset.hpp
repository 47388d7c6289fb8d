// What a data set is, and one that is held in memory.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/shape.hpp"

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// A labelled set of images of one shape.
///
///     size()            how many samples
///     num_classes()     labels are 0 to num_classes() - 1
///     image_shape()     (H, W, C)
///     read(i, image)    writes the H * W * C values of sample i as floats, channels contiguous
///     label(i)          the class of sample i
///
/// All are const and are called by several threads at once; i is 0 to size() - 1.
template <class D>
concept Dataset = requires(const D& dataset, Index i, float* image) {
    { dataset.size() } -> std::convertible_to<Index>;
    { dataset.num_classes() } -> std::convertible_to<Index>;
    { dataset.image_shape() } -> std::convertible_to<Shape>;
    dataset.read(i, image);
    { dataset.label(i) } -> std::convertible_to<Index>;
};

/// Which part of a data set.
enum class Split {
    train,  ///< what to learn from
    test    ///< what to be judged by
};

/// Mean and standard deviation of each channel, of pixels scaled to [0, 1].
struct Normalization {
    std::vector<float> mean;       ///< (C), finite
    std::vector<float> deviation;  ///< (C), finite and above 0
};

/// The normalised value of each byte, a table a channel, rounded once from double:
///
///     value(c, byte) = (byte / 255 - mean(c)) / deviation(c)
class NormalizedBytes {
public:
    /// `where` names the caller in errors. Throws std::invalid_argument for means or deviations that are not one a
    /// channel, not finite, or for a deviation that is not above 0.
    NormalizedBytes(const std::string& where, const Normalization& normalization, Index channels) {
        const auto expect_one_each = [&](const char* what, std::size_t count) {
            if (static_cast<Index>(count) != channels) refuse(where, what, count, text(channels, ", one a channel"));
        };
        expect_one_each("number of means", normalization.mean.size());
        expect_one_each("number of deviations", normalization.deviation.size());
        values_.resize(normalization.mean.size());
        for (std::size_t c = 0; c < values_.size(); ++c) {
            const double mean = normalization.mean[c];
            const double deviation = normalization.deviation[c];
            if (!is_finite(mean)) refuse(where, text("mean of channel ", c), mean, "a finite number");
            if (!is_finite(deviation) || deviation <= 0) {
                refuse(where, text("deviation of channel ", c), deviation, "a finite number above 0");
            }
            for (std::size_t byte = 0; byte < 256; ++byte) {
                const double value = (static_cast<double>(byte) / 255 - mean) / deviation;
                if (!is_in_range(value, -largest_number<float>, largest_number<float>)) {
                    refuse(where, text("normalised value ", byte, " of channel ", c), value, "one that a float can be");
                }
                values_[c][byte] = static_cast<float>(value);
            }
        }
    }

    /// Writes the values of `size` bytes, pixel after pixel, channels contiguous.
    void apply(const std::uint8_t* bytes, Index size, float* values) const {
        const auto channels = static_cast<Index>(values_.size());
        for (Index first = 0; first < size; first += channels) {
            for (Index c = 0; c < channels; ++c) {
                values[first + c] = values_[static_cast<std::size_t>(c)][bytes[first + c]];
            }
        }
    }

private:
    std::vector<std::array<float, 256>> values_;
};

/// Images of bytes, given out as
///
///     image(h, w, c) = (byte(h, w, c) / 255 - mean(c)) / deviation(c)
class InMemoryDataset {
public:
    /// shape (H, W, C) with extents of 1 or more; pixels (N, H, W, C); N labels, 0 to num_classes - 1.
    /// Throws std::invalid_argument if anything does not fit.
    InMemoryDataset(const Shape& shape, std::vector<std::uint8_t> pixels, std::vector<Index> labels, Index num_classes,
                    const Normalization& normalization)
        : shape_(checked_shape(shape)),
          pixels_(std::move(pixels)),
          labels_(std::move(labels)),
          num_classes_(num_classes),
          values_("InMemoryDataset", normalization, shape_[2]) {
        if (num_classes_ < 1) refuse("InMemoryDataset", "number of classes", num_classes_, "1 or more");
        // By division: the number of labels times the size of an image may be more than an Index can count.
        const auto image_size = static_cast<std::size_t>(shape_.size());
        if (pixels_.size() % image_size != 0 || pixels_.size() / image_size != labels_.size()) {
            refuse("InMemoryDataset", "number of pixel values", pixels_.size(),
                   text(labels_.size(), " labels x ", image_size, " for shape ", shape_));
        }
        for (std::size_t i = 0; i < labels_.size(); ++i) {
            if (labels_[i] < 0 || labels_[i] >= num_classes_) {
                refuse("InMemoryDataset", text("label of sample ", i), labels_[i], text("0 to ", num_classes_ - 1));
            }
        }
    }

    /// The number of samples.
    [[nodiscard]] Index size() const { return static_cast<Index>(labels_.size()); }
    /// The number of classes.
    [[nodiscard]] Index num_classes() const { return num_classes_; }

    /// (H, W, C)
    [[nodiscard]] const Shape& image_shape() const { return shape_; }

    /// Writes the H * W * C normalised values of sample i. Throws std::invalid_argument if there is no sample i.
    void read(Index i, float* image) const {
        check_sample(i);
        values_.apply(pixels_.data() + i * shape_.size(), shape_.size(), image);
    }

    /// The class of sample i. Throws std::invalid_argument if there is no sample i.
    [[nodiscard]] Index label(Index i) const {
        check_sample(i);
        return labels_[static_cast<std::size_t>(i)];
    }

private:
    static const Shape& checked_shape(const Shape& shape) {
        expect_rank("InMemoryDataset", "an image", shape, 3);
        if (shape.size() < 1) refuse("InMemoryDataset", "shape of an image", shape, "extents of 1 or more");
        return shape;
    }

    void check_sample(Index i) const {
        if (i < 0 || i >= size()) refuse("InMemoryDataset", "sample", i, text("0 to ", size() - 1));
    }

    Shape shape_;
    std::vector<std::uint8_t> pixels_;
    std::vector<Index> labels_;
    Index num_classes_;
    NormalizedBytes values_;
};

SD_NAMESPACE_END
