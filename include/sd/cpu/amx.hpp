// Tiles of pairs by the matrix registers of Intel's processors (AMX): eight of 16 rows of 64 bytes.
//
//                     | columns 0..15 (6) | columns 16..31 (7) |
//     rows 0..15  (4) |      sums 0       |       sums 1       |
//     rows 16..31 (5) |      sums 2       |       sums 3       |
//
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and TDPBF16PS.
#pragma once

#include "sd/cpu/tile_machine.hpp"

#include <cstdint>

#if defined(__x86_64__) && defined(__linux__) && !defined(__CUDACC__)
#define SD_HAS_AMX 1
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

SD_NAMESPACE_BEGIN

namespace cpu {

/// The operand of LDTILECFG.
struct alignas(64) AmxConfiguration {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

/// TileMachine::multiply by instructions that a type gives as static functions: load, store, zero and multiply (sums,
/// rows, columns), with the registers' numbers as template arguments.
template <class Amx>
void multiply_by_amx(const PairOperands& operands, float* sums, bool accumulate) {
    constexpr Index half = pair_lanes / 2;
    constexpr Index sums_stride = pair_lanes * static_cast<Index>(sizeof(float));
    float* const lower_sums = sums + half * pair_lanes;
    if (accumulate) {
        Amx::template load<0>(sums, sums_stride);
        Amx::template load<1>(sums + half, sums_stride);
        Amx::template load<2>(lower_sums, sums_stride);
        Amx::template load<3>(lower_sums + half, sums_stride);
    } else {
        Amx::template zero<0>();
        Amx::template zero<1>();
        Amx::template zero<2>();
        Amx::template zero<3>();
    }
    constexpr Index line = pair_lanes * static_cast<Index>(sizeof(bfloat16));
    const PairOperand rows = operands.rows;
    const PairOperand columns = operands.columns;
    const Index row_bytes = rows.stride * static_cast<Index>(sizeof(bfloat16));
    for (Index block = 0; block < operands.blocks; ++block) {
        for (Index i = 0; i < operands.offset_count; ++i) {
            const bfloat16* row = rows.data + block * rows.plane + rows.offsets[i];
            const bfloat16* column = columns.data + block * columns.plane + columns.offsets[i];
            Amx::template load<6>(column, line);
            Amx::template load<4>(row, row_bytes);
            Amx::template multiply<0, 4, 6>();
            Amx::template load<7>(column + columns.stride, line);
            Amx::template multiply<1, 4, 7>();
            Amx::template load<5>(row + half * rows.stride, row_bytes);
            Amx::template multiply<2, 5, 6>();
            Amx::template multiply<3, 5, 7>();
        }
    }
    Amx::template store<0>(sums, sums_stride);
    Amx::template store<1>(sums + half, sums_stride);
    Amx::template store<2>(lower_sums, sums_stride);
    Amx::template store<3>(lower_sums + half, sums_stride);
}

#if defined(SD_HAS_AMX)
/// The instructions, as text: compilers take their intrinsics only where a whole file is compiled for them, and early
/// ones lack what orders them among other memory accesses.
struct AmxInstructions {
    static void configure(const AmxConfiguration& configuration) {
        asm volatile("ldtilecfg %0" : : "m"(configuration) : "memory");
    }
    static void release() { asm volatile("tilerelease" : : : "memory"); }

    template <int tile>
    [[gnu::always_inline]] static void zero() {
        asm volatile("tilezero %%tmm%c0" : : "i"(tile));
    }
    template <int tile>
    [[gnu::always_inline]] static void load(const void* from, Index stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(tile) : "memory");
    }
    template <int tile>
    [[gnu::always_inline]] static void store(void* to, Index stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(tile) : "memory");
    }
    template <int sums, int rows, int columns>
    [[gnu::always_inline]] static void multiply() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(rows), "i"(columns));
    }
};

/// Whether the processor has the instructions and the system lets this process use their registers.
[[nodiscard]] inline bool may_use_amx() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned amx_bf16 = 1U << 22, amx_tile = 1U << 24;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & amx_bf16) == 0 || (d & amx_tile) == 0) return false;
    constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, Linux 5.16
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

inline constexpr TileMachine amx_machine = {
    .name = "amx",
    .cache_bytes = Index{2} << 20,
    .beats_winograd = true,
    .begin =
        [] {
            static constexpr AmxConfiguration configuration;
            AmxInstructions::configure(configuration);
        },
    .end = &AmxInstructions::release,
    .multiply = &multiply_by_amx<AmxInstructions>,
};
#endif

}  // namespace cpu

SD_NAMESPACE_END
