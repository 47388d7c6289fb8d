// cuDNN's plans for the convolutions of the library's networks, on a device that is described in a file: no GPU is
// needed to see that there is a plan for each, that it is deterministic, and exact where that was asked for.
#include "sd/cuda/cudnn_plan.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

using sd::Index;
using sd::cuda::ConvolutionPlan;
using sd::cuda::Direction;

const sd::cuda::PlanTarget& described_device() {
    static const sd::cuda::PlanTarget target = [] {
        std::ifstream file(SD_DEVICE_FILE);
        return sd::cuda::PlanTarget(std::string(std::istreambuf_iterator<char>(file), {}));
    }();
    return target;
}

bool has(const ConvolutionPlan& plan, cudnnBackendNumericalNote_t note) {
    return std::find(plan.notes().begin(), plan.notes().end(), note) != plan.notes().end();
}

const sd::Conv2dGeometry& geometry_of(std::size_t i) {
    static const std::vector<sd::Conv2dGeometry> geometries = {
        {{256, 224, 224, 3}, {64, 3, 7, 7}, {.stride = 2, .padding = 3}},  // resnet50
        {{256, 56, 56, 64}, {64, 64, 3, 3}, {.padding = 1}},
        {{256, 56, 56, 64}, {256, 64, 1, 1}, {}},
        {{256, 56, 56, 256}, {512, 256, 1, 1}, {.stride = 2}},
        {{256, 28, 28, 128}, {128, 128, 3, 3}, {.stride = 2, .padding = 1}},
        {{256, 7, 7, 512}, {2048, 512, 1, 1}, {}},
        {{64, 14, 14, 256}, {256, 8, 3, 3}, {.padding = 1, .groups = 32}},  // resnext50_32x4d
        {{128, 32, 32, 3}, {16, 3, 3, 3}, {.padding = 1}},                  // cifar_resnet110
        {{128, 16, 16, 32}, {32, 32, 3, 3}, {.padding = 1}},
        {{128, 16, 16, 32}, {64, 32, 3, 3}, {.stride = 2, .padding = 1}},
        {{3, 9, 11, 5}, {7, 5, 3, 3}, {.padding = 2, .dilation = 2}}};
    return geometries.at(i);
}
constexpr std::size_t geometry_count = 11;

}  // namespace

TEST_CASE("a deterministic plan for each product of each layer") {
    const sd::cuda::ConvolutionTypes types[] = {
        {CUDNN_DATA_FLOAT, false}, {CUDNN_DATA_FLOAT, true}, {CUDNN_DATA_BFLOAT16, true}};
    for (std::size_t i = 0; i < geometry_count; ++i) {
        for (const auto& type : types) {
            for (const Direction direction : {Direction::forward, Direction::by_input, Direction::by_weight}) {
                CAPTURE(i);
                CAPTURE(type.number());
                CAPTURE(static_cast<int>(direction));
                const auto plan = ConvolutionPlan::make(described_device(), direction, type, geometry_of(i));
                REQUIRE(plan.has_value());
                CHECK_FALSE(has(*plan, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC));
                if (!type.allows_tensor_cores) CHECK_FALSE(has(*plan, CUDNN_NUMERICAL_NOTE_TENSOR_CORE));
            }
        }
    }
}

TEST_CASE("tensor cores are used where they are allowed: the notes tell the difference") {
    const auto plan =
        ConvolutionPlan::make(described_device(), Direction::forward, {CUDNN_DATA_BFLOAT16, true}, geometry_of(1));
    REQUIRE(plan.has_value());
    CHECK(has(*plan, CUDNN_NUMERICAL_NOTE_TENSOR_CORE));
}

TEST_CASE("a call that fails says which, where and why") {
    CHECK_THROWS_WITH_AS(sd::cuda::PlanTarget(std::string("{}")),
                         doctest::Contains("cudnnBackendFinalize(descriptor_): CUDNN_STATUS_BAD_PARAM"),
                         std::runtime_error);
}
