// Which kinds of machines a run's numbers come from, as its log and its checkpoints have them.
#pragma once

#include "sd/core/communicator.hpp"
#include "sd/core/device.hpp"
#include "sd/cpu/tile_machines.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

SD_NAMESPACE_BEGIN

/// The CPU's, which has several for products of bfloat16: see cpu::tile_machine().
[[nodiscard]] inline std::string machine_kind(const Tensor<bfloat16>& /*x*/) { return cpu::tile_machine_name(); }

namespace detail {

/// The kinds of machines that compute with tensors of such elements, empty if all give the same bits: that of all ranks, or if
/// they differ each rank's in order, as in "amx, float". All ranks call it.
template <class T, class Device>
[[nodiscard]] std::string machines_of(Communicator& communicator) {
    const std::string own = machine_kind(Tensor<T, Device>());
    if (own.empty()) return own;
    using Name = std::array<char, 32>;
    Name name{};
    own.copy(name.data(), name.size() - 1);
    std::vector<Name> names(static_cast<std::size_t>(communicator.size()));
    communicator.all_gather(std::span<const Name>(&name, 1), std::span(names));
    std::string all = names.front().data();
    if (std::all_of(names.begin(), names.end(), [&](const Name& other) { return other == names.front(); })) return all;
    for (std::size_t rank = 1; rank < names.size(); ++rank) all += std::string(", ") + names[rank].data();
    return all;
}

}  // namespace detail

SD_NAMESPACE_END
