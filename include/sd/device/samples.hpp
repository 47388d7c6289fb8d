// Whole samples of a batch on a device: gathered, added, cleared.
//
// A block of threads works on one sample, so one entry of a selection decides for all of it: a sample that is not
// selected is never read, and costs no memory traffic.
#pragma once

#include "sd/core/join.hpp"
#include "sd/device/pending.hpp"

#include <algorithm>
#include <span>

SD_NAMESPACE_BEGIN

namespace cuda {

/// The extents of a batch of samples with channels last.
struct Samples {
    Index count, pixels, channels;

    explicit Samples(const Shape& shape)
        : count(shape[0]), pixels(1), channels(shape.rank() > 1 ? shape[shape.rank() - 1] : 1) {
        for (Index i = 1; i + 1 < shape.rank(); ++i) pixels *= shape[i];
    }
};

/// A sweep over the pixels of each sample.
struct SampleSweep {
    Sweep pixels;
    Index samples;

    /// A thread's rows in a block are a multiple of this, which ReluBits rely on.
    static constexpr Index turns = 8;

    SampleSweep(const Samples& extents, int width, Index most_row_blocks = Index{1} << 24)
        : pixels(extents.pixels, extents.channels, width, turns), samples(extents.count) {
        if (pixels.row_blocks > most_row_blocks) {
            pixels.cut(turns * quotient_up(pixels.turns_of(most_row_blocks), turns));
        }
    }

    [[nodiscard]] Index blocks() const { return samples * pixels.blocks(); }
    /// The sample of a block.
    [[nodiscard]] SD_HOST_DEVICE Index sample(Thread thread) const {
        return thread.block / (pixels.row_blocks * pixels.groups);
    }
    /// A thread's place among the pixels of its sample.
    [[nodiscard]] SD_HOST_DEVICE SweepPlace place(Thread thread) const {
        return pixels.place({thread.block % (pixels.row_blocks * pixels.groups), thread.index});
    }
    /// The first element of a sample.
    [[nodiscard]] SD_HOST_DEVICE Index first(Index n) const { return n * pixels.rows * pixels.channels; }
};

/// Starts Kernel<T, width>{sweep, arguments...} over the pixels of samples.
template <Accelerator Device, class T, template <class, int> class Kernel, class... Arguments>
void launch_sample_sweep(const Samples& extents, const Arguments&... arguments) {
    with_width<T>(extents.channels, [&](auto width) {
        const SampleSweep sweep(extents, width);
        launch<Device>(Kernel<T, width()>{sweep, arguments...}, sweep.blocks());
    });
}

/// Numbers of samples on the device; undefined for none.
template <Accelerator Device>
[[nodiscard]] Tensor<Index, Device> uploaded(std::span<const Index> numbers) {
    if (numbers.empty()) return {};
    auto tensor = Tensor<Index, Device>::empty({static_cast<Index>(numbers.size())});
    tensor.write(numbers.data());
    return tensor;
}

/// Which sample of the branch joins sample n: the entry of a selection, or n itself without one.
struct Selection {
    const Index* samples;
    [[nodiscard]] SD_HOST_DEVICE Index operator()(Index n) const { return samples == nullptr ? n : samples[n]; }
};

/// Sets the named samples of x to zero; -1 names none.
template <class T, int width>
struct ClearSamples {
    SampleSweep sweep;  ///< over as many samples as are named
    const Index* samples;
    T* x;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        Pack<T, width> zeros;
        for (int i = 0; i < width; ++i) zeros.value[i] = T(accumulate_t<T>(0));
        const Index sample = samples[sweep.sample(thread)];
        if (sample < 0) return;
        T* const slab = x + sweep.first(sample);
        sweep.pixels.for_each_row(at, [&](Index, Index element) { store<width>(zeros, slab + element); });
    }
};

/// y_n = x_{samples[n]}, or a_n + x_{samples[n]} if there is an a, and a_n alone where samples[n] is -1.
template <class T, int width>
struct SelectSamples {
    using A = accumulate_t<T>;
    SampleSweep sweep;
    Selection selection;
    const T* x;
    const T* a;  ///< or nullptr
    T* y;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const SweepPlace at = sweep.place(thread);
        if (!at.active) return;
        const Index own_first = sweep.first(sweep.sample(thread));
        const Index sample = selection(sweep.sample(thread));
        sweep.pixels.for_each_row(at, [&](Index, Index element) {
            Pack<T, width> result;
            if (sample >= 0) result = load<width>(x + sweep.first(sample) + element);
            if (a != nullptr) {
                const Pack<T, width> own = load<width>(a + own_first + element);
                for (int i = 0; i < width; ++i) {
                    result.value[i] = sample < 0 ? own.value[i] : T(A(A(own.value[i]) + A(result.value[i])));
                }
            }
            store<width>(result, y + own_first + element);
        });
    }
};

}  // namespace cuda

/// The named samples of x, in the given order, with room for a rounded number of them, see cuda/sample_room.hpp.
/// Throws std::invalid_argument for an index outside x.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> gather_samples(const Tensor<T, Device>& x, std::span<const Index> samples) {
    detail::expect_gathered(samples, x.extent(0));
    const auto count = static_cast<Index>(samples.size());
    auto y = cuda::empty_with_cleared_room<T, Device>(with_samples(x.shape(), count),
                                                      std::max(count, cuda::rounded_samples(count, x.extent(0))));
    const auto selection = cuda::uploaded<Device>(samples);
    cuda::launch_sample_sweep<Device, T, cuda::SelectSamples>(
        cuda::Samples(y.shape()), cuda::Selection{selection.data()}, x.data(), nullptr, y.data());
    return y;
}

/// y_n = a_n + b_{b_sample[n]}, or a_n where b_sample[n] is -1.
/// Throws std::invalid_argument if shapes or indices do not fit.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> add_selected(const Tensor<T, Device>& a, const Tensor<T, Device>& b,
                                             BranchSamples b_sample) {
    detail::expect_joinable("add_selected", "b", b.shape(), a.shape(), b_sample);
    auto y = Tensor<T, Device>::empty(a.shape());
    const auto selection = cuda::uploaded<Device>(b_sample);
    cuda::launch_sample_sweep<Device, T, cuda::SelectSamples>(
        cuda::Samples(a.shape()), cuda::Selection{selection.data()}, b.data(), a.data(), y.data());
    return y;
}

SD_NAMESPACE_END
