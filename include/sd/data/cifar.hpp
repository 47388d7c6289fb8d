// The binary version of CIFAR-10.
// A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
//
//     record:  | label (1 byte, 0 to 9) | red 32 x 32 | green 32 x 32 | blue 32 x 32 |      3073 bytes
#pragma once

#include "sd/data/dataset.hpp"
#include "sd/io/file.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Which part of a data set.
enum class Split { train, test };

/// Mean and standard deviation of red, green and blue over all pixels of CIFAR-10's 50,000 training images, to four
/// digits.
[[nodiscard]] inline Normalization cifar10_normalization() {
    return {{0.4914F, 0.4822F, 0.4465F}, {0.2470F, 0.2435F, 0.2616F}};
}

namespace detail {

inline constexpr Index cifar_extent = 32;
inline constexpr Index cifar_channels = 3;
inline constexpr Index cifar_plane = cifar_extent * cifar_extent;
inline constexpr Index cifar10_record = 1 + cifar_channels * cifar_plane;

/// Appends the records of one file: images from planes to pixels of three channels, labels as they are.
inline void append_cifar10(const std::filesystem::path& path, std::vector<std::uint8_t>& pixels,
                           std::vector<Index>& labels) {
    std::filesystem::path compressed = path;
    compressed += ".xz";
    if (!std::filesystem::exists(path) && std::filesystem::exists(compressed)) {
        refuse_file(path.string(), "CIFAR-10 file", text("only its compressed form ", compressed.filename().string()),
                    text("it decompressed, by: xz -dk ", compressed.string()));
    }
    const std::vector<std::byte> bytes = read_file(path);
    const auto size = static_cast<Index>(bytes.size());
    if (size == 0 || size % cifar10_record != 0) {
        refuse_file(path.string(), "size in bytes", size,
                    text("a positive multiple of ", cifar10_record, ", the size of a CIFAR-10 record"));
    }
    const Index records = size / cifar10_record;
    std::size_t pixel = pixels.size();
    pixels.resize(pixel + static_cast<std::size_t>(records * cifar_channels * cifar_plane));
    for (Index record = 0; record < records; ++record) {
        const std::byte* from = bytes.data() + record * cifar10_record;
        const auto label = std::to_integer<Index>(*from++);
        if (label > 9) refuse_file(path.string(), text("label of record ", record), label, "0 to 9");
        labels.push_back(label);
        for (Index p = 0; p < cifar_plane; ++p) {
            for (Index c = 0; c < cifar_channels; ++c) {
                pixels[pixel++] = std::to_integer<std::uint8_t>(from[c * cifar_plane + p]);
            }
        }
    }
}

}  // namespace detail

/// CIFAR-10 from the files of its binary version: data_batch_1.bin to data_batch_5.bin for training, test_batch.bin for
/// testing. Images (32, 32, 3), 10 classes, normalised by cifar10_normalization(). A file may hold any positive number
/// of whole records; the published ones hold 10,000.
/// Throws std::runtime_error if a file is missing, is not made of whole records, or has a label above 9.
[[nodiscard]] inline InMemoryDataset read_cifar10(const std::filesystem::path& directory, Split split) {
    std::vector<std::uint8_t> pixels;
    std::vector<Index> labels;
    if (split == Split::train) {
        for (int batch = 1; batch <= 5; ++batch) {
            detail::append_cifar10(directory / text("data_batch_", batch, ".bin"), pixels, labels);
        }
    } else {
        detail::append_cifar10(directory / "test_batch.bin", pixels, labels);
    }
    return {{detail::cifar_extent, detail::cifar_extent, detail::cifar_channels},
            std::move(pixels),
            std::move(labels),
            10,
            cifar10_normalization()};
}

SD_NAMESPACE_END
