// TensorBoard's event files: records of a length, the event and their checksums. An event is a message of protocol
// buffers; its fields are those of tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto.
#pragma once

#include "sd/core/error.hpp"
#include "sd/io/crc32c.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

SD_NAMESPACE_BEGIN
namespace detail {

/// The bytes of an unsigned number, the lowest first.
template <class Unsigned>
std::string little_endian(Unsigned number) {
    std::string bytes;
    for (std::size_t i = 0; i < sizeof number; ++i) bytes += static_cast<char>(number >> 8 * i & 0xff);
    return bytes;
}

/// The unsigned number that the first bytes are, of which there are enough.
template <class Unsigned>
Unsigned from_little_endian(std::string_view bytes) {
    Unsigned number = 0;
    for (std::size_t i = sizeof number; i-- > 0;) {
        number = static_cast<Unsigned>(number << 8 | static_cast<unsigned char>(bytes[i]));
    }
    return number;
}

/// A message of protocol buffers in the making.
class ProtoMessage {
public:
    void add_varint(std::uint32_t field, std::uint64_t number) {
        put_varint(field << 3 | 0);
        put_varint(number);
    }
    void add_double(std::uint32_t field, double number) {
        put_varint(field << 3 | 1);
        bytes_ += little_endian(std::bit_cast<std::uint64_t>(number));
    }
    void add_bytes(std::uint32_t field, std::string_view bytes) {
        put_varint(field << 3 | 2);
        put_varint(bytes.size());
        bytes_ += bytes;
    }
    void add_float(std::uint32_t field, float number) {
        put_varint(field << 3 | 5);
        bytes_ += little_endian(std::bit_cast<std::uint32_t>(number));
    }

    [[nodiscard]] const std::string& bytes() const { return bytes_; }

private:
    /// Seven bits a byte, the lowest first; the top bit says that more follow.
    void put_varint(std::uint64_t number) {
        for (; number >= 0x80; number >>= 7) bytes_ += static_cast<char>((number & 0x7f) | 0x80);
        bytes_ += static_cast<char>(number);
    }

    std::string bytes_;
};

/// Takes a varint from the front; nothing if there is none.
inline std::optional<std::uint64_t> take_varint(std::string_view& bytes) {
    std::uint64_t number = 0;
    for (std::size_t i = 0; i < bytes.size() && i < 10; ++i) {
        const auto byte = static_cast<unsigned char>(bytes[i]);
        number |= static_cast<std::uint64_t>(byte & 0x7f) << 7 * i;
        if (byte < 0x80) {
            bytes.remove_prefix(i + 1);
            return number;
        }
    }
    return std::nullopt;
}

/// The first field of that number that is a text or a message; nothing if there is none, or the message is damaged.
inline std::optional<std::string_view> bytes_field(std::string_view message, std::uint64_t field) {
    while (const auto key = take_varint(message)) {
        std::uint64_t size = 0;
        if (const std::uint64_t kind = *key & 7; kind == 0) {
            if (!take_varint(message)) return std::nullopt;
        } else if (kind == 2) {
            const auto length = take_varint(message);
            if (!length) return std::nullopt;
            size = *length;
        } else if (kind == 1 || kind == 5) {
            size = kind == 1 ? 8 : 4;
        } else {
            return std::nullopt;
        }
        if (size > message.size()) return std::nullopt;
        if (*key == (field << 3 | 2)) return message.substr(0, static_cast<std::size_t>(size));
        message.remove_prefix(static_cast<std::size_t>(size));
    }
    return std::nullopt;
}

/// The checksum in a record: rotated, so that the checksum of bytes that hold checksums is a good one too.
inline std::uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8; }

/// The record of an event.
inline std::string event_record(std::string_view event) {
    std::string record = little_endian(std::uint64_t{event.size()});
    record += little_endian(masked_crc32c(record));
    record += event;
    return record + little_endian(masked_crc32c(event));
}

/// What event_record() adds before and behind an event.
inline constexpr std::size_t record_head = 12, record_tail = 4;

/// The size of an event's record.
inline std::size_t size_of_record(std::string_view event) { return record_head + event.size() + record_tail; }

/// The event of the record that begins at `begin`; nothing if the file ends within it, or has zeros alone from there,
/// as a loss of power leaves it.
/// Throws std::runtime_error for another checksum than the record's.
inline std::optional<std::string_view> event_at(std::string_view content, std::size_t begin, const std::string& name) {
    const auto check = [&](std::string_view bytes, std::string_view checksum) {
        const auto expected = from_little_endian<std::uint32_t>(checksum);
        if (masked_crc32c(bytes) == expected) return;
        refuse_file(name, text("checksum at byte ", begin), masked_crc32c(bytes), text(expected, ", as in the record"));
    };
    const std::string_view rest = content.substr(begin);
    if (rest.size() < record_head || rest.find_first_not_of('\0') == std::string_view::npos) return std::nullopt;
    check(rest.substr(0, 8), rest.substr(8));
    const auto size = from_little_endian<std::uint64_t>(rest);
    if (size > rest.size() || rest.size() - static_cast<std::size_t>(size) < record_head + record_tail)
        return std::nullopt;
    const std::string_view event = rest.substr(record_head, static_cast<std::size_t>(size));
    check(event, rest.substr(record_head + event.size()));
    return event;
}

}  // namespace detail
SD_NAMESPACE_END
