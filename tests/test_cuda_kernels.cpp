// The device's kernels without a device: each thread of each block in turn, against the plain loops.
#include "cuda_emulator.hpp"

namespace {
using KernelDevice = sd_test::Emulator;
}

#include "cuda_conv2d_cases.hpp"
#include "cuda_join_cases.hpp"
#include "cuda_kernel_cases.hpp"

#include "sd/device/plan_key.hpp"
#include "sd/device/weights.hpp"

#include <set>

TEST_CASE("weights with channels last and back") {
    using Device = sd_test::Emulator;
    const sd::Tensor<float> weight = sd_test::random_tensor<float>({5, 6, 2, 3}, 1);
    const auto last = sd::cuda::weights_channels_last<float>(sd::to_device<Device>(weight));
    const sd::Tensor<float> own = sd::to_host(last).reshape({5, 2, 3, 6});
    for (sd::Index o = 0; o < 5; ++o) {
        for (sd::Index i = 0; i < 6; ++i) {
            for (sd::Index h = 0; h < 2; ++h) {
                for (sd::Index w = 0; w < 3; ++w) CHECK(own(o, h, w, i) == weight(o, i, h, w));
            }
        }
    }
    auto back = sd::Tensor<float, Device>::empty(weight.shape());
    sd::cuda::weights_channels_first(last, back);
    CHECK(sd_test::relative_error(sd::to_host(back), weight) == 0);
}

TEST_CASE("a plan's key differs wherever the convolution does") {
    using sd::cuda::Direction;
    using sd::cuda::plan_key;
    using Geometry = sd::Conv2dGeometry;
    const Geometry base({2, 9, 9, 4}, {6, 4, 3, 3}, {.padding = 1});
    const std::set<sd::cuda::PlanKey> keys = {
        plan_key(Direction::forward, 0, base), plan_key(Direction::by_input, 0, base),
        plan_key(Direction::by_weight, 0, base), plan_key(Direction::forward, 1, base),
        plan_key(Direction::forward, 0, Geometry({3, 9, 9, 4}, {6, 4, 3, 3}, {.padding = 1})),
        plan_key(Direction::forward, 0, Geometry({2, 8, 9, 4}, {6, 4, 3, 3}, {.padding = 1})),
        plan_key(Direction::forward, 0, Geometry({2, 9, 8, 4}, {6, 4, 3, 3}, {.padding = 1})),
        plan_key(Direction::forward, 0, Geometry({2, 9, 9, 5}, {6, 5, 3, 3}, {.padding = 1})),
        plan_key(Direction::forward, 0, Geometry({2, 9, 9, 4}, {8, 4, 3, 3}, {.padding = 1})),
        plan_key(Direction::forward, 0, Geometry({2, 9, 9, 4}, {6, 4, 1, 3}, {.padding = 1})),
        plan_key(Direction::forward, 0, Geometry({2, 9, 9, 4}, {6, 4, 3, 1}, {.padding = 1})),
        plan_key(Direction::forward, 0, Geometry({2, 9, 9, 4}, {6, 4, 3, 3}, {.padding = 2})),
        plan_key(Direction::forward, 0, Geometry({2, 9, 9, 4}, {6, 4, 3, 3}, {.stride = 2, .padding = 1})),
        plan_key(Direction::forward, 0, Geometry({2, 9, 9, 4}, {6, 4, 3, 3}, {.padding = 1, .dilation = 2})),
        plan_key(Direction::forward, 0, Geometry({2, 9, 9, 4}, {6, 2, 3, 3}, {.padding = 1, .groups = 2})),
        // these two have the same outputs
        plan_key(Direction::forward, 0, Geometry({2, 9, 9, 4}, {6, 4, 3, 3}, {.stride = 4})),
        plan_key(Direction::forward, 0, Geometry({2, 9, 9, 4}, {6, 4, 3, 3}, {.stride = 4, .dilation = 2}))};
    CHECK(keys.size() == 17);
}

TEST_CASE("bfloat16 rounds to the nearest, ties to even") {
    using sd::bfloat16;
    const auto bits = [](float value) { return bfloat16(value).bits(); };
    CHECK(bits(1.0F) == 0x3F80);
    CHECK(bits(1.0F + 0x1p-8F) == 0x3F80);             // a tie, down to even
    CHECK(bits(1.0F + 3 * 0x1p-8F) == 0x3F82);         // a tie, up to even
    CHECK(bits(1.0F + 0x1p-8F + 0x1p-20F) == 0x3F81);  // past a tie
    CHECK(bits(-2.5F) == 0xC020);
    CHECK(bits(std::numeric_limits<float>::max()) == 0x7F80);  // to infinity, the nearest
    CHECK(std::isnan(float(bfloat16(std::numeric_limits<float>::quiet_NaN()))));
    for (std::uint32_t word = 0; word < 0x10000; word += 7) {
        const float value = std::bit_cast<float>(word << 16);
        if (!std::isnan(value)) CHECK(bits(value) == word);
    }
}
