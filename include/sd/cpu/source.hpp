// What a kernel reads, a vector of channels at a time, with everything pending applied.
#pragma once

#include "sd/core/pending_gradient.hpp"
#include "sd/cpu/vector_activation.hpp"

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

/// Factors of each sample's channels, looked up by the element that they are for. Elements mostly come in order, so the
/// last sample's are kept at hand.
template <class T>
class SampleFactors {
public:
    /// No factors.
    SampleFactors() = default;
    /// Factors (N, C), or an undefined tensor, of N samples that lie one behind the other in so many elements.
    SampleFactors(const Tensor<T>& factors, Index elements) {
        if (factors.size() == 0) return;
        factors_ = factors.data();
        channels_ = factors.extent(1);
        sample_size_ = elements / factors.extent(0);
    }

    [[nodiscard]] explicit operator bool() const { return factors_ != nullptr; }

    /// Those of channels [channel, channel + count), at most a vector.
    [[nodiscard]] SampleFactors of_channels(Index channel, Index count) const {
        SampleFactors result = *this;
        if (factors_ != nullptr) result.factors_ += channel;
        result.count_ = count;
        result.first_ = -sample_size_;  // no element is in that sample
        return result;
    }

    /// Those of the sample that the element is in.
    [[nodiscard, gnu::always_inline]] Vector<T> at(Index element) const {
        if (element < first_ || element >= first_ + sample_size_) find(element);
        return current_;
    }

private:
    [[gnu::noinline]] void find(Index element) const {
        const Index sample = element / sample_size_;
        first_ = sample * sample_size_;
        current_ = load_some(factors_ + sample * channels_, count_);
    }

    const T* factors_ = nullptr;
    Index channels_ = 0, sample_size_ = 0, count_ = 0;
    mutable Index first_ = 0;
    mutable Vector<T> current_ = {};
};

/// The values of a pending tensor, a vector at a time.
template <class T>
class PendingSource {
    using A = accumulate_t<T>;

public:
    using Stored = T;

    explicit PendingSource(const Pending<T>& x) : PendingSource(x, x.shape()) {}
    /// The same elements seen as another image.
    PendingSource(const Pending<T>& x, const ImageView& view)
        : raw_(x.raw.data()),
          scale_(x.scale.data()),
          shift_(x.shift.data()),
          activation_(x.activation),
          gate_(x.gate, x.raw.size()),
          view_(view) {}

    [[nodiscard]] const Extents& extents() const { return view_.extents; }
    [[nodiscard]] Index element(Index sample, Index row, Index column) const {
        return view_.element(sample, row, column);
    }
    void prefetch_line(Index element) const { prefetch(raw_ + element); }

    /// Calls use(value_at), where value_at(element) gives the values of channels [channel, channel + count), at most a
    /// vector, of the pixel whose `channel` stands at the element. What the channels share is loaded here, once. The
    /// count is a constant where it is known.
    template <class Count, class Use>
    void with_channels(Index channel, Count count, const Use& use) const {
        const T* raw = raw_;
        if (gate_ || !has_own_path(activation_)) {
            const Vector<T> scale = scale_ == nullptr ? Vector<T>{} + A(1) : load_some(scale_ + channel, count);
            const Vector<T> shift = scale_ == nullptr ? Vector<T>{} : load_some(shift_ + channel, count);
            use([=, activation = activation_, gate = gate_.of_channels(channel, count)](Index element) {
                const Vector<T> value = activated<A>(activation, scale * load_some(raw + element, count) + shift);
                return gate ? gate.at(element) * value : value;
            });
        } else if (scale_ == nullptr && activation_ == Activation::none) {
            use([=](Index element) { return load_some(raw + element, count); });
        } else if (scale_ == nullptr) {
            use([=](Index element) { return rectified<T>(load_some(raw + element, count)); });
        } else {
            const Vector<T> scale = load_some(scale_ + channel, count);
            const Vector<T> shift = load_some(shift_ + channel, count);
            if (activation_ == Activation::relu) {
                use([=](Index element) { return rectified<T>(scale * load_some(raw + element, count) + shift); });
            } else {
                use([=](Index element) { return scale * load_some(raw + element, count) + shift; });
            }
        }
    }

private:
    const T* raw_;
    const A* scale_;
    const A* shift_;
    Activation activation_;
    SampleFactors<T> gate_;
    ImageView view_;
};

/// The values of a pending gradient, a vector at a time; as PendingSource.
template <class T>
class GradientSource {
    using A = accumulate_t<T>;

public:
    using Stored = T;

    explicit GradientSource(const PendingGradient<T>& dy)
        : dy_(dy.dy.data()),
          z_(dy.y.raw.data()),
          scale_(dy.y.scale.data()),
          shift_(dy.y.shift.data()),
          center_(dy.center.data()),
          slope_(dy.slope.data()),
          offset_(dy.offset.data()),
          activation_(dy.y.activation),
          gate_(dy.gate.factor, dy.dy.size()),
          common_(dy.gate.common, dy.dy.size()),
          view_(dy.shape()) {}

    [[nodiscard]] const Extents& extents() const { return view_.extents; }
    [[nodiscard]] Index element(Index sample, Index row, Index column) const {
        return view_.element(sample, row, column);
    }
    void prefetch_line(Index element) const {
        prefetch(dy_ + element);
        if (z_ != nullptr) prefetch(z_ + element);
    }

    template <class Count, class Use>
    void with_channels(Index channel, Count count, const Use& use) const {
        const T* dy = dy_;
        const T* z = z_;
        if (z == nullptr) {
            use([=](Index element) { return load_some(dy + element, count); });
            return;
        }
        const Vector<T> scale = load_some(scale_ + channel, count);
        const Vector<T> shift = load_some(shift_ + channel, count);
        const Vector<T> center = load_some(center_ + channel, count);
        const Vector<T> slope = load_some(slope_ + channel, count);
        const Vector<T> offset = load_some(offset_ + channel, count);
        if (gate_ || !has_own_path(activation_)) {
            use([=, activation = activation_, gate = gate_.of_channels(channel, count),
                 common = common_.of_channels(channel, count)](Index element) {
                const Vector<T> raw = load_some(z + element, count);
                Vector<T> upstream = load_some(dy + element, count);
                if (gate) upstream = gate.at(element) * upstream + common.at(element);
                const Vector<T> g = gradient_before<A>(activation, upstream, scale * raw + shift);
                return scale * g + slope * (raw - center) + offset;
            });
        } else if (activation_ == Activation::relu) {
            use([=](Index element) {
                const Vector<T> raw = load_some(z + element, count);
                const Vector<T> g = load_some(dy + element, count);
                return scale * gradient_before_relu<T>(g, scale * raw + shift) + slope * (raw - center) + offset;
            });
        } else {
            use([=](Index element) {
                const Vector<T> raw = load_some(z + element, count);
                return scale * load_some(dy + element, count) + slope * (raw - center) + offset;
            });
        }
    }

private:
    const T* dy_;
    const T* z_;
    const A* scale_;
    const A* shift_;
    const A* center_;
    const A* slope_;
    const A* offset_;
    Activation activation_;
    SampleFactors<T> gate_, common_;
    ImageView view_;
};

}  // namespace cpu

SD_NAMESPACE_END
