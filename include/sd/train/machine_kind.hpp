// Which kind of machine a run's numbers come from, as its log and its checkpoints have it.
#pragma once

#include "sd/core/device.hpp"
#include "sd/cpu/tile_machines.hpp"

#include <string>

SD_NAMESPACE_BEGIN

/// The CPU's, which has several for products of bfloat16: see cpu::tile_machine().
[[nodiscard]] inline std::string machine_kind(const Tensor<bfloat16>& /*x*/) { return cpu::tile_machine_name(); }

namespace detail {

/// The kind of machine that computes a model's activations, empty if all give the same bits.
template <class Model>
[[nodiscard]] std::string machine_of() {
    return machine_kind(Tensor<typename Model::value_type, typename Model::device_type>());
}

}  // namespace detail

SD_NAMESPACE_END
