// Tiles of pairs by AVX512_BF16: each lane of a vector adds two products, a pair of a row with a pair of a column.
#pragma once

#include "sd/cpu/tile_machine.hpp"

#if defined(__x86_64__) && !defined(__CUDACC__)
#define SD_HAS_AVX512_BF16 1
#include <cpuid.h>
#include <cstdint>
#include <cstring>
#endif

SD_NAMESPACE_BEGIN

namespace cpu {

#if defined(SD_HAS_AVX512_BF16)
/// TileMachine::multiply, eight rows at a time, whose sums fit the registers beside two vectors of columns. The one
/// instruction stands as the assembler has it: to declare its intrinsic costs every program half of what Eigen does.
[[gnu::target("avx512f,avx512bw,avx512vl,avx512bf16")]] inline void multiply_by_avx512(const PairOperands& operands,
                                                                                       float* sums, bool accumulate) {
    typedef float Floats __attribute__((vector_size(64)));
    typedef std::uint32_t Pairs __attribute__((vector_size(64)));
    constexpr Index rows_each = 8, pairs = pair_lanes / 2;
    for (Index first = 0; first < pair_lanes; first += rows_each) {
        float* const target = sums + first * pair_lanes;
        Floats left[rows_each] = {}, right[rows_each] = {};
        if (accumulate) {
#pragma GCC unroll 8
            for (Index r = 0; r < rows_each; ++r) {
                std::memcpy(&left[r], target + r * pair_lanes, sizeof left[r]);
                std::memcpy(&right[r], target + r * pair_lanes + pairs, sizeof right[r]);
            }
        }
        const PairOperand rows = operands.rows;
        const PairOperand columns = operands.columns;
        for (Index block = 0; block < operands.blocks; ++block) {
            for (Index i = 0; i < operands.offset_count; ++i) {
                const bfloat16* row = rows.data + block * rows.plane + rows.offsets[i] + first * rows.stride;
                const bfloat16* column = columns.data + block * columns.plane + columns.offsets[i];
                for (Index pair = 0; pair < pairs; ++pair, row += 2, column += pair_lanes) {
                    Pairs left_columns, right_columns;
                    std::memcpy(&left_columns, column, sizeof left_columns);
                    std::memcpy(&right_columns, column + columns.stride, sizeof right_columns);
#pragma GCC unroll 8
                    for (Index r = 0; r < rows_each; ++r) {
                        std::uint32_t both;
                        std::memcpy(&both, row + r * rows.stride, sizeof both);
                        const Pairs value = Pairs{} + both;
                        asm("vdpbf16ps %2, %1, %0" : "+v"(left[r]) : "v"(value), "v"(left_columns));
                        asm("vdpbf16ps %2, %1, %0" : "+v"(right[r]) : "v"(value), "v"(right_columns));
                    }
                }
            }
        }
#pragma GCC unroll 8
        for (Index r = 0; r < rows_each; ++r) {
            std::memcpy(target + r * pair_lanes, &left[r], sizeof left[r]);
            std::memcpy(target + r * pair_lanes + pairs, &right[r], sizeof right[r]);
        }
    }
}

/// Whether the processor has the instructions.
[[nodiscard]] inline bool has_avx512_bf16() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned avx512_bf16 = 1U << 5;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & avx512_bf16) != 0;
}

/// Whether they are also quicker than multiply-adds of floats: AMD's are, twice as quick; Intel's are not.
[[nodiscard]] inline bool may_use_avx512_bf16() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(0, &a, &b, &c, &d) != 0 && b == signature_AMD_ebx && has_avx512_bf16();
}

inline constexpr TileMachine avx512_bf16_machine = {
    .name = "avx512_bf16",
    .cache_bytes = Index{1} << 20,
    .beats_winograd = false,
    .begin = [] {},
    .end = [] {},
    .multiply = &multiply_by_avx512,
};
#endif

}  // namespace cpu

SD_NAMESPACE_END
