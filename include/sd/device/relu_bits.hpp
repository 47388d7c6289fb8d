// Where a ReLU let its input through, a bit an element: a sixteenth of the bytes of bfloat16, a 32nd of float's.
//
// A thread of a sweep has `width` channels of a row, less than a byte's bits for all but 16-bit types. So a byte holds
// those of a thread in 8 / width of its rows, one after the other, and every byte is one thread's:
//
//     byte (sample, group of rows, place of the row in the group, vector of channels)
//     its bits:   | row: width channels | row + rows_at_once: width channels | ...
//
// The layout is a function of type, pixels and channels. Blocks of rows begin at whole bytes, however the sweep that
// writes and the one that reads are cut.
#pragma once

#include "sd/device/samples.hpp"

#include <cstdint>

SD_NAMESPACE_BEGIN

namespace cuda {

/// Where y > 0, for y of that shape; no bytes if there was no ReLU.
template <Accelerator Device>
struct ReluBits {
    Shape shape;
    Tensor<std::uint8_t, Device> bytes;
};

/// Where a thread's bytes are: the first one, and how far the next is.
template <int width>
struct BitPlace {
    static constexpr int rows_of_byte = 8 / width;
    Index first, step;

    SD_HOST_DEVICE BitPlace(const SampleSweep& sweep, Index sample, const SweepPlace& at)
        : step(sweep.pixels.rows_at_once * (sweep.pixels.channels / width)) {
        const Index group = at.row / sweep.pixels.rows_at_once / rows_of_byte;
        const Index row = (sample * groups(sweep.pixels) + group) * sweep.pixels.rows_at_once + at.row_thread;
        first = row * (sweep.pixels.channels / width) + at.channel / width;
    }
    /// Bytes of all samples.
    [[nodiscard]] static Index bytes(const SampleSweep& sweep) {
        return sweep.samples * groups(sweep.pixels) * sweep.pixels.rows_at_once * (sweep.pixels.channels / width);
    }

private:
    [[nodiscard]] static SD_HOST_DEVICE Index groups(const Sweep& pixels) {
        return quotient_up(pixels.rows, Index{pixels.rows_at_once} * rows_of_byte);
    }
};

/// Bytes that hold a bit for each element of T of a batch.
template <class T, Accelerator Device>
[[nodiscard]] Tensor<std::uint8_t, Device> empty_relu_bits(const Samples& extents) {
    Index bytes = 0;
    with_width<T>(extents.channels, [&](auto width) { bytes = BitPlace<width()>::bytes(SampleSweep(extents, width)); });
    return Tensor<std::uint8_t, Device>::empty({bytes});
}

/// Writes the bits of a thread's rows, in the order of for_each_row; not to be used without bytes.
template <int width>
class BitWriter {
public:
    SD_HOST_DEVICE BitWriter(std::uint8_t* bytes, const BitPlace<width>& place)
        : next_(bytes == nullptr ? nullptr : bytes + place.first), step_(place.step) {}

    /// Bit i of `bits` is channel i's.
    SD_HOST_DEVICE void put(unsigned bits) {
        byte_ |= bits << (turn_ * width);
        if (++turn_ == BitPlace<width>::rows_of_byte) finish();
    }
    /// After the last row.
    SD_HOST_DEVICE void finish() {
        if (turn_ == 0) return;
        *next_ = static_cast<std::uint8_t>(byte_);
        next_ += step_;
        byte_ = 0;
        turn_ = 0;
    }

private:
    std::uint8_t* next_;
    Index step_;
    unsigned byte_ = 0;
    int turn_ = 0;
};

/// Reads them in that order; not to be used without bytes.
template <int width>
class BitReader {
public:
    SD_HOST_DEVICE BitReader(const std::uint8_t* bytes, const BitPlace<width>& place)
        : next_(bytes == nullptr ? nullptr : bytes + place.first), step_(place.step) {}

    /// The next row's: bit i is channel i's.
    [[nodiscard]] SD_HOST_DEVICE unsigned get() {
        if (turn_ == 0) {
            byte_ = *next_;
            next_ += step_;
        }
        const unsigned bits = byte_ >> (turn_ * width);
        if (++turn_ == BitPlace<width>::rows_of_byte) turn_ = 0;
        return bits;
    }

private:
    const std::uint8_t* next_;
    Index step_;
    unsigned byte_ = 0;
    int turn_ = 0;
};

}  // namespace cuda

SD_NAMESPACE_END
