// A device's memory that is kept for the next request.
#include "random.hpp"

#include "sd/device/block_cache.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace test_block_cache {

namespace {

/// A device with that much memory, at addresses that nobody looks at.
struct SmallDevice {
    static inline std::size_t left = 0;
    static inline int calls = 0;
    static inline std::map<void*, std::size_t> given{};
    static inline std::uintptr_t next = 4096;

    static void* allocate(std::size_t bytes) {
        ++calls;
        if (bytes > left) return nullptr;
        left -= bytes;
        void* const memory = reinterpret_cast<void*>(next);
        next += bytes;
        given[memory] = bytes;
        return memory;
    }
    static void release(void* memory) noexcept {
        left += given.at(memory);
        given.erase(memory);
    }
    static void reset(std::size_t bytes) {
        left = bytes;
        calls = 0;
        given.clear();
    }
};
using Cache = sd::cuda::BlockCache<SmallDevice>;

}  // namespace

TEST_CASE("after the first steps, a step's requests are served by what steps before gave back") {
    SmallDevice::reset(std::size_t{1} << 40);
    Cache cache;
    const auto step = [&] {
        int requests = 0;
        std::vector<sd::cuda::Block> live;
        for (std::uint32_t i = 0; i < 200; ++i) {
            const auto words = sd::random_words(sd_test::seed, sd::Stream::shuffle, 1, 0, i);
            if (words[0] % 3 == 0 && !live.empty()) {
                cache.release(live[words[1] % live.size()]);
                live.erase(live.begin() + static_cast<std::ptrdiff_t>(words[1] % live.size()));
            } else {
                const std::size_t bytes = 1 + words[2] % 100000;
                live.push_back(cache.allocate(bytes));
                CHECK(live.back().bytes >= bytes);
                ++requests;
            }
        }
        for (std::size_t i = 0; i < live.size(); ++i) {  // no two are at the same place
            for (std::size_t j = 0; j < i; ++j) CHECK(live[i].memory != live[j].memory);
        }
        for (const auto& block : live) cache.release(block);
        return requests;
    };
    for (int i = 0; i < 10; ++i) (void)step();
    const int calls = SmallDevice::calls;
    const std::uint64_t taken = cache.taken();
    for (int i = 0; i < 5; ++i) CHECK(step() > 100);
    CHECK(SmallDevice::calls == calls);
    CHECK(cache.taken() == taken);
}

TEST_CASE("a request may be served by up to twice its size, and by nothing smaller or larger") {
    SmallDevice::reset(std::size_t{1} << 40);
    Cache cache;
    const auto large = cache.allocate(8192);
    cache.release(large);
    CHECK(cache.allocate(2048).memory != large.memory);
    CHECK(cache.allocate(10000).memory != large.memory);
    const auto half = cache.allocate(4096);
    CHECK(half.memory == large.memory);
    CHECK(half.bytes == 8192);
}

TEST_CASE("where the device has no memory left, what is not in use goes back to it first") {
    SmallDevice::reset(10000);
    Cache cache;
    const auto a = cache.allocate(512);
    const auto b = cache.allocate(7000);
    CHECK(cache.allocate(4000).memory == nullptr);
    cache.release(b);
    const auto c = cache.allocate(8000);
    CHECK(c.memory != nullptr);
    CHECK(SmallDevice::given.size() == 2);
    CHECK(cache.taken() == a.bytes + c.bytes);
    CHECK(cache.allocate(0).memory == nullptr);
    cache.release(cache.allocate(0));
}

TEST_CASE("while they are held, blocks do not go back to the device, not even for a request that needs them") {
    SmallDevice::reset(10000);
    Cache cache;
    const auto used = cache.allocate(7000);
    cache.hold(true);
    cache.release(used);
    CHECK(cache.allocate(2000).memory != nullptr);  // of what the device has left
    CHECK(cache.allocate(3000).memory == nullptr);
    CHECK(SmallDevice::given.contains(used.memory));
    cache.hold(false);
    CHECK(cache.allocate(3000).memory != nullptr);
    CHECK_FALSE(SmallDevice::given.contains(used.memory));
}

TEST_CASE("blocks that are not in use are told") {
    SmallDevice::reset(10000);
    Cache cache;
    const auto a = cache.allocate(512);
    const auto b = cache.allocate(1024);
    const auto told = [&] {
        std::map<void*, std::size_t> all;
        cache.for_each_free([&](const sd::cuda::Block& block) { all[block.memory] = block.bytes; });
        return all;
    };
    CHECK(told().empty());
    cache.release(b);
    CHECK(told() == std::map<void*, std::size_t>{{b.memory, b.bytes}});
    cache.release(a);
    CHECK(told().size() == 2);
}

}  // namespace test_block_cache
