// What a kernel reads, a vector of channels at a time, with everything pending applied.
#pragma once

#include "sd/core/pending_gradient.hpp"
#include "sd/cpu/simd.hpp"

#include <tuple>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Extents of a batch of images.
struct Extents {
    Index samples, height, width, channels;
};

/// A batch of images in memory. Pixels may overlap.
struct ImageView {
    Extents extents;
    Index sample_stride, row_stride, pixel_stride;

    ImageView(const Shape& shape)  // NOLINT(google-explicit-constructor)
        : extents{shape[0], shape[1], shape[2], shape[3]},
          sample_stride(shape[1] * shape[2] * shape[3]),
          row_stride(shape[2] * shape[3]),
          pixel_stride(shape[3]) {}
    ImageView(const Extents& image, Index sample, Index row, Index pixel)
        : extents(image), sample_stride(sample), row_stride(row), pixel_stride(pixel) {}

    /// Where a pixel begins.
    [[nodiscard, gnu::always_inline]] Index element(Index sample, Index row, Index column) const {
        return sample * sample_stride + row * row_stride + column * pixel_stride;
    }
};

/// The values of a pending tensor, a vector at a time.
template <class T>
class PendingSource {
public:
    explicit PendingSource(const Pending<T>& x) : PendingSource(x, x.shape()) {}
    /// The same elements seen as another image.
    PendingSource(const Pending<T>& x, const ImageView& view)
        : raw_(x.raw.data()), scale_(x.scale.data()), shift_(x.shift.data()), relu_(x.relu), view_(view) {}

    [[nodiscard]] const Extents& extents() const { return view_.extents; }
    [[nodiscard]] Index element(Index sample, Index row, Index column) const {
        return view_.element(sample, row, column);
    }
    void prefetch_line(Index element) const { prefetch(raw_ + element); }

    /// Calls use(vector_at), where vector_at(element, channel, count) gives the `count` values that start there; the
    /// cases are told apart here, once for a slab.
    template <class Use>
    void with_vectors(const Use& use) const {
        const T* raw = raw_;
        const T* scale = scale_;
        const T* shift = shift_;
        const auto scaled = [=](Index element, Index channel, Index count) {
            return load_some(scale + channel, count) * load_some(raw + element, count) +
                   load_some(shift + channel, count);
        };
        if (scale == nullptr && !relu_) {
            use([=](Index element, Index, Index count) { return load_some(raw + element, count); });
        } else if (scale == nullptr) {
            use([=](Index element, Index, Index count) { return rectified<T>(load_some(raw + element, count)); });
        } else if (relu_) {
            use([=](Index element, Index channel, Index count) {
                return rectified<T>(scaled(element, channel, count));
            });
        } else {
            use(scaled);
        }
    }

private:
    const T* raw_;
    const T* scale_;
    const T* shift_;
    bool relu_;
    ImageView view_;
};

/// The values of a pending gradient, a vector at a time; as PendingSource.
template <class T>
class GradientSource {
public:
    explicit GradientSource(const PendingGradient<T>& dy)
        : dy_(dy.dy.data()),
          z_(dy.y.raw.data()),
          scale_(dy.y.scale.data()),
          shift_(dy.y.shift.data()),
          center_(dy.center.data()),
          slope_(dy.slope.data()),
          offset_(dy.offset.data()),
          relu_(dy.y.relu),
          view_(dy.shape()) {}

    [[nodiscard]] const Extents& extents() const { return view_.extents; }
    [[nodiscard]] Index element(Index sample, Index row, Index column) const {
        return view_.element(sample, row, column);
    }
    void prefetch_line(Index element) const {
        prefetch(dy_ + element);
        if (z_ != nullptr) prefetch(z_ + element);
    }

    template <class Use>
    void with_vectors(const Use& use) const {
        const auto [dy, z, scale, shift, center, slope, offset] =
            std::tuple(dy_, z_, scale_, shift_, center_, slope_, offset_);
        const auto through_batch_norm = [=](Index element, Index channel, Index count, bool relu) {
            const Vector<T> raw = load_some(z + element, count);
            const Vector<T> factor = load_some(scale + channel, count);
            Vector<T> g = load_some(dy + element, count);
            if (relu) g = factor * raw + load_some(shift + channel, count) > Vector<T>{} ? g : Vector<T>{};
            return factor * g + load_some(slope + channel, count) * (raw - load_some(center + channel, count)) +
                   load_some(offset + channel, count);
        };
        if (z == nullptr) {
            use([=](Index element, Index, Index count) { return load_some(dy + element, count); });
        } else if (relu_) {
            use([=](Index element, Index channel, Index count) {
                return through_batch_norm(element, channel, count, true);
            });
        } else {
            use([=](Index element, Index channel, Index count) {
                return through_batch_norm(element, channel, count, false);
            });
        }
    }

private:
    const T* dy_;
    const T* z_;
    const T* scale_;
    const T* shift_;
    const T* center_;
    const T* slope_;
    const T* offset_;
    bool relu_;
    ImageView view_;
};

}  // namespace cpu

SD_NAMESPACE_END
