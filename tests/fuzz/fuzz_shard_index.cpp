// Indexes of sharded safetensors files.
#include "fuzz.hpp"

#include "sd/io/sharded_safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    sd_test::reads_or_refuses(data, size, [](auto bytes) { return sd::parse_shard_index(bytes, "fuzz"); });
    return 0;
}
