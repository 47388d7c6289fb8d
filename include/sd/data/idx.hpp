// IDX files, the format of MNIST and of the data sets made after it (http://yann.lecun.com/exdb/mnist).
//
//     images:  | 0x00000803 | N | H | W | N H W bytes |        numbers: 4 bytes, big-endian
//     labels:  | 0x00000801 | N | N bytes |
//
// A file may come from anywhere: nothing is allocated that the size of the file does not bear out.
#pragma once

#include "sd/data/dataset.hpp"
#include "sd/io/file.hpp"
#include "sd/io/folder.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iomanip>
#include <span>
#include <string>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Mean and standard deviation over all pixels of MNIST's 60,000 training images, to four digits.
[[nodiscard]] inline Normalization mnist_normalization() { return {{0.1307F}, {0.3081F}}; }

/// Mean and standard deviation over all pixels of Fashion-MNIST's 60,000 training images, to four digits.
[[nodiscard]] inline Normalization fashion_mnist_normalization() { return {{0.2860F}, {0.3530F}}; }

/// An array of bytes, as an IDX file holds it.
struct IdxArray {
    Shape shape;                       ///< extents of 1 or more
    std::vector<std::uint8_t> values;  ///< row-major
};

namespace detail {

/// How many bytes come before the values. Throws std::invalid_argument for a rank out of range.
inline std::size_t idx_header_bytes(Index rank) {
    if (rank < 1 || rank > Shape::max_rank) refuse("IDX", "rank", rank, text("1 to ", Shape::max_rank));
    return 4 * static_cast<std::size_t>(1 + rank);
}

/// The shape that a header of idx_header_bytes(rank) bytes states, of no more values than `most`.
/// Throws std::runtime_error for another magic number, an extent of 0, or more values.
inline Shape parse_idx_header(std::span<const std::byte> header, Index rank, Index most, const std::string& source) {
    const auto number = [&](Index i) {
        std::uint32_t value = 0;
        for (const std::byte byte : header.subspan(static_cast<std::size_t>(4 * i), 4)) {
            value = value << 8 | std::to_integer<std::uint32_t>(byte);
        }
        return value;
    };
    const auto hexadecimal = [](std::uint32_t value) {
        return text("0x", std::hex, std::setw(8), std::setfill('0'), value);
    };
    const std::uint32_t magic = 0x00000800U | static_cast<std::uint32_t>(rank);
    if (number(0) != magic) {
        refuse_file(source, "magic number", hexadecimal(number(0)),
                    text(hexadecimal(magic), ", bytes in ", rank, rank == 1 ? " dimension" : " dimensions"));
    }
    std::vector<Index> extents;
    Index values = 1;
    for (Index i = 1; i <= rank; ++i) {
        const auto extent = static_cast<Index>(number(i));
        if (extent == 0) refuse_file(source, text("extent of dimension ", i - 1), extent, "1 or more");
        if (extent > most / values) {
            refuse_file(source, text("extent of dimension ", i - 1), extent,
                        text("at most ", most / values, ", for ", most, " values, what the file can hold"));
        }
        values *= extent;
        extents.push_back(extent);
    }
    return {extents.begin(), extents.end()};
}

/// The names that a file of MNIST may have: PREFIX-WHAT-FORMAT as it was published, PREFIX-WHAT.FORMAT as it lies in
/// copies, each with every suffix.
inline std::vector<std::string> mnist_names(Split split, const std::string& what, const std::string& format,
                                            const std::vector<std::string>& suffixes) {
    const std::string prefix = split == Split::train ? "train-" : "t10k-";
    std::vector<std::string> names;
    for (const std::string& suffix : suffixes) {
        for (const char* separator : {"-", "."}) names.push_back(prefix + what + separator + format + suffix);
    }
    return names;
}

/// The data set of a split in the files of MNIST's names, with one of the suffixes; `read` makes an array of a path and
/// a rank.
template <class Read>
InMemoryDataset read_mnist(const std::filesystem::path& directory, Split split, const Normalization& normalization,
                           const std::vector<std::string>& suffixes, const Read& read) {
    constexpr Index classes = 10;
    const std::filesystem::path images_path =
        find_file(directory, "images", mnist_names(split, "images", "idx3-ubyte", suffixes));
    const std::filesystem::path labels_path =
        find_file(directory, "labels", mnist_names(split, "labels", "idx1-ubyte", suffixes));
    const IdxArray bytes = read(labels_path, 1);
    std::vector<Index> labels(bytes.values.begin(), bytes.values.end());
    for (std::size_t i = 0; i < labels.size(); ++i) {
        if (labels[i] >= classes) {
            refuse_file(labels_path.string(), text("label ", i), labels[i], text("0 to ", classes - 1));
        }
    }
    IdxArray images = read(images_path, 3);
    if (images.shape[0] != bytes.shape[0]) {
        refuse_file(labels_path.string(), "number of labels", bytes.shape[0],
                    text(images.shape[0], ", the number of images in ", images_path.string()));
    }
    return {{images.shape[1], images.shape[2], 1}, std::move(images.values), std::move(labels), classes, normalization};
}

}  // namespace detail

/// The array of `rank` dimensions, 1 to 4, in the bytes of an IDX file; `source` names it in errors.
/// Throws std::runtime_error for bytes that are not an IDX file of bytes and of that rank, or an extent of 0;
/// std::invalid_argument for a rank out of range.
[[nodiscard]] inline IdxArray parse_idx(std::span<const std::byte> bytes, Index rank, const std::string& source) {
    const std::size_t header_bytes = detail::idx_header_bytes(rank);
    if (bytes.size() < header_bytes) refuse_file(source, "bytes", bytes.size(), text("at least ", header_bytes));
    const std::span<const std::byte> data = bytes.subspan(header_bytes);
    const auto size = static_cast<Index>(data.size());
    const Shape shape = detail::parse_idx_header(bytes.first(header_bytes), rank, size, source);
    if (shape.size() != size) {
        refuse_file(source, "bytes after the header", size, text(shape.size(), " for shape ", shape));
    }
    IdxArray array{shape, std::vector<std::uint8_t>(data.size())};
    std::transform(data.begin(), data.end(), array.values.begin(),
                   [](std::byte byte) { return std::to_integer<std::uint8_t>(byte); });
    return array;
}

/// The array in an IDX file. Throws std::runtime_error if it cannot be read, or as parse_idx does.
[[nodiscard]] inline IdxArray read_idx(const std::filesystem::path& path, Index rank) {
    return parse_idx(read_file(path), rank, path.string());
}

/// MNIST, or a data set of its form with 10 classes such as Fashion-MNIST, from train-images-idx3-ubyte and
/// train-labels-idx1-ubyte for training, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte for testing; each may be
/// spelt with a dot, train-images.idx3-ubyte. Images (H, W, 1), normalised as told: mnist_normalization(),
/// fashion_mnist_normalization().
/// Throws std::runtime_error if a file is missing, telling which are there, or malformed, if there are not as many
/// labels as images, or for a label above 9; std::invalid_argument for a normalization that is not of one channel.
[[nodiscard]] inline InMemoryDataset read_mnist(const std::filesystem::path& directory, Split split,
                                                const Normalization& normalization) {
    return detail::read_mnist(directory, split, normalization, {""}, read_idx);
}

SD_NAMESPACE_END
