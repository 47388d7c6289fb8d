// What the benchmarks share: operands, and a loop that is timed by the clock on the wall.
#pragma once

#include "sd/core/tensor.hpp"

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdint>

namespace bench {

using sd::Index;

/// A tensor of numbers between -1 and 1, none of them zero.
template <class T = float>
sd::Tensor<T> filled(const sd::Shape& shape) {
    auto tensor = sd::Tensor<T>::empty(shape);
    std::uint32_t state = 1;
    for (T& value : tensor) {
        state = state * 1664525U + 1013904223U;
        value = T(static_cast<float>(state >> 8) * 0x1p-23F + (0x1p-24F - 1.0F));
    }
    return tensor;
}

/// Seconds on the wall that a call takes.
template <class Body>
double seconds_of(const Body& body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Calls body as often as the benchmark asks, `batch` times at least and always a multiple of it, and returns the
/// seconds of one call. The rates of all benchmarks come from here: Google Benchmark would take the CPU time of
/// the main thread for them, or else add a suffix to the names.
template <class Body>
double seconds_per_call(benchmark::State& state, Index batch, const Body& body) {
    const double seconds = seconds_of([&] {
        while (state.KeepRunningBatch(batch)) {
            for (Index i = 0; i < batch; ++i) body();
        }
    });
    return seconds / static_cast<double>(state.iterations());
}

}  // namespace bench
