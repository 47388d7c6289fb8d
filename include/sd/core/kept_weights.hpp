// What a kernel makes of a layer's weights, kept from one evaluation to the next.
#pragma once

#include "sd/core/storage.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// A value on the pool.
template <class Value>
[[nodiscard]] std::shared_ptr<const Value> pooled_shared(Value value) {
    return std::allocate_shared<const Value>(PoolAllocator<Value>(), std::move(value));
}

}  // namespace detail

/// Weights in the order in which a device's kernel reads them. A layer owns it, hands it to the kernels of evaluation and
/// clears it when it is trained. What is kept is found again by a key of all that it was made of, the numbers included:
/// so whoever changes a parameter has nothing to say, and old weights are never used. Several threads may evaluate one
/// layer.
class KeptWeights {
public:
    /// Keeps nothing yet.
    KeptWeights() = default;
    /// Takes over what is kept.
    KeptWeights(KeptWeights&& other) noexcept : entries_(std::move(other.entries_)) {}
    /// Takes over what is kept.
    KeptWeights& operator=(KeptWeights&& other) noexcept {
        entries_ = std::move(other.entries_);
        return *this;
    }
    ~KeptWeights() = default;

    /// What is kept at a place, if it is a Value made under this key; or else make(), a Value, which is kept from here on.
    template <class Value, class Make>
    [[nodiscard]] std::shared_ptr<const Value> get(std::size_t place, std::uint64_t key, const Make& make) {
        {
            const std::lock_guard lock(mutex_);
            if (place < entries_.size() && entries_[place].key == key && entries_[place].type == &type_of<Value>) {
                return std::static_pointer_cast<const Value>(entries_[place].value);
            }
        }
        auto value = detail::pooled_shared<Value>(make());
        const std::lock_guard lock(mutex_);
        if (place >= entries_.size()) entries_.resize(place + 1);
        entries_[place] = {key, &type_of<Value>, value};
        return value;
    }

    /// Gives back what is kept.
    void clear() {
        const std::lock_guard lock(mutex_);
        entries_.clear();
    }

private:
    struct Entry {
        std::uint64_t key = 0;
        const void* type = nullptr;
        std::shared_ptr<const void> value;
    };

    template <class Value>
    static inline const char type_of = 0;  ///< its address tells types apart, without run-time type information

    std::mutex mutex_;
    std::vector<Entry> entries_;
};

SD_NAMESPACE_END
