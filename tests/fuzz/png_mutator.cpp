// Mutations of PNG files. Their chunks end in checksums, which a mutation would nearly always break; so they are set
// right again.
#include <cstddef>
#include <cstdint>
#include <zlib.h>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned) {
    size = LLVMFuzzerMutate(data, size, max_size);
    const auto number_at = [&](std::size_t place) {
        std::size_t number = 0;
        for (std::size_t i = 0; i < 4; ++i) number = number << 8 | data[place + i];
        return number;
    };
    // After 8 bytes, chunks: | length | name (4 bytes) | data | checksum of name and data |
    for (std::size_t chunk = 8; chunk + 12 <= size && number_at(chunk) <= size - chunk - 12;) {
        const std::size_t length = number_at(chunk);
        const auto checksum = crc32(0, data + chunk + 4, static_cast<uInt>(4 + length));
        chunk += 12 + length;
        for (std::size_t i = 0; i < 4; ++i) data[chunk - 1 - i] = static_cast<std::uint8_t>(checksum >> 8 * i);
    }
    return size;
}
