// IDX files, as images and as labels.
#include "fuzz.hpp"

#include "sd/data/idx.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    for (const sd::Index rank : {1, 3}) {
        sd_test::reads_or_refuses(data, size, [&](auto bytes) { return sd::parse_idx(bytes, rank, "fuzz"); });
    }
    return 0;
}
