// Convolutions on machines that multiply pairs of bfloat16, by a model of their registers on every processor, and on the
// processor's own where it has them.
#include "conv2d_case.hpp"
#include "use_tile_machine.hpp"

#include "sd/sd.hpp"
#include "sd/testing/amx_model.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <vector>

namespace test_tile_machines {

using sd::bfloat16;
using sd::Conv2dOptions;
using sd::Index;
using sd::Shape;
using sd::Tensor;
using sd_test::Draw;
using sd_test::in_double;
using sd_test::UseTileMachine;

namespace {

/// The model, the same with so small a cache that everything is cut into pieces and rounds, and what this processor has;
/// all of them for every convolution.
[[nodiscard]] std::vector<sd::cpu::TileMachine> machines() {
    std::vector<sd::cpu::TileMachine> result{sd::testing::amx_model, sd::testing::amx_model};
    result.back().name = "amx_model with a small cache";
    result.back().cache_bytes = Index{16} << 10;
#if defined(SD_HAS_AMX)
    if (sd::cpu::may_use_amx()) result.push_back(sd::cpu::amx_machine);
#endif
#if defined(SD_HAS_AVX512_BF16)
    if (sd::cpu::has_avx512_bf16()) result.push_back(sd::cpu::avx512_bf16_machine);
#endif
    for (auto& machine : result) machine.beats_winograd = true;
    return result;
}

[[nodiscard]] double number(float value) { return static_cast<double>(value); }
[[nodiscard]] double number(bfloat16 value) { return static_cast<double>(static_cast<float>(value)); }

/// Each element is within half a unit of its own last place of a number that float's rounding allows, but for a few,
/// an operand of which lay so close between two numbers that float and double round it apart: they may differ by what
/// that makes.
template <class T>
void check_products(const Tensor<T>& got, const Tensor<double>& expected, double tolerance) {
    REQUIRE(got.shape() == expected.shape());
    double largest = 1e-3;
    for (const double value : expected) largest = std::max(largest, std::abs(value));
    const double half_unit = std::is_same_v<T, bfloat16> ? 1.0 / 256 : 0;
    const double tie = 0.05;
    Index ties = 0;
    Index wrong = 0;
    for (Index i = 0; i < got.size(); ++i) {
        const double value = expected.data()[i];
        const double excess = std::abs(number(got.data()[i]) - value) - std::abs(value) * half_unit -
                              tolerance * sd_test::rounding<float> * largest;
        if (!(excess <= 0)) ++ties;
        if (!(excess <= tie)) ++wrong;
    }
    CHECK(wrong == 0);
    CHECK(ties <= got.size() / 50 + 2);
}

void check_conv2d(const Shape& x_shape, const Shape& weight_shape, const Conv2dOptions& options, Index kind) {
    const sd_test::Conv2dCase<bfloat16> one(x_shape, weight_shape, options, kind);
    const auto operands = one.rounded_operands();
    for (const auto& machine : machines()) {
        CAPTURE(machine.name);
        const UseTileMachine use(&machine);
        one.check(operands, 4, [](const auto& got, const Tensor<double>& expected, double tolerance) {
            check_products(got, expected, tolerance);
        });
    }
}

}  // namespace

TEST_CASE("convolutions of all kinds") {
    for (int i = 0; i < 24; ++i) {
        Draw draw(static_cast<std::uint64_t>(i));
        const Index groups = draw(0, 2) == 0 ? draw(2, 5) : 1;
        const Index kernel_height = draw(1, 4);
        const Index kernel_width = draw(1, 4);
        const Conv2dOptions options{draw(1, 3), draw(0, 3), draw(1, 2), groups};
        const Shape x_shape{draw(1, 3), draw(7, 13), draw(7, 13), groups * draw(1, 70 / groups)};
        const Shape weight_shape{groups * draw(2, 70 / groups), x_shape[3] / groups, kernel_height, kernel_width};
        check_conv2d(x_shape, weight_shape, options, i);
    }
}

TEST_CASE(
    "depths that are cut into chunks, batches whose samples share a piece, rows that are cut, and no row at all") {
    check_conv2d({2, 4, 3, 600}, {70, 600, 3, 3}, {.padding = 1}, 2);
    check_conv2d({1, 5, 5, 300}, {40, 300, 3, 3}, {.stride = 2, .padding = 1}, 2);
    check_conv2d({19, 3, 4, 33}, {40, 33, 3, 3}, {.padding = 1}, 2);
    check_conv2d({17, 4, 5, 40}, {33, 40, 3, 3}, {.stride = 2, .padding = 1}, 1);
    check_conv2d({9, 21, 40, 5}, {6, 5, 3, 3}, {.stride = 2, .padding = 1}, 2);  // last pieces of fewer rows
    check_conv2d({1, 2, 700, 36}, {34, 36, 3, 3}, {.padding = 1}, 2);
    check_conv2d({1, 40, 50, 64}, {64, 64, 1, 1}, {}, 2);
    check_conv2d({2, 20, 20, 3}, {32, 3, 7, 7}, {.stride = 2, .padding = 3}, 0);
    check_conv2d({1, 3, 3, 3}, {8, 3, 3, 3}, {.padding = 9}, 0);
    check_conv2d({1, 3, 2, 9}, {8, 9, 3, 3}, {.padding = 50, .dilation = 50}, 2);
    check_conv2d({3, 6, 6, 24}, {24, 2, 3, 3}, {.padding = 1, .groups = 12}, 2);
}

TEST_CASE("the same bits for any number of threads") {
    const sd_test::Conv2dCase<bfloat16> one({5, 12, 9, 48}, {80, 48, 3, 3}, {.padding = 1}, 2);
    const sd_test::Conv2dCase<bfloat16> large({9, 4, 4, 256}, {256, 256, 3, 3}, {.padding = 1}, 2);
    for (const auto* example : {&one, &large}) {
        for (const auto& machine : machines()) {
            if (example == &large && machine.begin == sd::testing::amx_model.begin) continue;  // the others are quick
            CAPTURE(machine.name);
            const UseTileMachine use(&machine);
            std::vector<std::vector<Tensor<double>>> results;
            for (const int threads : {1, 2, 5}) {
                sd::set_num_threads(threads);
                results.push_back(example->run().all());
            }
            for (std::size_t i = 0; i < results.front().size(); ++i) {
                for (const auto& other : results) {
                    CHECK(std::equal(other[i].begin(), other[i].end(), results.front()[i].begin()));
                }
            }
        }
    }
}

#if defined(SD_HAS_AMX)
TEST_CASE("the model computes what the processor computes, bit for bit") {
    if (!sd::cpu::may_use_amx()) {
        MESSAGE("this processor has no AMX, or the system does not lend it: only the model ran");
        return;
    }
    constexpr std::uint32_t seed = 7;
    INFO("seed ", seed);
    std::mt19937 random(seed);
    for (int repetition = 0; repetition < 50; ++repetition) {
        const Index steps = 1 + repetition % 5;
        std::vector<bfloat16> rows(static_cast<std::size_t>(steps * sd::cpu::pair_step));
        std::vector<bfloat16> columns(rows.size());
        // Any bits: infinities, numbers too small to be normal, and of one in four tiles NaN.
        const auto fill = [&](std::vector<bfloat16>& values) {
            for (bfloat16& value : values) {
                auto word = static_cast<std::uint32_t>(random()) << 16;
                if (repetition % 4 != 0 && (word & 0x7F800000U) > 0x60000000U) word &= 0xBFFFFFFFU;
                value = bfloat16(std::bit_cast<float>(word));
            }
        };
        fill(rows);
        fill(columns);
        std::vector<Index> offsets;
        for (Index step = 0; step < steps; ++step) offsets.push_back(step * sd::cpu::pair_step);
        const sd::cpu::PairOperands operands{{rows.data(), 0, offsets.data(), sd::cpu::pair_lanes},
                                             {columns.data(), 0, offsets.data(), sd::cpu::pair_step / 2},
                                             1,
                                             steps};
        std::vector<float> sums[2];
        for (const auto* machine : {&sd::cpu::amx_machine, &sd::testing::amx_model}) {
            auto& result = sums[machine == &sd::cpu::amx_machine ? 0 : 1];
            result.assign(static_cast<std::size_t>(sd::cpu::pair_step), 0.25F);
            machine->begin();
            machine->multiply(operands, result.data(), false);
            machine->multiply(operands, result.data(), true);
            machine->end();
        }
        Index different = 0;
        for (std::size_t i = 0; i < sums[0].size(); ++i) {
            const bool both_nan = sums[0][i] != sums[0][i] && sums[1][i] != sums[1][i];
            if (!both_nan && std::bit_cast<std::uint32_t>(sums[0][i]) != std::bit_cast<std::uint32_t>(sums[1][i])) {
                ++different;
            }
        }
        CHECK(different == 0);
    }
}
#endif

TEST_CASE("the model refuses what the hardware would refuse") {
    using sd::testing::AmxModel;
    CHECK_THROWS_AS(AmxModel::zero<0>(), std::logic_error);
    sd::cpu::AmxConfiguration few_rows;
    few_rows.rows[3] = 8;
    AmxModel::configure(few_rows);
    AmxModel::zero<0>();
    CHECK_THROWS_AS(AmxModel::zero<3>(), std::logic_error);
    AmxModel::release();
    sd::cpu::AmxConfiguration many_rows;
    many_rows.rows[0] = 17;
    CHECK_THROWS_AS(AmxModel::configure(many_rows), std::logic_error);
}

}  // namespace test_tile_machines
