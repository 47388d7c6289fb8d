// Checkpoints.
#include "fuzz.hpp"

#include "sd/io/checkpoint.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    sd_test::reads_or_refuses(data, size, [](auto bytes) { return sd::parse_checkpoint(bytes, "fuzz"); });
    return 0;
}
