// Masks: exact bits, rates, and where they must differ and agree.
#include "random.hpp"

#include "sd/stochastic_depth/policy.hpp"
#include "sd/models/resnet_variants.hpp"
#include "sd/stochastic_depth/surgery.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace test_masks {

namespace {

sd::Context train(std::uint64_t step, std::uint64_t seed = sd_test::seed, std::uint64_t offset = 0,
                  std::uint32_t rank = 0) {
    return sd::Context::train({.step = step, .seed = seed, .sample_offset = offset, .rank = rank});
}

// P(|X - n p| >= |observed - n p|) for X ~ Binomial(n, p), by summing its probabilities.
double binomial_p_value(int trials, double p, int observed) {
    double log_choose = 0;
    double total = 0;
    const double distance = std::abs(observed - trials * p) - 1e-9;
    for (int k = 0; k <= trials; ++k) {
        if (k > 0) log_choose += std::log(trials - k + 1.0) - std::log(static_cast<double>(k));
        if (std::abs(k - trials * p) >= distance)
            total += std::exp(log_choose + k * std::log(p) + (trials - k) * std::log(1 - p));
    }
    return total;
}

// What a block-wise policy decides in 250 steps: 1 kept, 0 dropped.
sd::Mask block_bits(const sd::BlockPolicy& policy, std::uint64_t seed, std::uint32_t block = 0,
                    std::uint32_t rank = 0) {
    sd::Mask bits;
    for (std::uint64_t step = 0; step < 250; ++step)
        bits.push_back(policy.draw(train(step, seed, 0, rank), block, 4)[0]);
    return bits;
}

int ones(const sd::Mask& mask) { return static_cast<int>(std::count(mask.begin(), mask.end(), 1)); }

bool all_differ(const std::vector<sd::Mask>& masks) {
    for (const sd::Mask& mask : masks) {
        if (std::count(masks.begin(), masks.end(), mask) != 1) return false;
    }
    return true;
}

// Whether two masks of rate 1/2 agree as often as independent coins do.
bool look_independent(const sd::Mask& a, const sd::Mask& b) {
    int equal = 0;
    for (std::size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i] ? 1 : 0;
    return binomial_p_value(static_cast<int>(a.size()), 0.5, equal) > 0.001;
}

}  // namespace

TEST_CASE("the binomial test itself: known values, and it rejects what is off") {
    CHECK(binomial_p_value(1, 0.5, 0) == doctest::Approx(1).epsilon(1e-12));
    CHECK(binomial_p_value(10, 0.5, 0) == doctest::Approx(2 / 1024.0).epsilon(1e-12));
    CHECK(binomial_p_value(10, 0.5, 8) == doctest::Approx(2 * (45 + 10 + 1) / 1024.0).epsilon(1e-12));
    CHECK(binomial_p_value(250, 0.8, 180) < 0.01);
    CHECK(binomial_p_value(250, 0.2, 70) < 0.01);
}

TEST_CASE("the drop threshold is the smallest integer that is not below p 2^24") {
    CHECK(sd::detail::drop_threshold(0) == 0);
    CHECK(sd::detail::drop_threshold(1) == (1U << 24));
    CHECK(sd::detail::drop_threshold(0.5) == (1U << 23));
    CHECK(sd::detail::drop_threshold(0x1p-24) == 1);
    CHECK(sd::detail::drop_threshold(0x1p-25) == 1);
    CHECK(sd::detail::drop_threshold(std::numeric_limits<double>::denorm_min()) == 1);
    CHECK(sd::detail::drop_threshold(std::nextafter(1.0, 0.0)) == (1U << 24));
}

TEST_CASE("a mask is the binding function of seed, step, block and sample") {
    // key = (seed low, seed high), counter = (index, block, step low, step high << 8 | tag)
    const std::uint64_t seed = 0x123456789abcdef0ULL;
    const std::uint64_t step = 0x00c0ffee00000007ULL;
    const sd::PhiloxCounter words = sd::philox4x32_10({5, 3, 7U, 0x00c0ffeeU << 8}, {0x9abcdef0U, 0x12345678U});
    for (const double p : {0.1, 0.5, 0.9}) {
        const bool keep = (words[0] >> 8) >= static_cast<std::uint32_t>(std::ceil(p * 16777216.0));
        CHECK(sd::keeps_branch(p, seed, step, 3, 5) == keep);
    }
    const double at_the_word = (words[0] >> 8) * 0x1p-24;
    CHECK(sd::keeps_branch(at_the_word, seed, step, 3, 5));
    CHECK_FALSE(sd::keeps_branch(std::nextafter(at_the_word, 1.0), seed, step, 3, 5));
}

TEST_CASE("policies draw that function: of global sample and block for samples, of 0 or the rank for blocks") {
    const sd::Mask sample = sd::SamplePolicy{.drop_rate = 0.5}.draw(train(9, 7, 100, 2), 3, 40);
    for (std::uint32_t n = 0; n < 40; ++n) CHECK((sample[n] == 1) == sd::keeps_branch(0.5, 7, 9, 3, 100 + n));
    for (std::uint64_t step = 0; step < 40; ++step) {
        const sd::Mask same = sd::BlockPolicy{.drop_rate = 0.5}.draw(train(step, 7, 100, 2), 3, 2);
        const sd::Mask other =
            sd::BlockPolicy{.drop_rate = 0.5, .use_same_gpu_seed = false}.draw(train(step, 7, 100, 2), 3, 2);
        CHECK(same == sd::Mask(2, sd::keeps_branch(0.5, 7, step, 3, 0) ? 1 : 0));
        CHECK(other == sd::Mask(2, sd::keeps_branch(0.5, 7, step, 3, 2) ? 1 : 0));
    }
}

TEST_CASE("both policies keep with probability 1 - p") {
    for (const double p : {0.2, 0.5, 0.8}) {
        for (std::uint64_t seed = 0; seed < 10; ++seed) {
            CAPTURE(p);
            CAPTURE(seed);
            CHECK(binomial_p_value(250, 1 - p, ones(block_bits({.drop_rate = p}, seed))) > 0.01);
            CHECK(binomial_p_value(250, 1 - p, ones(sd::SamplePolicy{.drop_rate = p}.draw(train(0, seed), 0, 250))) >
                  0.01);
        }
    }
}

TEST_CASE("p = 0 keeps all and p = 1 none, always") {
    for (std::uint64_t step = 0; step < 1000; ++step) {
        CHECK(sd::SamplePolicy{.drop_rate = 0}.draw(train(step), 0, 64) == sd::Mask(64, 1));
        CHECK(sd::SamplePolicy{.drop_rate = 1}.draw(train(step), 0, 64) == sd::Mask(64, 0));
        CHECK(sd::BlockPolicy{.drop_rate = 0}.draw(train(step), 0, 4) == sd::Mask(4, 1));
        CHECK(sd::BlockPolicy{.drop_rate = 1}.draw(train(step), 0, 4) == sd::Mask(4, 0));
    }
}

TEST_CASE("masks of other blocks, steps, seeds and samples are others, and independent") {
    const sd::SamplePolicy sample{.drop_rate = 0.5};
    const std::uint64_t seed = sd_test::seed;
    const std::uint64_t high = std::uint64_t{1} << 32;
    std::vector<sd::Mask> masks;
    for (std::uint32_t block = 0; block < 16; ++block) masks.push_back(sample.draw(train(3), block, 250));
    masks.push_back(sample.draw(train(4), 0, 250));
    masks.push_back(sample.draw(train(3 + high), 0, 250));
    masks.push_back(sample.draw(train(3, seed + 1), 0, 250));
    masks.push_back(sample.draw(train(3, seed + high), 0, 250));
    masks.push_back(sample.draw(train(3, seed, 250, 1), 0, 250));  // the second rank's part of the batch
    const sd::BlockPolicy by_rank{.drop_rate = 0.5, .use_same_gpu_seed = false};
    for (std::uint32_t block = 0; block < 16; ++block) masks.push_back(block_bits(by_rank, seed, block));
    masks.push_back(block_bits(by_rank, seed + 1));
    for (std::uint32_t rank = 1; rank < 4; ++rank) masks.push_back(block_bits(by_rank, seed, 0, rank));
    CHECK(all_differ(masks));
    int dependent = 0;
    for (std::size_t a = 0; a < masks.size(); ++a) {
        for (std::size_t b = 0; b < a; ++b) dependent += look_independent(masks[a], masks[b]) ? 0 : 1;
    }
    CHECK(dependent <= 5);  // of 820 pairs, at one in a thousand
}

TEST_CASE("masks agree where they must") {
    const sd::SamplePolicy sample{.drop_rate = 0.5};
    const sd::Mask mask = sample.draw(train(3), 2, 64);
    CHECK(mask == sample.draw(train(3), 2, 64));
    CHECK(mask ==
          sd::SamplePolicy{.drop_rate = 0.5, .compute = sd::Compute::survivors, .scaling = sd::Scaling::train}.draw(
              train(3), 2, 64));

    // Ranks or microbatches with a part of the batch each draw what one rank with the whole batch draws.
    for (const sd::Index part : {32, 16, 1}) {
        sd::Mask parts;
        for (sd::Index first = 0; first < 64; first += part) {
            const auto rank = static_cast<std::uint32_t>(first / part);
            const sd::Mask drawn =
                sample.draw(train(3, sd_test::seed, static_cast<std::uint64_t>(first), rank), 2, part);
            parts.insert(parts.end(), drawn.begin(), drawn.end());
        }
        CHECK(parts == mask);
    }

    const sd::BlockPolicy same{.drop_rate = 0.5};
    const sd::BlockPolicy by_rank{.drop_rate = 0.5, .use_same_gpu_seed = false};
    CHECK(block_bits(same, 1, 2, 0) == block_bits(same, 1, 2, 3));
    CHECK(block_bits(by_rank, 1, 2, 0) == block_bits(same, 1, 2, 0));
    // Of two rates in one place, the larger drops all that the smaller drops.
    const sd::Mask more = sd::SamplePolicy{.drop_rate = 0.7}.draw(train(3), 2, 64);
    for (std::size_t n = 0; n < 64; ++n) CHECK(more[n] <= mask[n]);
}

TEST_CASE("the blocks of a network draw masks of their own, a function of the context alone") {
    auto model = sd::cifar_bottleneck_resnet<float>(29);
    const auto masks_of = [&](std::uint64_t step) {
        const auto x = sd_test::random_tensor<float>({64, 4, 4, 3}, 1);
        (void)model.forward(x, train(step));
        std::vector<sd::Mask> masks;
        for (const auto& block : model.blocks()) masks.push_back(block.mask());
        return masks;
    };
    sd::apply_stochastic_depth(model, {.stochastic_method = sd::StochasticMethod::sample,
                                       .drop_rate = 0.5,
                                       .drop_distribution = sd::DropDistribution::uniform});
    const auto masks = masks_of(5);
    CHECK(all_differ(masks));
    CHECK(masks_of(6) != masks);
    CHECK(masks_of(5) == masks);  // whatever was drawn before
    for (std::uint32_t i = 0; i < masks.size(); ++i) {
        CHECK(masks[i] == sd::SamplePolicy{.drop_rate = 0.5}.draw(train(5), i, 64));
    }
}

}  // namespace test_masks
