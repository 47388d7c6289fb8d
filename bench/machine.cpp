// The ceilings of all kernels, on all threads: fused multiply-adds, products of pairs of bfloat16, and copying beyond the
// caches.
#include "benchmarks.hpp"
#include "measure.hpp"

#include "sd/core/parallel.hpp"
#include "sd/cpu/simd.hpp"
#include "sd/cpu/tile_machines.hpp"

#include <algorithm>
#include <array>
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

/// Calls work(i) on every thread i, which is so many multiply-adds each time, and counts the most that was seen: a ceiling
/// that other programs held down would flatter the kernels.
template <class Work>
void count_most(benchmark::State& state, Index multiply_adds, const Work& work) {
    const Index threads = sd::num_threads();
    double best = std::numeric_limits<double>::infinity();
    for (auto _ : state) best = std::min(best, seconds_of([&] { sd::parallel_for(threads, work); }));
    state.counters["FLOPS"] = 2.0 * static_cast<double>(multiply_adds * threads) / best;
}

void fma_peak(benchmark::State& state) {
    constexpr Index steps = 1'000'000;
    count_most(state, steps * sums * sd::cpu::Simd<float>::lanes,
               [](Index i) { benchmark::DoNotOptimize(multiply_add(steps, static_cast<float>(i + 1))); });
}

// 22 KiB, which any first-level cache holds: the rows of one step, read in every step, its columns, and the sums.
void tile_peak(benchmark::State& state) {
    constexpr Index lanes = sd::cpu::pair_lanes, steps = 8, calls = 20'000;
    const sd::cpu::TileMachine& machine = *sd::cpu::tile_machine();
    const auto rows = filled<sd::bfloat16>({lanes, lanes});
    const auto columns = filled<sd::bfloat16>({steps, sd::cpu::pair_step});
    const std::array<Index, steps> row_offsets{};
    std::array<Index, steps> column_offsets;
    for (Index i = 0; i < steps; ++i) column_offsets[static_cast<std::size_t>(i)] = i * sd::cpu::pair_step;
    const sd::cpu::PairOperands operands{.rows = {rows.data(), 0, row_offsets.data(), lanes},
                                         .columns = {columns.data(), 0, column_offsets.data(), sd::cpu::pair_step / 2},
                                         .blocks = 1,
                                         .offset_count = steps};
    count_most(state, calls * steps * lanes * sd::cpu::pair_step, [&](Index) {
        alignas(64) std::array<float, lanes * lanes> tile;
        machine.begin();
        for (Index call = 0; call < calls; ++call) {
            machine.multiply(operands, tile.data(), false);
            benchmark::DoNotOptimize(tile.data());
            benchmark::ClobberMemory();
        }
        machine.end();
    });
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

void register_tile_peak() {
    if (sd::cpu::tile_machine() == nullptr) return;
    benchmark::RegisterBenchmark("tile_peak", tile_peak)->Unit(benchmark::kMillisecond);
}

}  // namespace bench
