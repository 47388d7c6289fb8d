// IDX files compressed by gzip, as MNIST and Fashion-MNIST are published, or not. Needs zlib.
#pragma once

#include "sd/data/idx.hpp"
#include "sd/io/deflate.hpp"
#include "sd/io/gzip.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

SD_NAMESPACE_BEGIN

/// As parse_idx, for the bytes of a gzip file. No more is decompressed than the header of the array promises, and that
/// no more than so many compressed bytes can hold.
/// Throws std::runtime_error for what parse_idx refuses, and for gzip that is cut off, corrupt or followed by anything;
/// std::invalid_argument for a rank out of range.
[[nodiscard]] inline IdxArray parse_idx_gzip(std::span<const std::byte> bytes, Index rank, const std::string& source) {
    GzipReader reader(bytes, source);
    std::vector<std::byte> header(detail::idx_header_bytes(rank));
    reader.read(header);
    const Index most = static_cast<Index>(bytes.size()) * detail::largest_deflate_ratio;
    const Shape shape = detail::parse_idx_header(header, rank, most, source);
    IdxArray array{shape, std::vector<std::uint8_t>(static_cast<std::size_t>(shape.size()))};
    reader.read(std::as_writable_bytes(std::span(array.values)));
    reader.expect_end();
    return array;
}

/// The array in an IDX file, compressed or not as its first bytes tell.
/// Throws std::runtime_error if it cannot be read, or as parse_idx and parse_idx_gzip do.
[[nodiscard]] inline IdxArray read_idx_gzip(const std::filesystem::path& path, Index rank) {
    const std::vector<std::byte> bytes = read_file(path);
    const bool is_gzip = bytes.size() >= 2 && bytes[0] == std::byte{0x1F} && bytes[1] == std::byte{0x8B};
    return (is_gzip ? parse_idx_gzip : parse_idx)(bytes, rank, path.string());
}

/// As read_mnist, each file compressed or not: train-images-idx3-ubyte or else train-images-idx3-ubyte.gz, and so on.
[[nodiscard]] inline InMemoryDataset read_mnist_gzip(const std::filesystem::path& directory, Split split,
                                                     const Normalization& normalization) {
    return detail::read_mnist(directory, split, normalization, {"", ".gz"}, read_idx_gzip);
}

SD_NAMESPACE_END
