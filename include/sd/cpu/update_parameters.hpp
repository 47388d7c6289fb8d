// An optimizer's step on the CPU: one sweep over each tensor, whatever the formula.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/parameter_update.hpp"
#include "sd/cpu/simd.hpp"

#include <Eigen/Core>

#include <array>
#include <cstddef>
#include <span>
#include <utility>

SD_NAMESPACE_BEGIN

namespace cpu {

/// Whether formulas run on arrays. nvcc takes them for code of a device, where Eigen's arrays have no functions.
#if defined(__CUDACC__)
inline constexpr bool computes_arrays = false;
#else
inline constexpr bool computes_arrays = true;
#endif

/// Updates the elements of V, one or several neighbours, from element i on.
template <class V, class Update, class T, std::size_t... k>
[[gnu::always_inline]] inline void update_elements(const Update& update, Index i, T* value, const T* grad,
                                                   const std::array<T*, sizeof...(k)>& buffers,
                                                   std::index_sequence<k...>) {
    const auto load = [i](const T* from) -> V {
        if constexpr (std::is_same_v<V, T>) {
            return from == nullptr ? T(0) : from[i];
        } else {
            if (from == nullptr) return V::Zero();
            return Eigen::Map<const V>(from + i);
        }
    };
    const auto store = [i](const V& elements, T* to) {
        if (to == nullptr) return;
        if constexpr (std::is_same_v<V, T>) {
            to[i] = elements;
        } else {
            Eigen::Map<V>(to + i) = elements;
        }
    };
    V w = load(value);
    const V dw = load(grad);
    [[maybe_unused]] std::array<V, sizeof...(k)> own{load(buffers[k])...};
    update(w, dw, own[k]...);
    store(w, value);
    (store(own[k], buffers[k]), ...);
}

}  // namespace cpu

/// Updates the tensors, see ParameterUpdate. None of them shares memory with another.
template <class Update, class T>
void update_parameters(std::span<ParameterUpdate<Update, T>> tensors) {
    constexpr auto all = std::make_index_sequence<Update::buffers>();
    for (ParameterUpdate<Update, T>& tensor : tensors) {
        std::array<T*, Update::buffers> buffers{};
        for (std::size_t k = 0; k < Update::buffers; ++k) buffers[k] = tensor.buffers[k].data();
        T* value = tensor.value.data();
        const T* grad = tensor.grad.data();
        parallel_ranges(tensor.value.size(), 16384, [&, value, grad, buffers](Index i, Index end) {
            const Update update = tensor.update;
            if constexpr (cpu::computes_arrays && cpu::Vectorized<T>) {
                using Some = Eigen::Array<T, static_cast<int>(cpu::lanes<T>), 1>;
                for (; i + cpu::lanes<T> <= end; i += cpu::lanes<T>) {
                    cpu::update_elements<Some>(update, i, value, grad, buffers, all);
                }
            }
            for (; i < end; ++i) cpu::update_elements<T>(update, i, value, grad, buffers, all);
        });
    }
}

SD_NAMESPACE_END
