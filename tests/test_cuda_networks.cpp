// Networks on the device's kernels without a device, against the processor's networks and PyTorch's numbers.
#include "cuda_emulator.hpp"

#include "sd/cuda/kernels.hpp"

namespace {
using KernelDevice = sd_test::Emulator;
}

#include "../tools/parity_case.hpp"
#include "cuda_network_cases.hpp"

#include <filesystem>

TEST_CASE("kernels do not depend on the order of blocks and threads") {
    const auto bits = [] {
        const auto trace = cuda_networks::run<float, sd_test::Emulator>(2, 1);
        return trace.tensors;
    };
    const auto forwards = bits();
    sd_test::Emulator::backwards = true;
    const auto backwards = bits();
    sd_test::Emulator::backwards = false;
    REQUIRE(forwards.size() == backwards.size());
    for (std::size_t i = 0; i < forwards.size(); ++i) {
        CHECK(std::equal(forwards[i].begin(), forwards[i].end(), backwards[i].begin(), backwards[i].end()));
    }
}

TEST_CASE("PyTorch's numbers, kernels and whole networks") {
    sd::set_warning_handler({});  // the networks here are small on purpose
    int cases = 0;
    for (const auto& file : std::filesystem::directory_iterator(SD_TEST_DATA_DIR "/parity")) {
        CAPTURE(file.path().stem().string());
        const parity::Result result = parity::run_case<sd_test::Emulator>(file.path().string());
        CAPTURE(result.summary());
        CHECK(result.agrees());
        ++cases;
    }
    CHECK(cases == 24);
}
