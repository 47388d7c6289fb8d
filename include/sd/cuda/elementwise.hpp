// Kernels whose elements know nothing of each other.
#pragma once

#include "sd/core/parameter.hpp"
#include "sd/cuda/pending.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// target(i) = operation(i) for `width` elements a thread.
template <class T, int width, class Operation>
struct Elementwise {
    Line line;
    Operation operation;
    T* target;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index first = line.first(thread);
        if (first >= line.size) return;
        store<width>(operation.template values<width>(first), target + first);
    }
};

/// Starts an elementwise operation.
template <Accelerator Device, class T, class Operation>
void launch_elementwise(const Operation& operation, Index size, T* target) {
    with_width<T>(size, [&](auto width) {
        const Line line{size, width};
        launch<Device>(Elementwise<T, width(), Operation>{line, operation, target}, line.blocks());
    });
}

template <class T>
struct Fill {
    T value;
    template <int width>
    [[nodiscard]] SD_HOST_DEVICE Pack<T, width> values(Index) const {
        Pack<T, width> result;
        for (int i = 0; i < width; ++i) result.value[i] = value;
        return result;
    }
};

template <class T>
struct Add {
    const T *a, *b;
    template <int width>
    [[nodiscard]] SD_HOST_DEVICE Pack<T, width> values(Index first) const {
        using A = accumulate_t<T>;
        const Pack<T, width> x = load<width>(a + first);
        const Pack<T, width> y = load<width>(b + first);
        Pack<T, width> result;
        for (int i = 0; i < width; ++i) result.value[i] = T(A(x.value[i]) + A(y.value[i]));
        return result;
    }
};

template <class T>
struct Scale {
    const T* x;
    accumulate_t<T> factor;
    template <int width>
    [[nodiscard]] SD_HOST_DEVICE Pack<T, width> values(Index first) const {
        Pack<T, width> result = load<width>(x + first);
        for (int i = 0; i < width; ++i) result.value[i] = T(accumulate_t<T>(accumulate_t<T>(result.value[i]) * factor));
        return result;
    }
};

/// Copies elements that may lie anywhere, one a thread.
template <class T>
struct CopyElements {
    const T* source;
    Index count;
    T* target;
    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index i = thread.block * block_threads + thread.index;
        if (i < count) target[i] = source[i];
    }
};

template <class T>
struct ReluForward {
    const T* x;
    template <int width>
    [[nodiscard]] SD_HOST_DEVICE Pack<T, width> values(Index first) const {
        using A = accumulate_t<T>;
        Pack<T, width> result = load<width>(x + first);
        for (int i = 0; i < width; ++i) result.value[i] = T(activated(true, A(result.value[i])));
        return result;
    }
};

template <class T>
struct ReluByInput {
    const T *dy, *y;
    template <int width>
    [[nodiscard]] SD_HOST_DEVICE Pack<T, width> values(Index first) const {
        using A = accumulate_t<T>;
        const Pack<T, width> output = load<width>(y + first);
        Pack<T, width> result = load<width>(dy + first);
        for (int i = 0; i < width; ++i) {
            if (!passes(true, A(output.value[i]))) result.value[i] = T(A(0));
        }
        return result;
    }
};

template <class T, class From>
struct Convert {
    const From* x;
    template <int width>
    [[nodiscard]] SD_HOST_DEVICE Pack<T, width> values(Index first) const {
        Pack<T, width> result;
        for (int i = 0; i < width; ++i) {
            result.value[i] = T(static_cast<accumulate_t<T>>(accumulate_t<From>(x[first + i])));
        }
        return result;
    }
};

}  // namespace cuda

/// sum += term; shapes are equal.
template <class T, cuda::Accelerator Device>
void add_to(Tensor<T, Device>& sum, const Tensor<T, Device>& term) {
    cuda::launch_elementwise<Device>(cuda::Add<T>{sum.data(), term.data()}, sum.size(), sum.data());
}

/// x *= factor, element by element.
template <class T, cuda::Accelerator Device>
void scale_by(Tensor<T, Device>& x, const accumulate_t<T>& factor) {
    cuda::launch_elementwise<Device>(cuda::Scale<T>{x.data(), factor}, x.size(), x.data());
}

/// Copies `count` elements from element `source_first` on to element `target_first` on.
template <class T, cuda::Accelerator Device>
void copy_elements(const Tensor<T, Device>& source, Index source_first, Index count, Tensor<T, Device>& target,
                   Index target_first) {
    cuda::launch<Device>(cuda::CopyElements<T>{source.data() + source_first, count, target.data() + target_first},
                         cuda::quotient_up(count, cuda::block_threads));
}

/// y = max(x, 0).
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> relu_forward(const Tensor<T, Device>& x) {
    auto y = Tensor<T, Device>::empty(x.shape());
    cuda::launch_elementwise<Device>(cuda::ReluForward<T>{x.data()}, x.size(), y.data());
    return y;
}

/// dx = dy where y > 0, else 0.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> relu_by_input(const Tensor<T, Device>& dy, const Tensor<T, Device>& y) {
    expect_shape("relu_by_input", "dy", dy.shape(), y.shape());
    auto dx = Tensor<T, Device>::empty(y.shape());
    cuda::launch_elementwise<Device>(cuda::ReluByInput<T>{dy.data(), y.data()}, y.size(), dx.data());
    return dx;
}

/// x with another type of elements, each rounded once; x itself if it has that type.
template <class T, class From, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> converted(const Tensor<From, Device>& x) {
    if constexpr (std::is_same_v<T, From>) {
        return x;
    } else {
        auto y = Tensor<T, Device>::empty(x.shape());
        cuda::launch_elementwise<Device>(cuda::Convert<T, From>{x.data()}, x.size(), y.data());
        return y;
    }
}

/// The same elements on the processor, of a type to calculate with: float for narrower ones.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<accumulate_t<T>> to_host_numbers(const Tensor<T, Device>& x) {
    return to_host(converted<accumulate_t<T>>(x));
}

SD_NAMESPACE_END
