// A slab: the part of an image that one task reads, with everything pending applied, zeros in the padding, and channels
// in blocks of one vector:
//
//     image   (row, column, channel)                 channels contiguous
//     slab    (block, row, column, lane)             channel = block * lanes + lane
//
// Neighbouring pixels of a block lie `lanes` elements apart, whatever the number of channels, so a register tile walks
// over pixels by constants; and a pixel of a block is one vector, so a slab serves as either factor of a product.
#pragma once

#include "sd/core/pending.hpp"
#include "sd/cpu/simd.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Where a slab lies in its image and in memory. Rows and columns may begin before the image and end after it.
struct SlabShape {
    Index sample = 0;
    Index first_row = 0, row_step = 1, rows = 0;
    Index first_column = 0, column_step = 1, columns = 0;
    Index first_channel = 0, channels = 0;

    /// Elements between the blocks. A plane of 4096 bytes or a multiple would put all blocks into one set of the cache.
    template <class T>
    [[nodiscard]] Index plane() const {
        const Index pixels = rows * columns;
        return (pixels + (pixels * vector_bytes % 4096 == 0 ? 1 : 0)) * lanes<T>;
    }
    template <class T>
    [[nodiscard]] Index blocks() const {
        return quotient_up(channels, lanes<T>);
    }
    /// Elements of the slab, with room for a tile that reads `slack` pixels past the end.
    template <class T>
    [[nodiscard]] Index size(Index slack) const {
        return blocks<T>() * plane<T>() + slack * lanes<T>;
    }
};

/// The values of a pending tensor, a vector at a time.
template <class T>
class PendingSource {
public:
    explicit PendingSource(const Pending<T>& x)
        : raw_(x.raw.data()), scale_(x.scale.data()), shift_(x.shift.data()), relu_(x.relu), shape_(x.shape()) {}

    [[nodiscard]] const Shape& shape() const { return shape_; }
    [[nodiscard]] T scalar(Index element, Index channel) const {
        T value = raw_[element];
        if (scale_ != nullptr) value = scale_[channel] * value + shift_[channel];
        return relu_ && value < T(0) ? T(0) : value;
    }

    /// Calls use(vector_at) with a function from (element, channel) to the vector that starts there; the cases are told
    /// apart here, once for a slab.
    template <class Use>
    void with_vectors(const Use& use) const {
        const T* raw = raw_;
        const T* scale = scale_;
        const T* shift = shift_;
        const auto rectified = [](const Vector<T>& value) { return value < Vector<T>{} ? Vector<T>{} : value; };
        const auto scaled = [=](Index element, Index channel) {
            return load(scale + channel) * load(raw + element) + load(shift + channel);
        };
        if (scale == nullptr && !relu_) {
            use([=](Index element, Index) { return load(raw + element); });
        } else if (scale == nullptr) {
            use([=](Index element, Index) { return rectified(load(raw + element)); });
        } else if (relu_) {
            use([=](Index element, Index channel) { return rectified(scaled(element, channel)); });
        } else {
            use(scaled);
        }
    }

private:
    const T* raw_;
    const T* scale_;
    const T* shift_;
    bool relu_;
    Shape shape_;
};

/// Fills a slab from a source. Lanes beyond the last channel are zero.
template <class T, class Source>
void pack_slab(const Source& source, const SlabShape& slab, T* target) {
    const Index height = source.shape()[1];
    const Index width = source.shape()[2];
    const Index channels = source.shape()[3];
    const Index plane = slab.plane<T>();
    const Index whole_blocks = slab.channels / lanes<T>;
    const Index blocks = slab.blocks<T>();
    source.with_vectors([&](const auto& vector_at) {
        for (Index r = 0; r < slab.rows; ++r) {
            const Index row = slab.first_row + r * slab.row_step;
            for (Index c = 0; c < slab.columns; ++c) {
                const Index column = slab.first_column + c * slab.column_step;
                T* to = target + (r * slab.columns + c) * lanes<T>;
                if (row < 0 || row >= height || column < 0 || column >= width) {
                    for (Index b = 0; b < blocks; ++b, to += plane) store(Vector<T>{}, to);
                    continue;
                }
                Index channel = slab.first_channel;
                Index element = ((slab.sample * height + row) * width + column) * channels + channel;
                for (Index b = 0; b < whole_blocks; ++b, to += plane, channel += lanes<T>, element += lanes<T>) {
                    store(vector_at(element, channel), to);
                }
                if (whole_blocks < blocks) {
                    const Index rest = slab.channels - whole_blocks * lanes<T>;
                    for (Index lane = 0; lane < lanes<T>; ++lane) {
                        to[lane] = lane < rest ? source.scalar(element + lane, channel + lane) : T(0);
                    }
                }
            }
        }
    });
}

}  // namespace cpu

SD_NAMESPACE_END
