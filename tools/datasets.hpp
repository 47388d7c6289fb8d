// Data sets by name, for the command line.
#pragma once

#include "home_path.hpp"

#include "sd/data/cifar.hpp"
#include "sd/data/idx_gzip.hpp"
#include "sd/data/image_folder.hpp"
#include "sd/data/loader.hpp"
#include "sd/data/synthetic.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

namespace tools {

using sd::Index;

/// A data set of any of the library's types, so that a network is compiled for one type alone.
class AnyDataset {
public:
    explicit AnyDataset(sd::InMemoryDataset dataset) : dataset_(std::move(dataset)) {}
    explicit AnyDataset(sd::ImageFolder dataset) : dataset_(std::move(dataset)) {}

    [[nodiscard]] Index size() const {
        return std::visit([](const auto& dataset) { return dataset.size(); }, dataset_);
    }
    [[nodiscard]] Index num_classes() const {
        return std::visit([](const auto& dataset) { return dataset.num_classes(); }, dataset_);
    }
    [[nodiscard]] sd::Shape image_shape() const {
        return std::visit([](const auto& dataset) { return sd::Shape(dataset.image_shape()); }, dataset_);
    }
    void read(Index i, float* image) const {
        std::visit([&](const auto& dataset) { dataset.read(i, image); }, dataset_);
    }
    [[nodiscard]] Index label(Index i) const {
        return std::visit([&](const auto& dataset) { return dataset.label(i); }, dataset_);
    }

private:
    std::variant<sd::InMemoryDataset, sd::ImageFolder> dataset_;
};

/// What to learn from, what to be judged by, and how images are varied in training.
struct Data {
    std::shared_ptr<const AnyDataset> train, test;
    sd::Augmentation augmentation = {};
};

/// Kinds of data set that are read from a directory: KIND:DIR on the command line.
inline const std::vector<std::string>& directory_kinds() {
    static const std::vector<std::string> kinds = {"cifar10", "cifar100", "mnist", "fashion_mnist", "folder"};
    return kinds;
}

/// All that load_data takes, for messages.
inline std::string data_names() {
    std::string names = "synthetic";
    for (const std::string& kind : directory_kinds()) names += "|" + kind + ":DIR";
    return names;
}

/// Whether load_data knows the name.
inline bool is_data_name(const std::string& name) {
    const auto names_it = [&](const std::string& kind) {
        return name.size() > kind.size() + 1 && name.starts_with(kind + ':');
    };
    return name == "synthetic" || std::any_of(directory_kinds().begin(), directory_kinds().end(), names_it);
}

/// The folders `train` and `val` of a directory, of which squares of image_size are used.
/// Throws std::runtime_error if one is not there, or they do not have the same classes.
inline Data load_folders(const std::filesystem::path& directory, Index image_size) {
    // 256 for 224, as ImageNet's models are evaluated.
    const sd::ImageFolderOptions options{.crop = {.resize = image_size * 8 / 7, .size = image_size}};
    for (const char* split : {"train", "val"}) {
        std::error_code ignored;
        if (std::filesystem::is_directory(directory / split, ignored)) continue;
        sd::refuse_file(directory.string(), "folders", sd::detail::some_names_in(directory), "train and val");
    }
    sd::ImageFolder train(directory / "train", options);
    sd::ImageFolder test(directory / "val", options);
    sd::expect_same_classes(test, train);
    return {std::make_shared<AnyDataset>(std::move(train)), std::make_shared<AnyDataset>(std::move(test))};
}

/// The data set of a name, see data_names(). `seed` draws synthetic images, image_size is the side of a folder's.
/// Throws std::invalid_argument for an unknown name, and what the readers throw.
inline Data load_data(const std::string& name, std::uint64_t seed, Index image_size) {
    if (!is_data_name(name)) sd::refuse("data", "name", name, data_names());
    const auto both = [](const auto& read) {
        return Data{std::make_shared<AnyDataset>(read(sd::Split::train)),
                    std::make_shared<AnyDataset>(read(sd::Split::test))};
    };
    if (name == "synthetic") {
        return both([&](sd::Split split) {
            return split == sd::Split::train ? sd::synthetic_images(8000, 10, 32, 32, seed)
                                             : sd::synthetic_images(2000, 10, 32, 32, seed, 8000);
        });
    }
    const std::string kind = name.substr(0, name.find(':'));
    const std::filesystem::path directory = home_path(name.substr(kind.size() + 1));
    if (kind == "folder") return load_folders(directory, image_size);
    if (kind == "cifar10") return both([&](sd::Split split) { return sd::read_cifar10(directory, split); });
    if (kind == "cifar100") return both([&](sd::Split split) { return sd::read_cifar100(directory, split); });
    if (kind == "fashion_mnist") {
        return both(
            [&](sd::Split split) { return sd::read_mnist_gzip(directory, split, sd::fashion_mnist_normalization()); });
    }
    Data digits =
        both([&](sd::Split split) { return sd::read_mnist_gzip(directory, split, sd::mnist_normalization()); });
    digits.augmentation.horizontal_flip = false;  // a mirrored digit is none
    return digits;
}

}  // namespace tools
