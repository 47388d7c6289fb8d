// Kernels whose elements know nothing of each other.
#pragma once

#include "sd/cpu/elementwise.hpp"
#include "sd/device/pending.hpp"

#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

SD_NAMESPACE_BEGIN

namespace cuda {

/// target(i) = operation(i, source(i)...) for `width` elements a thread, each rounded once. Operations take and give
/// numbers to calculate with; one that reads elsewhere than at i has no sources and pointers of its own.
template <class T, int width, class Operation, class Source, std::size_t source_count>
struct Map {
    Operation operation;
    Index size;
    std::array<const Source*, source_count> sources;
    T* target;

    SD_HOST_DEVICE void operator()(Thread thread) const {
        const Index first = (thread.block * block_threads + thread.index) * width;
        if (first < size) run(first, std::make_index_sequence<source_count>());
    }

private:
    template <std::size_t... number>
    SD_HOST_DEVICE void run(Index first, std::index_sequence<number...>) const {
        [[maybe_unused]] const std::array<Pack<Source, width>, source_count> values = {
            load<width>(sources[number] + first)...};
        Pack<T, width> result;
        for (int i = 0; i < width; ++i) {
            result.value[i] =
                T(static_cast<accumulate_t<T>>(operation(first + i, accumulate_t<Source>(values[number].value[i])...)));
        }
        store<width>(result, target + first);
    }
};

/// Starts target(i) = operation(i, source(i)...) for i from 0 to size - 1; sources are of one type.
template <Accelerator Device, class T, class Operation, class... Source>
void launch_map(const Operation& operation, Index size, T* target, const Source*... sources) {
    using From = std::tuple_element_t<0, std::tuple<Source..., T>>;
    with_width<T>(size, [&](auto width) {
        launch<Device>(Map<T, width(), Operation, From, sizeof...(Source)>{operation, size, {sources...}, target},
                       quotient_up(size, Index{block_threads} * width));
    });
}

template <class A>
struct Constant {
    A value;
    [[nodiscard]] SD_HOST_DEVICE A operator()(Index) const { return value; }
};

struct Plus {
    template <class A>
    [[nodiscard]] SD_HOST_DEVICE A operator()(Index, const A& a, const A& b) const {
        return a + b;
    }
};

template <class A>
struct Times {
    A factor;
    [[nodiscard]] SD_HOST_DEVICE A operator()(Index, const A& x) const { return x * factor; }
};

/// x + share (target - x).
template <class A>
struct Towards {
    A share;
    [[nodiscard]] SD_HOST_DEVICE A operator()(Index, const A& x, const A& target) const {
        return x + share * (target - x);
    }
};

struct Activate {
    Activation activation;
    template <class A>
    [[nodiscard]] SD_HOST_DEVICE A operator()(Index, const A& x) const {
        return activate(activation, x);
    }
};

struct ActivationGradient {
    Activation activation;
    template <class A>
    [[nodiscard]] SD_HOST_DEVICE A operator()(Index, const A& dy, const A& x) const {
        return activation_gradient(activation, dy, x);
    }
};

/// The value itself, in another format.
struct Same {
    template <class A>
    [[nodiscard]] SD_HOST_DEVICE A operator()(Index, const A& x) const {
        return x;
    }
};

/// Copies elements that may lie anywhere.
template <class T>
struct CopyElement {
    const T* source;
    T* target;
    SD_HOST_DEVICE void operator()(Index i) const { target[i] = source[i]; }
};

}  // namespace cuda

/// sum += term; shapes are equal.
template <class T, cuda::Accelerator Device>
void add_to(Tensor<T, Device>& sum, const Tensor<T, Device>& term) {
    cuda::launch_map<Device>(cuda::Plus(), sum.size(), sum.data(), std::as_const(sum).data(), term.data());
}

/// x *= factor, element by element.
template <class T, cuda::Accelerator Device>
void scale_by(Tensor<T, Device>& x, const accumulate_t<T>& factor) {
    cuda::launch_map<Device>(cuda::Times<accumulate_t<T>>{factor}, x.size(), x.data(), std::as_const(x).data());
}

/// x += share (target - x), element by element; shapes are equal.
template <class T, cuda::Accelerator Device>
void move_towards(Tensor<T, Device>& x, const Tensor<T, Device>& target, const accumulate_t<T>& share) {
    cuda::launch_map<Device>(cuda::Towards<accumulate_t<T>>{share}, x.size(), x.data(), std::as_const(x).data(),
                             target.data());
}

/// Copies `count` elements from element `source_first` on to element `target_first` on.
template <class T, cuda::Accelerator Device>
void copy_elements(const Tensor<T, Device>& source, Index source_first, Index count, Tensor<T, Device>& target,
                   Index target_first) {
    cuda::launch_each<Device>(count, cuda::CopyElement<T>{source.data() + source_first, target.data() + target_first});
}

/// y = act(x), of any shape.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> activation_forward(const Tensor<T, Device>& x, Activation activation) {
    auto y = Tensor<T, Device>::empty(x.shape());
    cuda::launch_map<Device>(cuda::Activate{activation}, x.size(), y.data(), x.data());
    return y;
}

/// dx = dy act'(x), 0 where act'(x) is 0. Throws std::invalid_argument if shapes differ.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> activation_by_input(const Tensor<T, Device>& dy, const Tensor<T, Device>& x,
                                                    Activation activation) {
    expect_shape("activation_by_input", "dy", dy.shape(), x.shape());
    auto dx = Tensor<T, Device>::empty(x.shape());
    cuda::launch_map<Device>(cuda::ActivationGradient{activation}, x.size(), dx.data(), dy.data(), x.data());
    return dx;
}

/// x with another type of elements, each rounded once; x itself if it has that type.
template <class T, class From, cuda::Accelerator Device>
[[nodiscard]] Tensor<T, Device> converted(const Tensor<From, Device>& x) {
    if constexpr (std::is_same_v<T, From>) {
        return x;
    } else {
        auto y = Tensor<T, Device>::empty(x.shape());
        cuda::launch_map<Device>(cuda::Same(), x.size(), y.data(), x.data());
        return y;
    }
}

/// The same elements on the CPU, of a type to calculate with: float for narrower ones.
template <class T, cuda::Accelerator Device>
[[nodiscard]] Tensor<accumulate_t<T>> to_host_numbers(const Tensor<T, Device>& x) {
    return to_host(converted<accumulate_t<T>>(x));
}

SD_NAMESPACE_END
