// What a kernel reads, a vector of channels at a time, with everything pending applied.
#pragma once

#include "sd/core/pending_gradient.hpp"
#include "sd/cpu/vector_activation.hpp"

#include <array>
#include <type_traits>

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

/// Numbers of the channels of `blocks` neighbouring vectors.
template <class T, Index blocks>
struct ChannelBlocks {
    /// Those that stand there, `count` lanes of a single vector.
    template <class Count>
    ChannelBlocks(const accumulate_t<T>* from, Count count) {
        for (Index b = 0; b < blocks; ++b) vectors[b] = load_some(from + b * lanes<T>, count);
    }
    /// The same number for all.
    explicit ChannelBlocks(accumulate_t<T> value) {
        for (Vector<T>& vector : vectors) vector = Vector<T>{} + value;
    }
    [[nodiscard, gnu::always_inline]] const Vector<T>& operator[](Index block) const { return vectors[block]; }

    Vector<T> vectors[blocks];
};

/// SampleFactors of the channels of `blocks` neighbouring vectors.
template <class T, Index blocks>
struct FactorBlocks {
    FactorBlocks(const SampleFactors<T>& factors, Index channel, Index count) {
        for (Index b = 0; b < blocks; ++b) vectors[b] = factors.of_channels(channel + b * lanes<T>, count);
    }
    [[nodiscard]] explicit operator bool() const { return static_cast<bool>(vectors[0]); }
    /// Those of a block, for an element of the first one.
    [[nodiscard, gnu::always_inline]] Vector<T> at(Index element, Index block) const {
        return vectors[block].at(element);
    }

    SampleFactors<T> vectors[blocks];
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

    [[nodiscard]] const ImageView& view() const { return view_; }
    /// The tensors that an element is read from, nullptr for a second one that is not there.
    [[nodiscard]] std::array<const T*, 2> tensors() const { return {raw_, nullptr}; }

    /// Calls use(value_at), where value_at(element, constant<b>) gives the values of block b of channels, for the pixel
    /// whose `channel` stands at the element: block 0 begins with it and each has a vector, or a single one `count`
    /// channels. What the pixels share is loaded here, once. The count is a constant where it is known.
    template <Index blocks, class Count, class Use>
    void with_channels(Index channel, std::integral_constant<Index, blocks>, Count count, const Use& use) const {
        using Channels = ChannelBlocks<T, blocks>;
        const T* raw = raw_;
        const auto stored = [=](Index element, auto b) { return load_some(raw + element + b * lanes<T>, count); };
        if (gate_ || !has_own_path(activation_)) {
            const Channels scale = scale_ == nullptr ? Channels(A(1)) : Channels(scale_ + channel, count);
            const Channels shift = scale_ == nullptr ? Channels(A(0)) : Channels(shift_ + channel, count);
            use([=, activation = activation_, gate = FactorBlocks<T, blocks>(gate_, channel, count)](Index element,
                                                                                                     auto b) {
                const Vector<T> value = activated<A>(activation, scale[b] * stored(element, b) + shift[b]);
                return gate ? gate.at(element, b) * value : value;
            });
        } else if (scale_ == nullptr && activation_ == Activation::none) {
            use(stored);
        } else if (scale_ == nullptr) {
            use([=](Index element, auto b) { return rectified<T>(stored(element, b)); });
        } else {
            const Channels scale(scale_ + channel, count);
            const Channels shift(shift_ + channel, count);
            if (activation_ == Activation::relu) {
                use([=](Index element, auto b) { return rectified<T>(scale[b] * stored(element, b) + shift[b]); });
            } else {
                use([=](Index element, auto b) { return scale[b] * stored(element, b) + shift[b]; });
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

    [[nodiscard]] const ImageView& view() const { return view_; }
    [[nodiscard]] std::array<const T*, 2> tensors() const { return {dy_, z_}; }

    template <Index blocks, class Count, class Use>
    void with_channels(Index channel, std::integral_constant<Index, blocks>, Count count, const Use& use) const {
        using Channels = ChannelBlocks<T, blocks>;
        const T* dy = dy_;
        const T* z = z_;
        const auto stored = [=](const T* from, Index element, auto b) {
            return load_some(from + element + b * lanes<T>, count);
        };
        if (z == nullptr) {
            use([=](Index element, auto b) { return stored(dy, element, b); });
            return;
        }
        const Channels scale(scale_ + channel, count), shift(shift_ + channel, count), center(center_ + channel, count),
            slope(slope_ + channel, count), offset(offset_ + channel, count);
        if (gate_ || !has_own_path(activation_)) {
            use([=, activation = activation_, gate = FactorBlocks<T, blocks>(gate_, channel, count),
                 common = FactorBlocks<T, blocks>(common_, channel, count)](Index element, auto b) {
                const Vector<T> raw = stored(z, element, b);
                Vector<T> upstream = stored(dy, element, b);
                if (gate) upstream = gate.at(element, b) * upstream + common.at(element, b);
                const Vector<T> g = gradient_before<A>(activation, upstream, scale[b] * raw + shift[b]);
                return scale[b] * g + slope[b] * (raw - center[b]) + offset[b];
            });
        } else if (activation_ == Activation::relu) {
            use([=](Index element, auto b) {
                const Vector<T> raw = stored(z, element, b);
                const Vector<T> g = gradient_before_relu<T>(stored(dy, element, b), scale[b] * raw + shift[b]);
                return scale[b] * g + slope[b] * (raw - center[b]) + offset[b];
            });
        } else {
            use([=](Index element, auto b) {
                const Vector<T> raw = stored(z, element, b);
                return scale[b] * stored(dy, element, b) + slope[b] * (raw - center[b]) + offset[b];
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
