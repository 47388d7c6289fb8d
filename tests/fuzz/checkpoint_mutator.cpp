// Mutations of checkpoints. They end in a checksum, which a mutation would nearly always break; so it is set right
// again.
#include <cstddef>
#include <cstdint>
#include <zlib.h>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned) {
    size = LLVMFuzzerMutate(data, size, max_size);
    if (size < 4) return size;
    const auto checksum = crc32(0, data, static_cast<uInt>(size - 4));
    for (std::size_t i = 0; i < 4; ++i) data[size - 4 + i] = static_cast<std::uint8_t>(checksum >> 8 * i);
    return size;
}
