// A device's memory, kept for the next request.
#pragma once

#include "sd/core/config.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace cuda {

/// A piece of a device's memory.
struct Block {
    void* memory = nullptr;
    std::size_t bytes = 0;  ///< its size, at least what was asked for
};

/// Blocks of a device's memory by size. All work on the device runs in the order of its start, so a block that is given
/// back can be given out at once: whoever gets it starts later. A training step asks for the same sizes again and
/// again, so steps after the first take nothing from the system; and what they get are plain addresses, which a graph
/// of a step may keep, unlike memory that is itself a part of the graph.
///
/// System::allocate(bytes) takes memory from the device, nullptr if there is none left; System::release(memory) gives
/// it back after all that was started with it.
template <class System>
class BlockCache {
public:
    /// Takes memory from this system.
    explicit BlockCache(System system = {}) : system_(std::move(system)) {}

    /// A block of `bytes` or more; nothing for no bytes. If the device has no memory left, blocks that are not in use
    /// go back to it first, unless they are held. The block has no memory if that was not enough.
    [[nodiscard]] Block allocate(std::size_t bytes) {
        if (bytes == 0) return {};
        const std::lock_guard lock(mutex_);
        const std::size_t size = round_up(bytes);
        // What varies from step to step finds room in what an earlier step left, but nothing small takes what something
        // large will ask for.
        for (auto found = free_.lower_bound(size); found != free_.end() && found->first <= 2 * size; ++found) {
            if (found->second.empty()) continue;
            void* const memory = found->second.back();
            found->second.pop_back();
            return {memory, found->first};
        }
        void* memory = system_.allocate(size);
        if (memory == nullptr && !held_) {
            trim();
            memory = system_.allocate(size);
        }
        if (memory == nullptr) return {};
        taken_ += size;
        return {memory, size};
    }

    /// Takes a block back.
    void release(const Block& block) noexcept {
        if (block.memory == nullptr) return;
        try {
            const std::lock_guard lock(mutex_);
            free_[block.bytes].push_back(block.memory);
        } catch (...) {  // no memory for the table's entry
            if (!held_) system_.release(block.memory);
        }
    }

    /// From now on, or no longer, nothing goes back to the device. Work that is recorded to start later uses blocks
    /// that it has given back already, and the device does not know of it yet.
    void hold(bool held) {
        const std::lock_guard lock(mutex_);
        held_ = held;
    }

    /// Calls use(block) for every block that is not in use.
    template <class Use>
    void for_each_free(const Use& use) const {
        const std::lock_guard lock(mutex_);
        for (const auto& [bytes, blocks] : free_) {
            for (void* memory : blocks) use(Block{memory, bytes});
        }
    }

    /// How many bytes the device has given.
    [[nodiscard]] std::uint64_t taken() const {
        const std::lock_guard lock(mutex_);
        return taken_;
    }

private:
    // Eight sizes an octave, so that nearby sizes share blocks.
    static std::size_t round_up(std::size_t bytes) {
        std::size_t step = 512;
        while (step * 8 < bytes) step *= 2;
        return (bytes + step - 1) / step * step;
    }

    void trim() {
        for (auto& [bytes, blocks] : free_) {
            for (void* memory : blocks) {
                system_.release(memory);
                taken_ -= bytes;
            }
            blocks.clear();
        }
    }

    System system_;
    mutable std::mutex mutex_;
    std::map<std::size_t, std::vector<void*>> free_;
    std::uint64_t taken_ = 0;
    bool held_ = false;
};

}  // namespace cuda

SD_NAMESPACE_END
