// Which blocks have drawn their masks in a training pass: two of one number would draw the same ones.
#pragma once

#include "sd/core/storage.hpp"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <utility>

SD_NAMESPACE_BEGIN

namespace detail {

/// The numbers that blocks have drawn masks with. Several threads may use one.
class DrawnBlocks {
public:
    /// Notes that the block at the address draws; throws std::logic_error if another one has drawn with its number.
    void expect_own_number(std::uint32_t number, const void* address) {
        const std::lock_guard lock(mutex_);
        const auto place = std::lower_bound(drawn_.begin(), drawn_.end(), number,
                                            [](const auto& drawn, std::uint32_t other) { return drawn.first < other; });
        if (place == drawn_.end() || place->first != number) {
            drawn_.insert(place, {number, address});
        } else if (place->second != address) {
            throw std::logic_error(text("StochasticResidual: block_index: got ", number,
                                        " for two blocks of one training pass, which would drop alike; expected a "
                                        "number for each: call number_blocks(model) once"));
        }
    }

private:
    std::mutex mutex_;
    PooledVector<std::pair<std::uint32_t, const void*>> drawn_;  ///< sorted by number
};

}  // namespace detail

SD_NAMESPACE_END
