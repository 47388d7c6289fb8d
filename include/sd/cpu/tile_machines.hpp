// Which tile machine multiplies the pairs of this process.
#pragma once

#include "sd/cpu/amx.hpp"
#include "sd/cpu/avx512_bf16.hpp"
#include "sd/cpu/simd.hpp"

#include <atomic>
#include <type_traits>

SD_NAMESPACE_BEGIN

namespace cpu {

/// The quickest machine that this processor has, or nullptr.
[[nodiscard]] inline const TileMachine* best_tile_machine() {
#if defined(SD_HAS_AMX)
    if (may_use_amx()) return &amx_machine;
#endif
#if defined(SD_HAS_AVX512_BF16)
    if (may_use_avx512_bf16()) return &avx512_bf16_machine;
#endif
    return nullptr;
}

/// The process's own.
[[nodiscard]] inline std::atomic<const TileMachine*>& tile_machine_in_use() {
    static std::atomic<const TileMachine*> machine = best_tile_machine();
    return machine;
}

/// The machine that computes products of bfloat16. Without one, nullptr, they are computed in float. The last bits of
/// results depend on it, and on nothing else of the machine.
[[nodiscard]] inline const TileMachine* tile_machine() { return tile_machine_in_use(); }

/// Has another machine used from here on, nullptr for floats: to compare them. Not while a kernel runs.
inline void set_tile_machine(const TileMachine* machine) { tile_machine_in_use() = machine; }

/// What tile_machine() is called: "amx", "avx512_bf16" or "float".
[[nodiscard]] inline const char* tile_machine_name() {
    const TileMachine* machine = tile_machine();
    return machine == nullptr ? "float" : machine->name;
}

/// Whether a machine is to be used, for a kernel that Winograd's tiles suit or not.
[[nodiscard]] inline bool multiplies_pairs(bool suits_winograd) {
    const TileMachine* machine = tile_machine();
    return machine != nullptr && (machine->beats_winograd || !suits_winograd);
}

/// Channels that a product of tensors of T takes together.
template <class T>
[[nodiscard]] Index group_lanes() {
    return std::is_same_v<T, bfloat16> && tile_machine() != nullptr ? pair_lanes : lanes<T>;
}

}  // namespace cpu

SD_NAMESPACE_END
