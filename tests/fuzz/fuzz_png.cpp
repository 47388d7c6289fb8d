// PNG files.
#include "fuzz.hpp"

#include "sd/io/image_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    sd_test::reads_or_refuses(data, size, [](auto bytes) { return sd::decode_png(bytes, "fuzz"); });
    return 0;
}
