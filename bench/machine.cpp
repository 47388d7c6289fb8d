// The two ceilings of every kernel: fused multiply-adds, and copying beyond the caches, on all threads.
#include "benchmarks.hpp"
#include "measure.hpp"

#include "sd/core/parallel.hpp"
#include "sd/cpu/simd.hpp"

#include <algorithm>
#include <limits>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace bench {

namespace {

using Vector = sd::cpu::Simd<float>::Vector;

/// Independent sums, enough to hide the latency of a multiply-add, few enough to stay in registers.
constexpr int sums = sd::cpu::vector_registers == 32 ? 24 : 12;

float multiply_add(Index steps, float start) {
    Vector sum[sums];
    for (int i = 0; i < sums; ++i) sum[i] = Vector{} + start;
    const Vector factor = Vector{} + 0.9999F;
    const Vector term = Vector{} + start;
    for (Index step = 0; step < steps; ++step) {
#pragma GCC unroll 32
        for (int i = 0; i < sums; ++i) sum[i] = sum[i] * factor + term;
    }
    Vector total{};
    for (int i = 0; i < sums; ++i) total += sum[i];
    float result = 0;
    for (Index lane = 0; lane < sd::cpu::Simd<float>::lanes; ++lane) result += total[lane];
    return result;
}

// The most that was seen: a ceiling that other programs held down would flatter the kernels.
void fma_peak(benchmark::State& state) {
    constexpr Index steps = 1'000'000;
    const Index threads = sd::num_threads();
    double best = std::numeric_limits<double>::infinity();
    for (auto _ : state) {
        const double seconds = seconds_of([&] {
            sd::parallel_for(
                threads, [&](Index i) { benchmark::DoNotOptimize(multiply_add(steps, static_cast<float>(i + 1))); });
        });
        best = std::min(best, seconds);
    }
    state.counters["FLOPS"] = 2.0 * static_cast<double>(steps * sums * sd::cpu::Simd<float>::lanes * threads) / best;
}

// Copies in the way that moves the fewest bytes: stores that bypass the caches do not read what they overwrite.
void stream(const float* from, float* to, Index count) {
#if defined(__SSE2__)
    constexpr Index lanes = 4;
    for (Index i = 0; i < count; i += lanes) _mm_stream_ps(to + i, _mm_load_ps(from + i));
    _mm_sfence();
#else
    std::copy(from, from + count, to);
#endif
}

// Bytes read and bytes written.
void copy(benchmark::State& state) {
    constexpr Index elements = Index{1} << 26;
    constexpr Index range = Index{1} << 16;
    const sd::Tensor<float> from = filled({elements});
    sd::Tensor<float> to = filled({elements});
    const double seconds = seconds_per_call(state, 1, [&] {
        sd::parallel_ranges(elements, range, [&](Index first, Index last) {
            stream(from.data() + first, to.data() + first, last - first);
        });
        benchmark::ClobberMemory();
    });
    state.counters["bytes_per_second"] = 2.0 * static_cast<double>(elements) * sizeof(float) / seconds;
}

}  // namespace

void register_machine() {
    benchmark::RegisterBenchmark("fma_peak", fma_peak)->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark("copy", copy)->Unit(benchmark::kMillisecond);
}

}  // namespace bench
