// Sums over the pixels of each sample's channel: by pieces of samples, which are merged in order.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/cpu/simd.hpp"
#include "sd/cpu/slabs.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Pixels whose rows stay in the first-level cache while sums of one vector of channels after the other are taken.
inline constexpr Index summed_pixels = 16;

/// Sums `parts` numbers of each sample's channel over its pixels, times a factor: (N, parts, C). add(element, pixels, c,
/// count, sums) adds those of `pixels` pixels to sums[0..parts), for channels [c, c + count), at most a vector, whose first
/// pixel begins at the element.
template <class T, Index parts, class Add>
[[nodiscard]] Tensor<accumulate_t<T>> sums_of_samples(const Shape& shape, double factor, const Add& add) {
    using A = accumulate_t<T>;
    const Slabs slabs(shape);
    const Index channels = slabs.channels;
    Tensor<A> partial(Shape{slabs.pieces(), parts, channels});
    slabs.for_each_piece([&](Index n, Index first, Index last) {
        A* target = partial.data() + slabs.piece(n, first) * parts * channels;
        for (Index begin = first; begin < last; begin += summed_pixels) {
            const Index pixels = std::min(summed_pixels, last - begin);
            for_each_vector<T>(channels, [&](Index c, auto count) {
                Vector<T> sums[parts];
                for (Index k = 0; k < parts; ++k) sums[k] = load_some(target + k * channels + c, count);
                add((n * slabs.pixels + begin) * channels + c, pixels, c, count, sums);
                for (Index k = 0; k < parts; ++k) store_some<A>(sums[k], target + k * channels + c, count);
            });
        }
    });
    Tensor<A> merged = Tensor<A>::empty({slabs.samples, parts, channels});
    parallel_for(slabs.samples, [&](Index n) {
        for (Index i = 0; i < parts * channels; ++i) {
            double sum = 0;
            for (Index piece = 0; piece < slabs.pieces_of_sample(); ++piece) {
                const Index part = n * slabs.pieces_of_sample() + piece;
                sum += static_cast<double>(partial.data()[part * parts * channels + i]);
            }
            merged.data()[n * parts * channels + i] = static_cast<A>(sum * factor);
        }
    });
    return merged;
}

}  // namespace cpu

SD_NAMESPACE_END
