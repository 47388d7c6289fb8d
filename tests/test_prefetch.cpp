// Batches loaded ahead: the same ones in the same order, errors at their place, clean ends.
#include "random.hpp"

#include "sd/data/prefetch.hpp"
#include "sd/data/synthetic.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <condition_variable>
#include <iterator>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace test_prefetch {

using sd::Index;
using sd::Shape;

namespace {

// Images of one value, the sample's number. Keeps who reads what, and throws for the samples that are named.
class Witness {
public:
    explicit Witness(Index size, std::vector<Index> bad = {}) : size_(size), bad_(std::move(bad)) {}

    [[nodiscard]] Index size() const { return size_; }
    [[nodiscard]] Index num_classes() const { return 1; }
    [[nodiscard]] Shape image_shape() const { return {1, 1, 1}; }
    [[nodiscard]] Index label(Index) const { return 0; }
    void read(Index i, float* image) const {
        {
            const std::lock_guard lock(mutex_);
            ++reads_;
            most_threads_ = std::max(most_threads_, sd::num_threads());
            read_here_ = read_here_ || std::this_thread::get_id() == maker_;
        }
        has_read_.notify_all();
        if (std::find(bad_.begin(), bad_.end(), i) != bad_.end()) throw std::runtime_error(sd::text("sample ", i));
        *image = static_cast<float>(i);
    }

    [[nodiscard]] Index reads() const {
        const std::lock_guard lock(mutex_);
        return reads_;
    }
    [[nodiscard]] int most_threads() const { return most_threads_; }
    [[nodiscard]] bool read_here() const { return read_here_; }
    void wait_for_reads(Index count) const {
        std::unique_lock lock(mutex_);
        has_read_.wait(lock, [&] { return reads_ >= count; });
    }

private:
    Index size_;
    std::vector<Index> bad_;
    std::thread::id maker_ = std::this_thread::get_id();
    mutable std::mutex mutex_;
    mutable std::condition_variable has_read_;
    mutable Index reads_ = 0;
    mutable int most_threads_ = 0;
    mutable bool read_here_ = false;
};

}  // namespace

TEST_CASE("prefetch: the loader's batches in their order, for any number of workers") {
    const auto dataset = std::make_shared<const sd::InMemoryDataset>(sd::synthetic_images(70, 10, 8, 8, 1));
    const sd::DataLoader loader(dataset, {.batch_size = 8, .seed = sd_test::seed, .augmentation = sd::Augmentation{}});
    for (const sd::PrefetchOptions options :
         {sd::PrefetchOptions{.workers = 1, .ahead = 1}, sd::PrefetchOptions{.workers = 1, .ahead = 3},
          sd::PrefetchOptions{.workers = 3, .ahead = 2}, sd::PrefetchOptions{.workers = 5, .ahead = 7},
          sd::PrefetchOptions{.workers = 20, .ahead = 50}}) {
        const sd::PrefetchLoader prefetch(loader, options);
        REQUIRE(prefetch.batches() == 9);
        for (const Index epoch : {0, 1}) {
            Index i = 0;
            for (const auto& batch : prefetch.epoch(epoch)) {
                const auto expected = loader.load(epoch, i++);
                CHECK(batch.first == expected.first);
                CHECK(batch.labels == expected.labels);
                REQUIRE(batch.images.shape() == expected.images.shape());
                CHECK(std::equal(batch.images.begin(), batch.images.end(), expected.images.begin()));
            }
            CHECK(i == 9);
        }
    }
}

TEST_CASE("prefetch: no batch further ahead than asked for, and as far as that") {
    const auto witness = std::make_shared<const Witness>(50);
    const sd::PrefetchLoader prefetch(sd::DataLoader(witness, {.batch_size = 1, .shuffle = false}),
                                      {.workers = 3, .ahead = 4});
    auto epoch = prefetch.epoch(0);
    witness->wait_for_reads(4);  // before the first batch is asked for
    const sd::DataLoader other(std::make_shared<const Witness>(5000), {.batch_size = 1});
    for (Index i = 0; i < 5000; ++i) (void)other.load(0, i);  // time enough for workers that do not wait
    CHECK(witness->reads() == 4);
    Index taken = 0;
    for (auto batch = epoch.begin(); batch != epoch.end(); ++batch) {
        ++taken;
        witness->wait_for_reads(std::min<Index>(taken + 4, 50));
        CHECK(witness->reads() <= taken + 4);
    }
    CHECK(taken == 50);
    CHECK(witness->reads() == 50);
}

TEST_CASE("prefetch: workers load alone, whatever the number of threads of parallel loops") {
    const int threads = sd::num_threads();
    sd::set_num_threads(3);
    const auto witness = std::make_shared<const Witness>(24);
    for (const auto& batch : sd::PrefetchLoader(sd::DataLoader(witness, {.batch_size = 8})).epoch(0)) {
        CHECK(batch.labels.size() == 8);
    }
    CHECK(witness->most_threads() == 1);
    CHECK_FALSE(witness->read_here());
    {
        const sd::SerialScope outer;
        { const sd::SerialScope inner; }
        CHECK(sd::num_threads() == 1);
        std::vector<std::thread::id> ids(16);
        sd::parallel_for(16, [&](Index i) { ids[static_cast<std::size_t>(i)] = std::this_thread::get_id(); });
        CHECK(std::count(ids.begin(), ids.end(), std::this_thread::get_id()) == 16);
    }
#if defined(_OPENMP)
    CHECK(sd::num_threads() == 3);
#endif
    sd::set_num_threads(threads);
}

TEST_CASE("prefetch: an error comes out at its batch, and the batches after it are still there") {
    const auto witness = std::make_shared<const Witness>(20, std::vector<Index>{5, 6, 18});
    const sd::PrefetchLoader prefetch(sd::DataLoader(witness, {.batch_size = 2, .shuffle = false}),
                                      {.workers = 3, .ahead = 6});
    auto epoch = prefetch.epoch(0);
    auto batch = epoch.begin();
    CHECK((*batch).first == 0);
    CHECK((*++batch).first == 2);
    CHECK_THROWS_WITH_AS(++batch, "sample 5", std::runtime_error);
    CHECK_THROWS_WITH_AS(++batch, "sample 6", std::runtime_error);
    CHECK((*++batch).first == 8);
    for (Index first = 10; first < 18; first += 2) CHECK((*++batch).first == first);
    CHECK_THROWS_WITH_AS(++batch, "sample 18", std::runtime_error);
    ++batch;
    CHECK(batch == epoch.end());

    auto broken =
        sd::PrefetchLoader(sd::DataLoader(std::make_shared<const Witness>(1, std::vector<Index>{0}))).epoch(0);
    CHECK_THROWS_WITH_AS((void)broken.begin(), "sample 0", std::runtime_error);
}

TEST_CASE("prefetch: an epoch may end anywhere") {
    const auto witness = std::make_shared<const Witness>(1000);
    const sd::PrefetchLoader prefetch(sd::DataLoader(witness, {.batch_size = 1}), {.workers = 4, .ahead = 8});
    for (int repeat = 0; repeat < 50; ++repeat) {
        (void)prefetch.epoch(0);  // before the first batch
        Index taken = 0;
        for (auto& batch : prefetch.epoch(repeat)) {
            const sd::Batch<float> kept = std::move(batch);
            CHECK(kept.images.size() == 1);
            if (++taken > repeat) break;
        }
    }
    auto one = prefetch.epoch(0);
    auto other = prefetch.epoch(0);
    CHECK((*one.begin()).images(0, 0, 0, 0) == (*other.begin()).images(0, 0, 0, 0));
}

TEST_CASE("prefetch: an empty epoch has no batch") {
    const auto witness = std::make_shared<const Witness>(3);
    auto epoch = sd::PrefetchLoader(sd::DataLoader(witness, {.batch_size = 4, .drop_last = true})).epoch(0);
    CHECK(epoch.begin() == epoch.end());
    CHECK(witness->reads() == 0);
}

TEST_CASE("prefetch: refused") {
    const sd::DataLoader loader(std::make_shared<const Witness>(3));
    CHECK_THROWS_AS(sd::PrefetchLoader(loader, {.workers = 0}), std::invalid_argument);
    CHECK_THROWS_AS(sd::PrefetchLoader(loader, {.workers = 1025}), std::invalid_argument);
    CHECK_THROWS_AS(sd::PrefetchLoader(loader, {.ahead = 0}), std::invalid_argument);
    CHECK_THROWS_AS(sd::PrefetchLoader(loader, {.ahead = 65537}), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::PrefetchLoader(loader).epoch(-1), std::invalid_argument);
}

}  // namespace test_prefetch
