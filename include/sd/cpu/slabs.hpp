// How sweeps over a batch of samples are cut, where a sample is the unit that something belongs to.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/shape.hpp"
#include "sd/cpu/pending.hpp"

#include <algorithm>

SD_NAMESPACE_BEGIN

namespace cpu {

/// The extents of a batch of samples with channels last.
struct Slabs {
    Index samples, pixels, channels;

    explicit Slabs(const Shape& shape)
        : samples(shape[0]), pixels(1), channels(shape.rank() > 1 ? shape[shape.rank() - 1] : 1) {
        for (Index i = 1; i + 1 < shape.rank(); ++i) pixels *= shape[i];
    }

    [[nodiscard]] Index size() const { return pixels * channels; }

    /// Samples are cut into pieces of pixels.
    [[nodiscard]] Index grain() const { return sweep_rows(channels); }
    [[nodiscard]] Index pieces_of_sample() const { return quotient_up(pixels, grain()); }
    [[nodiscard]] Index pieces() const { return samples * pieces_of_sample(); }
    /// The number of the piece that begins at a pixel of sample n.
    [[nodiscard]] Index piece(Index n, Index first_pixel) const {
        return n * pieces_of_sample() + first_pixel / grain();
    }

    /// Calls body(n, first pixel, last pixel) for all samples in pieces, in parallel; bodies may stream.
    template <class Body>
    void for_each_piece(const Body& body) const {
        parallel_for(pieces(), [&](Index number) {
            const Index first = number % pieces_of_sample() * grain();
            body(number / pieces_of_sample(), first, std::min(first + grain(), pixels));
            stream_fence();
        });
    }
};

}  // namespace cpu

SD_NAMESPACE_END
