// The lists of masks that benchmarks train with.
#include "../bench/masks.hpp"

#include "sd/stochastic_depth/schedule.hpp"

#include <doctest/doctest.h>

#include <numeric>

namespace test_bench_masks {

using bench::BlockCost;
using bench::Index;
using bench::MaskList;

namespace {

Index kept_samples(const MaskList& masks, std::size_t block) {
    Index kept = 0;
    for (const auto& step : masks) kept = std::accumulate(step[block].begin(), step[block].end(), kept);
    return kept;
}

std::vector<BlockCost> linear_blocks(double rate, const std::vector<double>& costs) {
    std::vector<BlockCost> blocks;
    for (std::size_t i = 0; i < costs.size(); ++i) {
        const double drop_rate = sd::drop_rate_of_block(sd::DropDistribution::linear, rate, static_cast<Index>(i),
                                                        static_cast<Index>(costs.size()));
        blocks.push_back({drop_rate, costs[i]});
    }
    return blocks;
}

}  // namespace

TEST_CASE("relative cost by hand") {
    // expected 0.5 * 1 + 1 * 3; over both steps the first block runs for one sample in four, the second for all
    const MaskList masks = {{{1, 0}, {1, 1}}, {{0, 0}, {1, 1}}};
    CHECK(bench::relative_cost(masks, {{0.5, 1}, {0, 3}}) == doctest::Approx(3.25 / 3.5));
}

TEST_CASE("where the expected number of kept samples is whole, the list is the shortest that has it") {
    const std::vector<BlockCost> half(8, {0.5, 1.0});
    const MaskList one = bench::stratified_masks(half, 16, false);
    REQUIRE(one.size() == 1);
    for (std::size_t i = 0; i < half.size(); ++i) CHECK(kept_samples(one, i) == 8);

    const std::vector<BlockCost> tenth(8, {0.1, 1.0});
    const MaskList five = bench::stratified_masks(tenth, 16, false);
    REQUIRE(five.size() == 5);
    for (std::size_t i = 0; i < tenth.size(); ++i) CHECK(kept_samples(five, i) == 72);
    for (const auto& step : five) {
        for (const sd::Mask& mask : step) {
            const Index kept = std::accumulate(mask.begin(), mask.end(), Index{0});
            CHECK((kept == 14 || kept == 15));
        }
    }
}

TEST_CASE("elsewhere each block keeps its branch as often as whole numbers allow, at the expected mean cost") {
    const std::vector<double> costs = {3, 2.5, 2.5, 4.5, 2.5, 2.5, 2.5, 4.5, 2.5, 2.5, 2.5, 2.5, 2.5, 4.5, 2.5, 2.5};
    for (const double rate : {0.1, 0.5}) {
        for (const bool whole_batch : {false, true}) {
            const std::vector<BlockCost> blocks = linear_blocks(rate, costs);
            const MaskList masks = bench::stratified_masks(blocks, 16, whole_batch);
            const auto steps = static_cast<double>(masks.size());
            double cost = 0;
            double expected_cost = 0;
            for (std::size_t i = 0; i < blocks.size(); ++i) {
                const double draws = whole_batch ? steps : 16 * steps;
                const double kept = static_cast<double>(kept_samples(masks, i)) / (whole_batch ? 16 : 1);
                CHECK(std::abs(kept - draws * (1 - blocks[i].drop_rate)) < 1);
                cost += costs[i] * kept / draws;
                expected_cost += costs[i] * (1 - blocks[i].drop_rate);
                for (const auto& step : masks) {
                    REQUIRE(step[i].size() == 16);
                    if (whole_batch) CHECK(step[i] == sd::Mask(16, step[i].front()));
                }
            }
            CHECK(cost / expected_cost == doctest::Approx(1).epsilon(0.002));
        }
    }
}

TEST_CASE("a mean cost that no list reaches is refused") {
    // in 40 draws a block of rate 0.013 is dropped 0.52 times
    CHECK_THROWS_AS(bench::stratified_masks({{0.013, 1.0}}, 16, true), std::logic_error);
}

}  // namespace test_bench_masks
