// PNG and JPEG files in a folder per class, as ImageNet is laid out. Needs libpng and libjpeg.
#pragma once

#include "sd/core/warning.hpp"
#include "sd/data/dataset.hpp"
#include "sd/data/resize.hpp"
#include "sd/io/file.hpp"
#include "sd/io/folder.hpp"
#include "sd/io/image_file.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
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

/// The extension of a name, in small letters.
inline std::string lower_extension(const std::filesystem::path& path) {
    std::string extension = path.extension().string();
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return extension;
}

/// What a folder of classes holds. Names in errors and warnings are relative to it.
struct ImageListing {
    std::vector<std::filesystem::path> images;  ///< of one class
    std::vector<std::string> unread;            ///< images of a kind that is not read
    std::vector<std::string> others;            ///< what is no image by its name, or no file
};

/// Adds a file to the list where it belongs.
inline void sort_in(const std::filesystem::directory_entry& entry, const std::filesystem::path& top,
                    ImageListing& listing) {
    using Names = std::array<std::string_view, 8>;
    static constexpr Names read = {".jpeg", ".jpg", ".png"};
    static constexpr Names unread = {".bmp", ".gif", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp"};
    const auto is_one_of = [extension = lower_extension(entry.path())](const Names& names) {
        return !extension.empty() && std::find(names.begin(), names.end(), extension) != names.end();
    };
    std::error_code ignored;  // a link to nothing is no file
    const bool is_file = entry.is_regular_file(ignored);
    if (is_file && is_one_of(read)) {
        listing.images.push_back(entry.path());
    } else {
        auto& names = is_file && is_one_of(unread) ? listing.unread : listing.others;
        names.push_back(entry.path().lexically_relative(top).string());
    }
}

/// Adds a folder to `folders`, by its path, and all folders in it. Links are followed.
/// Throws std::runtime_error if one cannot be listed, or is a link to a folder that it is in.
inline void collect_folders(const std::filesystem::path& folder, std::vector<std::filesystem::path>& above,
                            std::map<std::string, std::vector<std::filesystem::directory_entry>>& folders) {
    above.push_back(folder);
    auto& files = folders[folder.string()];
    for (std::filesystem::directory_entry& entry : list_folder(folder)) {
        std::error_code ignored;
        if (!entry.is_directory(ignored)) {
            files.push_back(std::move(entry));
            continue;
        }
        const auto is_entry = [&](const auto& path) { return std::filesystem::equivalent(path, entry, ignored); };
        if (entry.is_symlink(ignored) && std::any_of(above.begin(), above.end(), is_entry)) {
            refuse_file(entry.path().string(), "folder", "a link to a folder that it is in", "a folder of its own");
        }
        collect_folders(entry.path(), above, folders);
    }
    above.pop_back();
}

/// Adds the files of a class in the order of torchvision's ImageFolder: folders by their paths' bytes, and in each the
/// files by name.
inline void list_class(const std::filesystem::path& folder, const std::filesystem::path& top, ImageListing& listing) {
    std::vector<std::filesystem::path> above = {top};
    std::map<std::string, std::vector<std::filesystem::directory_entry>> folders;
    collect_folders(folder, above, folders);
    for (const auto& [path, files] : folders) {
        for (const auto& file : files) sort_in(file, top, listing);
    }
}

/// How many files there are of each kind and the name of one, for messages: "2 .txt (a/1.txt), 1 .db (Thumbs.db)".
inline std::string kinds_of(const std::vector<std::string>& names) {
    std::map<std::string, std::pair<std::size_t, std::string>> kinds;  // how many, and the first
    for (const std::string& name : names) {
        const std::string extension = lower_extension(name);
        auto& [count, first] = kinds[extension.empty() ? "without extension" : extension];
        if (count++ == 0) first = name;
    }
    std::vector<std::string> texts;
    for (const auto& [kind, files] : kinds) texts.push_back(text(files.first, ' ', kind, " (", files.second, ')'));
    return some_of(texts);
}

}  // namespace detail

/// The files .png, .jpg and .jpeg, in letters of any case, of FOLDER/CLASS, as torchvision's ImageFolder lists them.
/// Classes are the sub-folders, sorted by name; the files of a class are in its folder and in all folders in that one,
/// sorted. Names that begin with a dot are left out, and so are files that are no images, with a warning that counts
/// them. A file is decoded whenever it is read, and what it is its first bytes tell:
///
///     image(h, w, c) = (byte(h, w, c) / 255 - mean(c)) / deviation(c),    bytes after resize_and_crop
class ImageFolder {
public:
    /// Lists the files; none is read. Throws std::runtime_error if a folder cannot be listed, there is no class, a
    /// class has no image, or there are BMP, GIF, PNM, TIFF or WebP files; std::invalid_argument for settings out of
    /// range.
    explicit ImageFolder(const std::filesystem::path& folder, const ImageFolderOptions& options = {})
        : folder_(folder), crop_(options.crop), values_("ImageFolder", options.normalization, 3) {
        detail::check_centre_crop(crop_);
        detail::ImageListing listing;
        std::vector<std::string> empty;
        std::vector<std::string> loose;
        for (const auto& entry : detail::list_folder(folder)) {
            std::error_code ignored;  // a link to nothing is no folder
            std::string name = entry.path().filename().string();
            if (!entry.is_directory(ignored)) {
                loose.push_back(std::move(name));
                continue;
            }
            listing.images.clear();
            detail::list_class(entry.path(), folder, listing);
            if (listing.images.empty()) empty.push_back(name);
            labels_.insert(labels_.end(), listing.images.size(), num_classes());
            files_.insert(files_.end(), listing.images.begin(), listing.images.end());
            classes_.push_back(std::move(name));
        }
        check(listing, empty, loose);
    }

    /// The folder that was listed.
    [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
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
    /// Refuses a listing that is not what a user can want, and warns of what is left out.
    void check(const detail::ImageListing& listing, const std::vector<std::string>& empty,
               const std::vector<std::string>& loose) const {
        const std::string where = folder_.string();
        if (classes_.empty()) {
            refuse_file(where, "folders of classes", detail::some_of(loose) + (loose.empty() ? "" : " alone"),
                        "one or more");
        }
        if (!listing.unread.empty()) {
            refuse_file(where, "kinds of images", detail::kinds_of(listing.unread), "PNG and JPEG alone");
        }
        if (!empty.empty()) refuse_file(where, "images", "none in " + detail::some_of(empty), "one or more in each");
        const auto warn_of = [&](const std::vector<std::string>& names, const char* why) {
            if (names.empty()) return;
            warn(text(where, ": ", names.size(), names.size() == 1 ? " file" : " files", " left out, ", why, ": ",
                      detail::kinds_of(names)));
        };
        warn_of(listing.others, "not PNG or JPEG files");
        warn_of(loose, "in no folder of a class");
    }

    [[nodiscard]] std::size_t checked(Index i) const {
        if (i < 0 || i >= size()) refuse("ImageFolder", "sample", i, text("0 to ", size() - 1));
        return static_cast<std::size_t>(i);
    }

    std::filesystem::path folder_;
    CentreCrop crop_;
    NormalizedBytes values_;
    std::vector<std::string> classes_;
    std::vector<std::filesystem::path> files_;
    std::vector<Index> labels_;
};

/// Refuses a folder whose classes are not those of another one, by name: a label would mean two things.
/// Throws std::runtime_error that names the classes that are missing or too many.
inline void expect_same_classes(const ImageFolder& folder, const ImageFolder& other) {
    if (folder.classes() == other.classes()) return;
    const auto without = [](const std::vector<std::string>& names, const std::vector<std::string>& others) {
        std::vector<std::string> rest;
        std::set_difference(names.begin(), names.end(), others.begin(), others.end(), std::back_inserter(rest));
        return rest;
    };
    const auto missing = without(other.classes(), folder.classes());
    const auto more = without(folder.classes(), other.classes());
    refuse_file(
        folder.folder().string(), "classes",
        text(missing.empty() ? "" : "no " + detail::some_of(missing), missing.empty() || more.empty() ? "" : ", but ",
             more.empty() ? "" : "also " + detail::some_of(more)),
        text("the ", other.num_classes(), " of ", other.folder().string()));
}

SD_NAMESPACE_END
