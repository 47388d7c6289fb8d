// Batch normalisation: statistics forward, sums and gradient by input backward.
// S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training", ICML 2015.
//
// The values of a channel are cut into chunks of rows by the problem's size alone. Each chunk is summed by one thread
// and the chunks are merged in order, so the results have the same bits for any number of threads.
#pragma once

#include "sd/core/moments.hpp"
#include "sd/core/parallel.hpp"
#include "sd/core/pending_gradient.hpp"
#include "sd/cpu/merge_rows.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/cpu/vector_activation.hpp"
#include "sd/reference/batch_norm.hpp"

SD_NAMESPACE_BEGIN

using reference::batch_moments;
using reference::batch_norm_by_input;
using reference::batch_norm_factors;
using reference::batch_norm_sums;
using reference::update_running_statistics;

/// Mean and squared deviations of every channel (the last dimension) of x. With no values, zeros and a count of 0.
template <cpu::Vectorized T>
[[nodiscard]] Moments<accumulate_t<T>> batch_moments(const Tensor<T>& x) {
    const Index channels = x.extent(x.rank() - 1);
    using A = accumulate_t<T>;
    using cpu::load_some;
    Moments<A> moments{0, Tensor<A>(Shape{channels}), Tensor<A>(Shape{channels})};
    if (x.size() == 0) return moments;
    const Index rows = x.size() / channels;
    const Index grain = cpu::sweep_rows(channels);
    const Index chunks = cpu::quotient_up(rows, grain);

    Tensor<A> partial(Shape{chunks, 2, channels});
    parallel_ranges(rows, grain, [&](Index first, Index last) {
        A* mean = partial.data() + first / grain * 2 * channels;
        A* m2 = mean + channels;
        for (Index row = first; row < last; ++row) {
            const T* value = x.data() + row * channels;
            cpu::for_each_vector<T>(channels, [&](Index c, auto some) {
                cpu::store_some<A>(load_some(mean + c, some) + load_some(value + c, some), mean + c, some);
            });
        }
        const A count = static_cast<A>(last - first);
        for (Index c = 0; c < channels; ++c) mean[c] /= count;
        for (Index row = first; row < last; ++row) {  // the chunk is still in the cache
            const T* value = x.data() + row * channels;
            cpu::for_each_vector<T>(channels, [&](Index c, auto some) {
                const cpu::Vector<T> deviation = load_some(value + c, some) - load_some(mean + c, some);
                cpu::store_some<A>(load_some(m2 + c, some) + deviation * deviation, m2 + c, some);
            });
        }
    });

    moments.count = rows;
    parallel_ranges(channels, 64, [&](Index first, Index last) {
        for (Index c = first; c < last; ++c) {
            double mean = 0;
            double m2 = 0;
            for (Index chunk = 0; chunk < chunks; ++chunk) {
                const Index count = std::min(grain, rows - chunk * grain);
                const A* part = partial.data() + chunk * 2 * channels;
                detail::merge_moments(chunk * grain, mean, m2, count, static_cast<double>(part[c]),
                                      static_cast<double>(part[channels + c]));
            }
            moments.mean.data()[c] = static_cast<A>(mean);
            moments.m2.data()[c] = static_cast<A>(m2);
        }
    });
    return moments;
}

namespace cpu {

/// The two sums of batch norm's backward over some rows of pixels, a vector of channels at a time. y is batch norm's
/// output with z as raw values.
template <class T>
class RowSums {
    using A = accumulate_t<T>;

public:
    /// Sums into dweight and dbias (C), which begin as zeros.
    RowSums(const Pending<T>& y, const Tensor<A>& mean, A* dweight, A* dbias)
        : scale_(y.scale.data()),
          shift_(y.shift.data()),
          center_(mean.data()),
          activation_(y.activation),
          dweight_(dweight),
          dbias_(dbias) {
        std::fill_n(dweight, y.channels(), A(0));
        std::fill_n(dbias, y.channels(), A(0));
    }

    /// Takes in the gradient by y and the value of z at `count` channels from c on.
    [[gnu::always_inline]] void add(const Vector<T>& dy, const Vector<T>& z, Index c, Index count) {
        if (activation_ == Activation::none) {
            add_gradient(dy, z, c, count);
        } else if (activation_ == Activation::relu) {
            add_gradient(gradient_before_relu<T>(dy, before_activation(z, c, count)), z, c, count);
        } else {
            add_any(dy, z, c, count);
        }
    }

private:
    [[nodiscard, gnu::always_inline]] Vector<T> before_activation(const Vector<T>& z, Index c, Index count) const {
        return load_some(scale_ + c, count) * z + load_some(shift_ + c, count);
    }
    [[gnu::always_inline]] void add_gradient(const Vector<T>& g, const Vector<T>& z, Index c, Index count) {
        store_some<A>(load_some(dbias_ + c, count) + g, dbias_ + c, count);
        store_some<A>(load_some(dweight_ + c, count) + g * (z - load_some(center_ + c, count)), dweight_ + c, count);
    }
    [[gnu::noinline]] void add_any(Vector<T> dy, Vector<T> z, Index c, Index count) {
        add_gradient(gradient_before<A>(activation_, dy, before_activation(z, c, count)), z, c, count);
    }

    const A* scale_;
    const A* shift_;
    const A* center_;
    Activation activation_;
    A* dweight_;
    A* dbias_;
};

/// Adds up partial sums (chunks, 2, C) of deviations and of gradients, in order.
template <class A>
[[nodiscard]] BatchNormSums<A> merge_row_sums(const Tensor<A>& partial, const Tensor<A>& inverse_std) {
    const Index channels = partial.extent(2);
    const Tensor<double> total = merged_rows(partial.reshape({partial.extent(0), 2 * channels}));
    BatchNormSums<A> sums{Tensor<A>::empty({channels}), Tensor<A>::empty({channels})};
    for (Index c = 0; c < channels; ++c) {
        sums.dweight.data()[c] = static_cast<A>(total.data()[c] * static_cast<double>(inverse_std.data()[c]));
        sums.dbias.data()[c] = static_cast<A>(total.data()[channels + c]);
    }
    return sums;
}

}  // namespace cpu

/// The sums of batch norm's backward:
///
///     g = dy act'(scale z + shift), act the activation that follows
///     dbias = sum g,    dweight = sum g (z - mean) inverse_std
///
/// Throws std::invalid_argument if shapes do not fit.
template <cpu::Vectorized T>
[[nodiscard]] BatchNormSums<accumulate_t<T>> batch_norm_sums(const Tensor<T>& dy, const BatchNormPass<T>& pass) {
    detail::expect_batch_norm_pass("batch_norm_sums", pass, dy.shape());
    using A = accumulate_t<T>;
    const Pending<T>& y = pass.y;
    const Index channels = y.channels();
    const Index rows = channels == 0 ? 0 : dy.size() / channels;
    const Index grain = cpu::sweep_rows(channels);
    Tensor<A> partial = Tensor<A>::empty({cpu::quotient_up(rows, grain), 2, channels});
    parallel_ranges(rows, grain, [&](Index first, Index last) {
        A* dweight = partial.data() + first / grain * 2 * channels;
        cpu::RowSums<T> sums(y, pass.mean, dweight, dweight + channels);
        for (Index row = first; row < last; ++row) {
            cpu::for_each_vector<T>(channels, [&](Index c, auto count) {
                const Index element = row * channels + c;
                sums.add(cpu::load_some(dy.data() + element, count), cpu::load_some(y.raw.data() + element, count), c,
                         count);
            });
        }
    });
    return cpu::merge_row_sums(partial, pass.inverse_std);
}

SD_NAMESPACE_END
