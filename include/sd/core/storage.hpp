// Reference-counted, 64-byte aligned memory that is reused, never returned, between the steps of a training run.
//
//     block:  | header (64 bytes): references, capacity, next free block | elements ...
//             ^ 64-byte aligned                                          ^ 64-byte aligned
#pragma once

#include "sd/core/shape.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if SD_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

SD_NAMESPACE_BEGIN

/// The CPU that this program runs on. Another device is another tag: core/device.hpp says what one has.
struct Cpu {
    static constexpr bool in_cpu_memory = true;     ///< elements are in the CPU's memory
    static constexpr bool runs_beside_cpu = false;  ///< what is called has ended when the call returns
    static constexpr bool replays_steps = false;    ///< a step runs call by call
};

namespace detail {

inline constexpr std::size_t alignment = 64;
inline constexpr std::size_t large_page = std::size_t{2} << 20;

struct alignas(alignment) Block {
    std::atomic<std::int64_t> references{1};
    std::size_t capacity = 0;
    Block* next_free = nullptr;

    [[nodiscard]] void* elements() { return this + 1; }
    [[nodiscard]] static Block* of(void* elements) { return static_cast<Block*>(elements) - 1; }

    /// Tells the address sanitizer that the first `bytes` bytes of the elements are in use and the others are not. It
    /// knows what the pool takes from the system, but not whose it is within the pool.
    void set_used([[maybe_unused]] std::size_t bytes) {
#if SD_ADDRESS_SANITIZER
        ASAN_POISON_MEMORY_REGION(elements(), capacity);
        ASAN_UNPOISON_MEMORY_REGION(elements(), bytes);
#endif
    }
};
static_assert(sizeof(Block) == alignment);

/// Free blocks by capacity. A step of a training run asks for the same sizes again and again, so after the first ones
/// every request is served from here, by the smallest block that is large enough.
class Pool {
public:
    /// The pool of this process. It is never destroyed: a tensor with static storage may outlive any other object.
    static Pool& instance() {
        static Pool* pool = new Pool;
        return *pool;
    }

    [[nodiscard]] Block* acquire(std::size_t bytes) {
        const std::size_t capacity = round_up(bytes);
        {
            const std::lock_guard lock(mutex_);
            for (std::size_t size = place(capacity); size <= place(most(capacity)); ++size) {
                if (free_[size] == nullptr) continue;
                Block* block = std::exchange(free_[size], free_[size]->next_free);
                block->references.store(1, std::memory_order_relaxed);
                block->set_used(bytes);
                return block;
            }
        }
        void* memory = ::operator new(sizeof(Block) + capacity, alignment_of(capacity));
        ask_for_large_pages(memory, sizeof(Block) + bytes);
        Block* block = new (memory) Block;
        block->capacity = capacity;
        block->set_used(bytes);
        allocations_.fetch_add(1, std::memory_order_relaxed);
        return block;
    }

    void release(Block* block) noexcept {
        block->set_used(0);
        const std::lock_guard lock(mutex_);
        block->next_free = std::exchange(free_[place(block->capacity)], block);
    }

    /// Returns every free block to the system.
    void trim() {
        const std::lock_guard lock(mutex_);
        for (Block*& head : free_) {
            while (head != nullptr) destroy(std::exchange(head, head->next_free));
        }
    }

    /// Overwrites the elements of every free block with ones, which floating-point types read as NaN.
    void poison() {
        const std::lock_guard lock(mutex_);
        for (Block* head : free_) {
            for (Block* block = head; block != nullptr; block = block->next_free) {
                block->set_used(block->capacity);
                std::memset(block->elements(), 0xFF, block->capacity);
                block->set_used(0);
            }
        }
    }

    /// How many blocks were taken from the system so far.
    [[nodiscard]] std::int64_t allocations() const { return allocations_.load(std::memory_order_relaxed); }

private:
    // Sizes are 1 to 8 times the alignment, then 5 to 8 times its double and so on, so that nearby ones share blocks.
    static std::size_t step_of(std::size_t bytes) {
        std::size_t step = alignment;
        while (step * 8 < bytes) step *= 2;
        return step;
    }
    static std::size_t round_up(std::size_t bytes) {
        const std::size_t step = step_of(bytes);
        return (bytes + step - 1) / step * step;
    }
    // Where a size stands among all sizes.
    static std::size_t place(std::size_t capacity) {
        const std::size_t step = step_of(capacity);
        return 4 * static_cast<std::size_t>(std::countr_zero(step / alignment)) + capacity / step;
    }

    // The largest free block that may serve a request: what varies from step to step, such as the number of kept
    // samples, finds room in what an earlier step left, but nothing small takes what something large will ask for.
    static std::size_t most(std::size_t capacity) { return 2 * capacity; }

    static std::align_val_t alignment_of(std::size_t capacity) {
        return std::align_val_t{capacity >= large_page ? large_page : alignment};
    }

    // Large blocks on large pages: fewer page faults at first, fewer misses of the translation cache ever after.
    static void ask_for_large_pages([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__)
        if (bytes < large_page) return;
        // As many as are filled, so that none is taken for an end. A wish: it may be refused.
        (void)::madvise(memory, bytes / large_page * large_page, MADV_HUGEPAGE);
#endif
    }

    static void destroy(Block* block) noexcept {
        const std::size_t capacity = block->capacity;
        block->set_used(capacity);
        block->~Block();
        ::operator delete(block, alignment_of(capacity));
    }

    std::mutex mutex_;
    std::array<Block*, 256> free_{};  // by place(): 64 octaves of four are more than there are
    std::atomic<std::int64_t> allocations_{0};
};

}  // namespace detail

/// Gives the memory that freed tensors left in the pool back to the system.
inline void trim_pool() { detail::Pool::instance().trim(); }

/// Fills the memory that freed tensors left in the pool with NaN, so that an element that is read before it is written
/// shows in the result. For checks; a device has its own.
inline void poison_pool(Cpu = {}) { detail::Pool::instance().poison(); }

/// How many buffers the pool has taken from the system so far; constant while every request is served by reuse.
[[nodiscard]] inline std::int64_t pool_allocations() { return detail::Pool::instance().allocations(); }

/// A counted reference to `count` elements of type T on a device. Copies refer to the same elements.
/// A device's storage has what the CPU's has below: that is all that tensors ask of a device's memory.
template <class T, class Device>
class Storage;

/// The CPU's storage: a block of the pool and how often it is referred to.
template <class T>
class Storage<T, Cpu> {
    static_assert(alignof(T) <= detail::alignment);

public:
    Storage() = default;

    /// Elements of a class type are value-initialised; plain numbers are left as they are.
    explicit Storage(Index count) : count_(count) {
        if (count == 0) return;
        block_ = detail::Pool::instance().acquire(static_cast<std::size_t>(count) * sizeof(T));
        if constexpr (!std::is_trivially_default_constructible_v<T>) {
            try {
                std::uninitialized_value_construct_n(data(), count);
            } catch (...) {
                detail::Pool::instance().release(block_);
                throw;
            }
        }
    }

    /// Another reference to the same elements.
    Storage(const Storage& other) noexcept : block_(other.block_), count_(other.count_) {
        if (block_ != nullptr) block_->references.fetch_add(1, std::memory_order_relaxed);
    }
    /// Takes the reference over.
    Storage(Storage&& other) noexcept
        : block_(std::exchange(other.block_, nullptr)), count_(std::exchange(other.count_, 0)) {}
    /// Refers to the other's elements from now on.
    Storage& operator=(Storage other) noexcept {
        std::swap(block_, other.block_);
        std::swap(count_, other.count_);
        return *this;
    }

    ~Storage() {
        if (block_ == nullptr || block_->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
        if constexpr (!std::is_trivially_destructible_v<T>) std::destroy_n(data(), count_);
        detail::Pool::instance().release(block_);
    }

    /// The elements, or nullptr if there are none.
    [[nodiscard]] T* data() const { return block_ == nullptr ? nullptr : static_cast<T*>(block_->elements()); }

    /// Sets every element.
    void fill(const T& value) { std::fill_n(data(), count_, value); }
    /// Copies as many elements from another storage, which has at least as many.
    void copy_from(const Storage& other) { write(other.data(), count_); }
    /// Copies the first `count` elements from the CPU's memory.
    void write(const T* source, Index count) { std::copy_n(source, count, data()); }
    /// Copies the first `count` elements to the CPU's memory.
    void read(T* target, Index count) const { std::copy_n(data(), count, target); }

    /// True if nobody else refers to the elements.
    [[nodiscard]] bool is_only_reference() const {
        return block_ != nullptr && block_->references.load(std::memory_order_acquire) == 1;
    }

private:
    detail::Block* block_ = nullptr;
    Index count_ = 0;
};

/// Takes the memory of a standard container from the pool, so that short lists in kernels cost no allocation.
template <class T>
struct PoolAllocator {
    using value_type = T;

    PoolAllocator() = default;
    /// All are the same.
    template <class U>
    PoolAllocator(const PoolAllocator<U>&) noexcept {}  // NOLINT(google-explicit-constructor)

    /// Room for `count` elements.
    [[nodiscard]] T* allocate(std::size_t count) {
        static_assert(alignof(T) <= detail::alignment);
        return static_cast<T*>(detail::Pool::instance().acquire(count * sizeof(T))->elements());
    }
    /// Gives room from allocate() back.
    void deallocate(T* elements, std::size_t) noexcept {
        detail::Pool::instance().release(detail::Block::of(elements));
    }

    /// Memory of one can be given back by another.
    friend bool operator==(const PoolAllocator&, const PoolAllocator&) { return true; }
};

/// A list of numbers in pooled memory.
template <class T>
using PooledVector = std::vector<T, PoolAllocator<T>>;

SD_NAMESPACE_END
