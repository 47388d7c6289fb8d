// Convolution by its definition, every sum in a fixed order: for types and shapes that no library has, and the device's
// oracle for those that it has.
#pragma once

#include "sd/core/window.hpp"
#include "sd/device/elementwise.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// Where an element of images (N, H, W, C) stands.
struct ImageElement {
    Index n, h, w, c;
    SD_HOST_DEVICE ImageElement(Index element, Index height, Index width, Index channels)
        : n(element / channels / width / height),
          h(element / channels / width % height),
          w(element / channels % width),
          c(element % channels) {}
};

/// An element of y: the sum over taps, then channels.
template <class T>
struct DirectForward {
    using A = accumulate_t<T>;
    Conv2dGeometry g;
    const T* x;
    const A* weight;
    T* y;

    SD_HOST_DEVICE void operator()(Index element) const {
        const auto [n, oh, ow, o] = ImageElement(element, g.out_height, g.out_width, g.out_channels);
        A sum = A(0);
        for (Index kh = 0; kh < g.kernel_height; ++kh) {
            const Index h = oh * g.options.stride - g.options.padding + kh * g.options.dilation;
            if (h < 0 || h >= g.in_height) continue;
            for (Index kw = 0; kw < g.kernel_width; ++kw) {
                const Index w = ow * g.options.stride - g.options.padding + kw * g.options.dilation;
                if (w < 0 || w >= g.in_width) continue;
                const T* values =
                    x + ((n * g.in_height + h) * g.in_width + w) * g.in_channels + o / g.group_out * g.group_in;
                for (Index i = 0; i < g.group_in; ++i) {
                    sum += weight[((o * g.group_in + i) * g.kernel_height + kh) * g.kernel_width + kw] * A(values[i]);
                }
            }
        }
        y[element] = T(sum);
    }
};

/// An element of dx: the sum over the taps that met it forward, then output channels.
template <class T>
struct DirectByInput {
    using A = accumulate_t<T>;
    Conv2dGeometry g;
    const T* dy;
    const A* weight;
    T* dx;

    SD_HOST_DEVICE void operator()(Index element) const {
        const auto [n, h, w, c] = ImageElement(element, g.in_height, g.in_width, g.in_channels);
        const Index first_o = c / g.group_in * g.group_out;
        A sum = A(0);
        for (Index kh = 0; kh < g.kernel_height; ++kh) {
            const Index row = h + g.options.padding - kh * g.options.dilation;
            const Index oh = row / g.options.stride;
            if (row < 0 || oh * g.options.stride != row || oh >= g.out_height) continue;
            for (Index kw = 0; kw < g.kernel_width; ++kw) {
                const Index column = w + g.options.padding - kw * g.options.dilation;
                const Index ow = column / g.options.stride;
                if (column < 0 || ow * g.options.stride != column || ow >= g.out_width) continue;
                const T* upstream = dy + ((n * g.out_height + oh) * g.out_width + ow) * g.out_channels;
                for (Index o = first_o; o < first_o + g.group_out; ++o) {
                    const Index tap = ((o * g.group_in + c % g.group_in) * g.kernel_height + kh) * g.kernel_width + kw;
                    sum += weight[tap] * A(upstream[o]);
                }
            }
        }
        dx[element] = T(sum);
    }
};

/// dweight, an element a block: each thread sums every 256th pixel, then the threads are summed in order.
template <class T>
struct DirectByWeight {
    using A = accumulate_t<T>;
    static constexpr int phases = 2;
    struct Shared {
        A part[block_threads];
    };
    Conv2dGeometry g;
    const T *x, *dy;
    A* dweight;

    SD_HOST_DEVICE void operator()(Phase<0>, Thread thread, Shared& shared) const {
        const Index kw = thread.block % g.kernel_width;
        const Index kh = thread.block / g.kernel_width % g.kernel_height;
        const Index i = thread.block / g.kernel_width / g.kernel_height % g.group_in;
        const Index o = thread.block / g.kernel_width / g.kernel_height / g.group_in;
        const Index c = o / g.group_out * g.group_in + i;
        A sum = A(0);
        for (Index pixel = thread.index; pixel < g.batch * g.out_height * g.out_width; pixel += block_threads) {
            const Index h =
                pixel / g.out_width % g.out_height * g.options.stride - g.options.padding + kh * g.options.dilation;
            const Index w = pixel % g.out_width * g.options.stride - g.options.padding + kw * g.options.dilation;
            if (h < 0 || h >= g.in_height || w < 0 || w >= g.in_width) continue;
            const Index n = pixel / g.out_width / g.out_height;
            sum +=
                A(dy[pixel * g.out_channels + o]) * A(x[((n * g.in_height + h) * g.in_width + w) * g.in_channels + c]);
        }
        shared.part[thread.index] = sum;
    }
    SD_HOST_DEVICE void operator()(Phase<1>, Thread thread, Shared& shared) const {
        if (thread.index == 0) dweight[thread.block] = sum_of_block(shared.part);
    }
};

/// The three products of a convolution on plain tensors.
template <class T, class Device>
struct DirectConv2d {
    using A = accumulate_t<T>;

    /// y = x * weight.
    static void forward(const Conv2dGeometry& g, const Tensor<T, Device>& x, const Tensor<A, Device>& weight,
                        Tensor<T, Device>& y) {
        launch_each<Device>(y.size(), DirectForward<T>{g, x.data(), weight.data(), y.data()});
    }
    /// The gradient by x.
    static void by_input(const Conv2dGeometry& g, const Tensor<T, Device>& dy, const Tensor<A, Device>& weight,
                         Tensor<T, Device>& dx) {
        launch_each<Device>(dx.size(), DirectByInput<T>{g, dy.data(), weight.data(), dx.data()});
    }
    /// The gradient by the weights.
    static void by_weight(const Conv2dGeometry& g, const Tensor<T, Device>& x, const Tensor<T, Device>& dy,
                          Tensor<A, Device>& dweight) {
        launch<Device>(DirectByWeight<T>{g, x.data(), dy.data(), dweight.data()}, dweight.size());
    }
};

/// Those that a device uses. One with a library for some T specialises it.
template <class T, class Device>
struct Conv2dEngine : DirectConv2d<T, Device> {};

}  // namespace cuda

SD_NAMESPACE_END
