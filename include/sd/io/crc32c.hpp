// The checksum of TensorFlow's records.
#pragma once

#include "sd/core/config.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

SD_NAMESPACE_BEGIN
namespace detail {

/// The remainders of all bytes by Castagnoli's polynomial, 0x1edc6f41, with its bits in reverse.
inline constexpr auto crc32c_table = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        std::uint32_t rest = byte;
        for (int bit = 0; bit < 8; ++bit) rest = rest >> 1 ^ ((rest & 1) != 0 ? 0x82f63b78 : 0);
        table[byte] = rest;
    }
    return table;
}();

/// CRC-32C, as RFC 3720 has it: 0xe3069283 of "123456789".
inline std::uint32_t crc32c(std::string_view bytes) {
    std::uint32_t rest = 0xffffffff;
    for (const char byte : bytes) rest = rest >> 8 ^ crc32c_table[(rest ^ static_cast<unsigned char>(byte)) & 0xff];
    return ~rest;
}

}  // namespace detail
SD_NAMESPACE_END
