// The binary versions of CIFAR-10 and CIFAR-100.
// A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
//
//     CIFAR-10:   | label (0 to 9) | red 32 x 32 | green 32 x 32 | blue 32 x 32 |                           3073 bytes
//     CIFAR-100:  | coarse label (0 to 19) | fine label (0 to 99) | red 32 x 32 | green 32 x 32 | blue 32 x 32 |  3074
#pragma once

#include "sd/data/dataset.hpp"
#include "sd/io/file.hpp"
#include "sd/io/folder.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Mean and standard deviation of red, green and blue over all pixels of CIFAR-10's 50,000 training images, to four
/// digits.
[[nodiscard]] inline Normalization cifar10_normalization() {
    return {{0.4914F, 0.4822F, 0.4465F}, {0.2470F, 0.2435F, 0.2616F}};
}

/// Mean and standard deviation of red, green and blue over all pixels of CIFAR-100's 50,000 training images, to four
/// digits.
[[nodiscard]] inline Normalization cifar100_normalization() {
    return {{0.5071F, 0.4865F, 0.4409F}, {0.2673F, 0.2564F, 0.2762F}};
}

namespace detail {

inline constexpr Index cifar_extent = 32;
inline constexpr Index cifar_channels = 3;
inline constexpr Index cifar_plane = cifar_extent * cifar_extent;

/// One of the labels at the start of a record.
struct CifarLabel {
    const char* name;
    Index classes;
};

/// What a file is called in errors, the folder that its archive unpacks to, and the labels of its records, of which the
/// last one gives the classes.
struct CifarFormat {
    const char* name;
    const char* folder;
    std::vector<CifarLabel> labels;
};

inline CifarFormat cifar10_format() { return {"CIFAR-10", "cifar-10-batches-bin", {{"label", 10}}}; }
inline CifarFormat cifar100_format() {
    return {"CIFAR-100", "cifar-100-binary", {{"coarse label", 20}, {"fine label", 100}}};
}

/// The records of one or more files: images of three channels a pixel, and their classes.
struct CifarRecords {
    std::vector<std::uint8_t> pixels;
    std::vector<Index> labels;
};

/// Appends the records of the bytes of a file; `source` names it in errors.
inline void append_cifar(std::span<const std::byte> bytes, const std::string& source, const CifarFormat& format,
                         CifarRecords& records) {
    const std::size_t label_bytes = format.labels.size();
    const std::size_t record_bytes = label_bytes + static_cast<std::size_t>(cifar_channels * cifar_plane);
    if (bytes.empty() || bytes.size() % record_bytes != 0) {
        refuse_file(source, "size in bytes", bytes.size(),
                    text("a positive multiple of ", record_bytes, ", the size of a ", format.name, " record"));
    }
    const std::size_t count = bytes.size() / record_bytes;
    std::size_t pixel = records.pixels.size();
    records.pixels.resize(pixel + count * (record_bytes - label_bytes));
    for (std::size_t i = 0; i < count; ++i) {
        const std::span<const std::byte> record = bytes.subspan(i * record_bytes, record_bytes);
        for (std::size_t j = 0; j < label_bytes; ++j) {
            const auto label = std::to_integer<Index>(record[j]);
            const auto& [name, classes] = format.labels[j];
            if (label >= classes) refuse_file(source, text(name, " of record ", i), label, text("0 to ", classes - 1));
            if (j + 1 == label_bytes) records.labels.push_back(label);
        }
        const std::byte* planes = record.data() + label_bytes;
        for (Index p = 0; p < cifar_plane; ++p) {
            for (Index c = 0; c < cifar_channels; ++c) {
                records.pixels[pixel++] = std::to_integer<std::uint8_t>(planes[c * cifar_plane + p]);
            }
        }
    }
}

/// The data set in the files of these names in a directory, or in the folder of the format's archive there.
inline InMemoryDataset read_cifar(const std::filesystem::path& directory, const std::vector<std::string>& names,
                                  const CifarFormat& format, const Normalization& normalization) {
    std::error_code ignored;
    const bool is_unpacked_here = !std::filesystem::exists(directory / names.front(), ignored) &&
                                  std::filesystem::is_directory(directory / format.folder, ignored);
    const std::filesystem::path folder = is_unpacked_here ? directory / format.folder : directory;
    CifarRecords records;
    for (const std::string& name : names) {
        const std::filesystem::path path = folder / name;
        std::filesystem::path compressed = path;
        compressed += ".xz";
        if (!std::filesystem::exists(path) && std::filesystem::exists(compressed)) {
            refuse_file(path.string(), text(format.name, " file"),
                        text("only its compressed form ", compressed.filename().string()),
                        text("it decompressed, by: xz -dk ", compressed.string()));
        }
        append_cifar(read_file(find_file(folder, text("binary ", format.name), {name})), path.string(), format,
                     records);
    }
    return {{cifar_extent, cifar_extent, cifar_channels},
            std::move(records.pixels),
            std::move(records.labels),
            format.labels.back().classes,
            normalization};
}

}  // namespace detail

/// CIFAR-10 from the files of its binary version: data_batch_1.bin to data_batch_5.bin for training, test_batch.bin for
/// testing, in the directory or in its cifar-10-batches-bin. Images (32, 32, 3), 10 classes, normalised by
/// cifar10_normalization(). A file may hold any positive number of whole records; the published ones hold 10,000.
/// Throws std::runtime_error if a file is missing (and tells what is there), is not made of whole records, or has a
/// label above 9.
[[nodiscard]] inline InMemoryDataset read_cifar10(const std::filesystem::path& directory, Split split) {
    std::vector<std::string> names;
    if (split == Split::train) {
        for (int batch = 1; batch <= 5; ++batch) names.push_back(text("data_batch_", batch, ".bin"));
    } else {
        names.push_back("test_batch.bin");
    }
    return detail::read_cifar(directory, names, detail::cifar10_format(), cifar10_normalization());
}

/// CIFAR-100 from the files of its binary version: train.bin, test.bin, in the directory or in its cifar-100-binary.
/// Images (32, 32, 3), the 100 fine labels as classes, normalised by cifar100_normalization(). A file may hold any
/// positive number of whole records; the published ones hold 50,000 and 10,000.
/// Throws std::runtime_error if the file is missing (and tells what is there), is not made of whole records, or has a
/// coarse label above 19 or a fine label above 99.
[[nodiscard]] inline InMemoryDataset read_cifar100(const std::filesystem::path& directory, Split split) {
    const std::string name = split == Split::train ? "train.bin" : "test.bin";
    return detail::read_cifar(directory, {name}, detail::cifar100_format(), cifar100_normalization());
}

SD_NAMESPACE_END
