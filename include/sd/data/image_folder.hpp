// PNG and JPEG files in a folder a class, as ImageNet is laid out. Needs libpng and libjpeg.
#pragma once

#include "sd/data/dataset.hpp"
#include "sd/data/resize.hpp"
#include "sd/io/file.hpp"
#include "sd/io/image_file.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Mean and standard deviation of red, green and blue in ImageNet's training images, those that torchvision's models
/// expect.
[[nodiscard]] inline Normalization imagenet_normalization() {
    return {{0.485F, 0.456F, 0.406F}, {0.229F, 0.224F, 0.225F}};
}

/// Settings of an ImageFolder.
struct ImageFolderOptions {
    CentreCrop crop = {};                                    ///< which part of an image is used, at what size
    Normalization normalization = imagenet_normalization();  ///< of red, green and blue
};

namespace detail {

/// Names of files that hold images: .png, .jpg, .jpeg, in letters of any case.
inline bool is_image_name(const std::filesystem::path& path) {
    std::string extension = path.extension().string();
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return extension == ".png" || extension == ".jpg" || extension == ".jpeg";
}

/// What `wanted` says yes to in a folder, sorted by the bytes of the names. `what` names it in errors.
/// Throws std::runtime_error if there is nothing.
template <class Wanted>
std::vector<std::filesystem::path> list_folder(const std::filesystem::path& folder, const char* what,
                                               const Wanted& wanted) {
    std::error_code error;
    std::vector<std::filesystem::path> paths;
    for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
        if (wanted(*entry)) paths.push_back(entry->path());
    }
    if (error) refuse_file(folder.string(), "listing", error.message(), "a readable folder");
    if (paths.empty()) refuse_file(folder.string(), what, "none", "one or more");
    std::sort(paths.begin(), paths.end());
    return paths;
}

}  // namespace detail

/// The images FOLDER/CLASS/*.png, *.jpg and *.jpeg. Classes are the sub-folders, sorted by name; in each the files are
/// sorted by name, and others than images are left out. A file is decoded whenever it is read:
///
///     image(h, w, c) = (byte(h, w, c) / 255 - mean(c)) / deviation(c),    bytes after resize_and_crop
class ImageFolder {
public:
    /// Lists the files; none is read. Throws std::runtime_error if a folder cannot be listed, there is no class, or a
    /// class has no image; std::invalid_argument for settings out of range.
    explicit ImageFolder(const std::filesystem::path& folder, const ImageFolderOptions& options = {})
        : crop_(options.crop), values_("ImageFolder", options.normalization, 3) {
        check_centre_crop(crop_);
        std::error_code ignored;  // a link to nothing is no folder and no file
        const auto is_folder = [&](const auto& entry) { return entry.is_directory(ignored); };
        const auto is_image = [&](const auto& entry) {
            return detail::is_image_name(entry.path()) && entry.is_regular_file(ignored);
        };
        for (const std::filesystem::path& path : detail::list_folder(folder, "folders of classes", is_folder)) {
            for (std::filesystem::path& file : detail::list_folder(path, "images", is_image)) {
                files_.push_back(std::move(file));
                labels_.push_back(num_classes());
            }
            classes_.push_back(path.filename().string());
        }
    }

    /// The number of images.
    [[nodiscard]] Index size() const { return static_cast<Index>(files_.size()); }
    /// The number of sub-folders.
    [[nodiscard]] Index num_classes() const { return static_cast<Index>(classes_.size()); }
    /// The name of the sub-folder of each class.
    [[nodiscard]] const std::vector<std::string>& classes() const { return classes_; }

    /// (size, size, 3), size of the crop
    [[nodiscard]] Shape image_shape() const { return {crop_.size, crop_.size, 3}; }

    /// The file of sample i. Throws std::invalid_argument if there is no sample i.
    [[nodiscard]] const std::filesystem::path& file(Index i) const { return files_[checked(i)]; }

    /// Reads and decodes sample i. Throws std::invalid_argument if there is no sample i, std::runtime_error if its file
    /// cannot be read or is refused by decode_image.
    void read(Index i, float* image) const {
        const std::filesystem::path& path = file(i);
        const RgbImage decoded = decode_image(read_file(path), path.string());
        std::vector<std::uint8_t> cropped(static_cast<std::size_t>(image_shape().size()));
        resize_and_crop(decoded.pixels.data(), {decoded.height, decoded.width, 3}, crop_, cropped.data());
        values_.apply(cropped.data(), image_shape().size(), image);
    }

    /// The class of sample i. Throws std::invalid_argument if there is no sample i.
    [[nodiscard]] Index label(Index i) const { return labels_[checked(i)]; }

private:
    [[nodiscard]] std::size_t checked(Index i) const {
        if (i < 0 || i >= size()) refuse("ImageFolder", "sample", i, text("0 to ", size() - 1));
        return static_cast<std::size_t>(i);
    }

    CentreCrop crop_;
    NormalizedBytes values_;
    std::vector<std::string> classes_;
    std::vector<std::filesystem::path> files_;
    std::vector<Index> labels_;
};

SD_NAMESPACE_END
