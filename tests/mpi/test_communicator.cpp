// The communicator: what each call gives, on every rank, against numbers that every rank can work out by itself.
#include <doctest/doctest.h>

#include "random.hpp"
#include "ranks.hpp"

#include "sd/core/batch_part.hpp"
#include "sd/nn/joint_statistics.hpp"
#include "sd/cpu/batch_norm.hpp"

#include <cstring>
#include <vector>

namespace test_communicator {

namespace {

using sd::Index;

/// What `rank` gives in a test of this number.
template <class T>
std::vector<T> numbers_of(Index rank, std::size_t count, std::uint64_t test) {
    const auto tensor =
        sd_test::random_tensor<T>({static_cast<Index>(count)}, 100 * test + static_cast<std::uint64_t>(rank));
    return {tensor.begin(), tensor.end()};
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class T>
void check_sums() {
    sd::Communicator& ranks = sd_test::ranks();
    // several sums under way, of awkward sizes, moved on in another order on each rank
    const std::vector<std::size_t> sizes{1, 0, 5, 1000, 100'003, 3, 65'536};
    std::vector<std::vector<T>> numbers;
    std::vector<std::unique_ptr<sd::PendingSum>> sums;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        numbers.push_back(numbers_of<T>(ranks.rank(), sizes[i], i));
        sums.push_back(ranks.start_sum(std::span(numbers.back())));
        for (std::size_t j = 0; j <= i; ++j) sums[(j + static_cast<std::size_t>(ranks.rank())) % (i + 1)]->advance();
    }
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        sums[i]->finish();
        std::vector<T> expected = numbers_of<T>(0, sizes[i], i);
        for (Index rank = 1; rank < ranks.size(); ++rank) {
            const std::vector<T> term = numbers_of<T>(rank, sizes[i], i);
            for (std::size_t k = 0; k < expected.size(); ++k) expected[k] += term[k];
        }
        CHECK(same_bits(numbers[i], expected));
    }
}

TEST_CASE("a sum over ranks has the bits of the sum in rank order") {
    check_sums<float>();
    check_sums<double>();
}

TEST_CASE("a sum of other numbers is refused") {
    std::vector<int> numbers(3);
    CHECK_THROWS_AS((void)sd_test::ranks().start_sum(std::span(numbers)), std::invalid_argument);
}

TEST_CASE("the tests' ranks are on one machine") { CHECK(sd_test::ranks().is_one_machine()); }

TEST_CASE("broadcast gives everyone rank 0's elements") {
    sd::Communicator& ranks = sd_test::ranks();
    for (const std::size_t size : std::vector<std::size_t>{0, 1, 70'000}) {
        std::vector<double> numbers = numbers_of<double>(ranks.rank(), size, 50);
        ranks.broadcast(std::span(numbers));
        CHECK(same_bits(numbers, numbers_of<double>(0, size, 50)));
    }
}

TEST_CASE("all_gather gives everyone the elements of all in rank order") {
    sd::Communicator& ranks = sd_test::ranks();
    const std::vector<float> own = numbers_of<float>(ranks.rank(), 7, 60);
    std::vector<float> all(static_cast<std::size_t>(ranks.size()) * 7);
    ranks.all_gather(std::span<const float>(own), std::span(all));
    std::vector<float> expected;
    for (Index rank = 0; rank < ranks.size(); ++rank) {
        const std::vector<float> part = numbers_of<float>(rank, 7, 60);
        expected.insert(expected.end(), part.begin(), part.end());
    }
    CHECK(same_bits(all, expected));
    all.pop_back();
    CHECK_THROWS_AS(ranks.all_gather(std::span<const float>(own), std::span(all)), std::invalid_argument);
}

TEST_CASE("traffic counts the bytes that leave a rank") {
    sd::Communicator& ranks = sd_test::ranks();
    const Index others = ranks.size() - 1;
    sd::Traffic before = ranks.traffic();
    const auto sent = [&] {
        const Index bytes = ranks.traffic().bytes_sent - before.bytes_sent;
        before = ranks.traffic();
        return bytes;
    };
    std::vector<float> numbers(12);  // parts of 12, 6, 4 or 3 on 1 to 4 ranks
    ranks.start_sum(std::span(numbers))->finish();
    CHECK(sent() == 2 * 4 * 12 * others / ranks.size());
    ranks.broadcast(std::span(numbers));
    CHECK(sent() == (ranks.rank() == 0 ? 4 * 12 * others : 0));
    std::vector<float> all(static_cast<std::size_t>(ranks.size()) * 12);
    ranks.all_gather(std::span<const float>(numbers), std::span(all));
    CHECK(sent() == 4 * 12 * others);
    CHECK((others == 0 || ranks.traffic().seconds > 0));
}

/// Rows [first, last) of x (rows, channels).
sd::Tensor<double> rows_of(const sd::Tensor<double>& x, Index first, Index last) {
    sd::Tensor<double> rows = sd::Tensor<double>::empty({last - first, x.extent(1)});
    std::copy(x.data() + first * x.extent(1), x.data() + last * x.extent(1), rows.data());
    return rows;
}

TEST_CASE("statistics of all ranks are those of all values in one place") {
    sd::Communicator& ranks = sd_test::ranks();
    for (const Index values : {1, 2, 5, 64}) {  // fewer than ranks, too
        const auto x = sd_test::random_tensor<double>({values, 3}, 70);
        const sd::BatchPart part = sd::part_of_rank(values, ranks.rank(), ranks.size());
        const sd::Moments<double> all = sd::batch_moments(x);
        const sd::Moments<double> merged =
            sd::merged_over_ranks(sd::batch_moments(rows_of(x, part.first, part.first + part.count)), ranks);
        CHECK(merged.count == all.count);
        for (Index c = 0; c < 3; ++c) {
            CHECK(merged.mean(c) == doctest::Approx(all.mean(c)).epsilon(1e-13));
            CHECK(merged.m2(c) == doctest::Approx(all.m2(c)).epsilon(1e-13));
        }
        const auto term = [](Index rank, double add) {
            return sd::Tensor<double>({2}, {static_cast<double>(rank) + add, 1.0});
        };
        const auto sums =
            sd::summed_over_ranks(sd::BatchNormSums<double>{term(ranks.rank(), 0), term(ranks.rank(), 0.5)}, ranks, 2);
        const auto size = static_cast<double>(ranks.size());
        CHECK(sums.dweight(0) == size * (size - 1));
        CHECK(sums.dbias(0) == size * (size - 1) + size);
        CHECK(sums.dweight(1) == 2 * size);
    }
}

}  // namespace

}  // namespace test_communicator
