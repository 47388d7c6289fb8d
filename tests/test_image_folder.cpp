// Images in a folder a class: which files, what is cut out of them, and what is refused.
#include "image_files.hpp"
#include "messages.hpp"
#include "random.hpp"
#include "temporary_directory.hpp"

#include "sd/data/image_folder.hpp"
#include "sd/data/loader.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_image_folder {

using sd::Index;
using sd::Shape;
using sd_test::png_file;
using sd_test::TemporaryDirectory;
using Bytes = std::vector<std::uint8_t>;

namespace {

Bytes resize_and_crop(const Bytes& image, const Shape& shape, const sd::CentreCrop& options) {
    Bytes cropped(static_cast<std::size_t>(options.size * options.size * shape[2]));
    sd::resize_and_crop(image.data(), shape, options, cropped.data());
    return cropped;
}

// One resized value by the stated formula, not rounded: the mean of one channel of `image` under two triangles.
double mean_under_triangles(const Bytes& image, const Shape& shape, double row, double column, Index channel,
                            double scale_rows, double scale_columns) {
    const auto weight = [](Index pixel, double place, double scale) {
        const double distance = std::abs(static_cast<double>(pixel) + 0.5 - (place + 0.5) * scale);
        return std::max(0.0, 1 - distance / std::max(scale, 1.0));
    };
    double sum = 0;
    double weights = 0;
    for (Index h = 0; h < shape[0]; ++h) {
        for (Index w = 0; w < shape[1]; ++w) {
            const double both = weight(h, row, scale_rows) * weight(w, column, scale_columns);
            sum += both * image[static_cast<std::size_t>((h * shape[1] + w) * shape[2] + channel)];
            weights += both;
        }
    }
    return sum / weights;
}

// A folder with classes "Ant" (two files) and "bee" (three), and things that are no images.
void make_folder(const TemporaryDirectory& directory) {
    for (const char* name : {"bee", "Ant", "bee/folder.png"})
        std::filesystem::create_directory(directory.path() / name);
    const auto image = [](std::uint8_t value) { return png_file(3, 4, Bytes(36, value)); };
    directory.write("bee/b.JPEG", image(102));  // what is in a file tells what it is, not its name
    directory.write("bee/a.png", image(51));
    directory.write("bee/c.jpg", sd_test::jpeg_file(9, 9, 1, JCS_GRAYSCALE, Bytes(81, 153)));
    directory.write("Ant/2.png", image(255));
    directory.write("Ant/10.png", image(204));
    directory.write("Ant/notes.txt", "");
    directory.write("read.png", image(0));
}

const sd::ImageFolderOptions small{.crop = {.resize = 3, .size = 2}, .normalization = {{0, 0.2F, 0}, {1, 1, 0.5F}}};

}  // namespace

TEST_CASE("resizing: means under a triangle, by hand") {
    // Four pixels to two: weights 3/7, 3/7, 1/7 and their mirror image.
    const Bytes rows = {0, 70, 140, 210, 0, 70, 140, 210, 0, 70, 140, 210, 0, 70, 140, 210};
    CHECK(resize_and_crop(rows, {4, 4, 1}, {.resize = 2, .size = 2}) == Bytes{50, 160, 50, 160});
    // Two pixels to four: between their centres by distance, beyond them as they are.
    CHECK(resize_and_crop({0, 80, 0, 80}, {2, 2, 1}, {.resize = 4, .size = 4}) ==
          Bytes{0, 20, 60, 80, 0, 20, 60, 80, 0, 20, 60, 80, 0, 20, 60, 80});
}

TEST_CASE("resizing: the middle is cut out, half pixels go to the even side") {
    const Bytes row = {10, 20, 30, 40, 50, 60};
    CHECK(resize_and_crop(row, {1, 2, 1}, {.resize = 1, .size = 1}) == Bytes{10});
    CHECK(resize_and_crop(row, {1, 3, 1}, {.resize = 1, .size = 1}) == Bytes{20});
    CHECK(resize_and_crop(row, {1, 4, 1}, {.resize = 1, .size = 1}) == Bytes{30});
    CHECK(resize_and_crop(row, {1, 6, 1}, {.resize = 1, .size = 1}) == Bytes{30});
    CHECK(resize_and_crop(row, {4, 1, 1}, {.resize = 1, .size = 1}) == Bytes{30});
    CHECK(resize_and_crop(row, {2, 3, 1}, {.resize = 2, .size = 2}) == Bytes{10, 20, 40, 50});
}

TEST_CASE("resizing: the stated formula, to the rounding of two passes") {
    std::uint32_t draw = 0;
    for (const Shape shape : {Shape{9, 14, 3}, Shape{31, 17, 3}, Shape{5, 5, 1}, Shape{40, 6, 2}}) {
        Bytes image(static_cast<std::size_t>(shape.size()));
        for (std::uint8_t& byte : image) {
            byte = static_cast<std::uint8_t>(sd::random_words(sd_test::seed, sd::Stream::synthetic, 0, 0, draw++)[0]);
        }
        for (const sd::CentreCrop options : {sd::CentreCrop{.resize = 7, .size = 5}, {.resize = 16, .size = 16}}) {
            const Bytes cropped = resize_and_crop(image, shape, options);
            const Index shorter = std::min(shape[0], shape[1]);
            const auto extent = [&](Index i) { return options.resize * shape[i] / shorter; };
            const auto start = [&](Index i) {
                return std::nearbyint(static_cast<double>(extent(i) - options.size) / 2);
            };
            const auto scale = [&](Index i) { return static_cast<double>(shape[i]) / static_cast<double>(extent(i)); };
            double largest = 0;
            for (Index i = 0; i < static_cast<Index>(cropped.size()); ++i) {
                const Index pixel = i / shape[2];
                const double expected = mean_under_triangles(
                    image, shape, start(0) + static_cast<double>(pixel / options.size),
                    start(1) + static_cast<double>(pixel % options.size), i % shape[2], scale(0), scale(1));
                largest = std::max(largest, std::abs(cropped[static_cast<std::size_t>(i)] - expected));
            }
            CHECK(largest < 1.01);
        }
    }
}

TEST_CASE("resizing: refused") {
    Bytes image(4);
    const auto resize = [&](const Shape& shape, const sd::CentreCrop& options) {
        (void)resize_and_crop(image, shape, options);
    };
    CHECK_NOTHROW(resize({2, 2, 1}, {.resize = 2, .size = 1}));
    CHECK_THROWS_AS(resize({2, 0, 1}, {.resize = 2, .size = 1}), std::invalid_argument);
    CHECK_THROWS_AS(sd::detail::check_centre_crop({.resize = 0, .size = 0}), std::invalid_argument);
    CHECK_THROWS_AS(sd::detail::check_centre_crop({.resize = 16385}), std::invalid_argument);
    CHECK_THROWS_AS(sd::detail::check_centre_crop({.resize = 2, .size = 3}), std::invalid_argument);
    CHECK_THROWS_AS(sd::detail::check_centre_crop({.resize = 2, .size = 0}), std::invalid_argument);
}

TEST_CASE("image folder: classes and files by name, decoded, cropped and normalised") {
    const sd_test::Warnings quiet;
    const TemporaryDirectory directory;
    make_folder(directory);
    const auto folder = std::make_shared<const sd::ImageFolder>(directory.path(), small);
    CHECK(folder->classes() == std::vector<std::string>{"Ant", "bee"});
    CHECK(folder->num_classes() == 2);
    CHECK(folder->image_shape() == Shape{2, 2, 3});
    REQUIRE(folder->size() == 5);
    std::vector<std::string> names;
    std::vector<float> image(12);
    for (Index i = 0; i < 5; ++i) {
        names.push_back(folder->file(i).filename().string());
        CHECK(folder->label(i) == (i < 2 ? 0 : 1));
        folder->read(i, image.data());
        const float value = std::vector<float>{0.8F, 1, 0.2F, 0.4F, 0.6F}[static_cast<std::size_t>(i)];
        CHECK(image[9] == doctest::Approx(value));
        CHECK(image[10] == doctest::Approx(value - 0.2F));
        CHECK(image[11] == doctest::Approx(2 * value));
    }
    CHECK(names == std::vector<std::string>{"10.png", "2.png", "a.png", "b.JPEG", "c.jpg"});
    const auto batch = sd::DataLoader(folder, {.batch_size = 5, .shuffle = false}).load(0, 0);
    CHECK(batch.labels == std::vector<Index>{0, 0, 1, 1, 1});
    CHECK(batch.images(3, 1, 1, 0) == doctest::Approx(0.4F));
    CHECK(sd::ImageFolder(directory.path()).image_shape() == Shape{224, 224, 3});
}

TEST_CASE("image folder: rows, columns and channels stay where they are") {
    const TemporaryDirectory directory;
    Bytes counting(36);  // (3, 4, 3)
    std::iota(counting.begin(), counting.end(), std::uint8_t{0});
    std::filesystem::create_directory(directory.path() / "a");
    directory.write("a/1.png", png_file(3, 4, counting));
    const sd::ImageFolder folder(directory.path(),
                                 {.crop = {.resize = 3, .size = 3}, .normalization = {{0, 0, 0}, {1, 1, 1}}});
    std::vector<float> image(27);
    folder.read(0, image.data());
    for (std::size_t h = 0; h < 3; ++h) {
        for (std::size_t i = 0; i < 9; ++i) {  // the left three columns: half a pixel goes to the even side
            CHECK(image[9 * h + i] == doctest::Approx(static_cast<double>(12 * h + i) / 255));
        }
    }
}

TEST_CASE("image folder: files in the order of torchvision, in folders of folders and by links") {
    const TemporaryDirectory directory;
    const auto make = [&](const std::string& name) {
        std::filesystem::create_directories((directory.path() / name).parent_path());
        directory.write(name, "");
    };
    for (const char* name : {"b/2.png", "b/10.PNG", "b/in/1.jpg", "b/in-side/1.JPG", "b/in/deep/1.Jpeg",
                             "b/in.jpg/1.png", "b/Z.jpeg", "elsewhere/linked/1.png", "a/only/1.png"}) {
        make("top/" + std::string(name));
    }
    std::filesystem::rename(directory.path() / "top/elsewhere", directory.path() / "elsewhere");
    std::filesystem::create_directory_symlink(directory.path() / "elsewhere", directory.path() / "top/b/link");
    std::filesystem::create_directory_symlink(directory.path() / "top/b/in", directory.path() / "top/c");
    std::vector<std::string> names;
    const sd::ImageFolder folder(directory.path() / "top", small);
    for (Index i = 0; i < folder.size(); ++i) {
        names.push_back(folder.file(i).lexically_relative(directory.path() / "top").string());
        CHECK(folder.label(i) == names.back()[0] - 'a');
    }
    // What torchvision 0.29 lists for these names: folders are sorted by their whole paths.
    CHECK(names == std::vector<std::string>{"a/only/1.png", "b/10.PNG", "b/2.png", "b/Z.jpeg", "b/in/1.jpg",
                                            "b/in-side/1.JPG", "b/in.jpg/1.png", "b/in/deep/1.Jpeg",
                                            "b/link/linked/1.png", "c/1.jpg", "c/deep/1.Jpeg"});
}

TEST_CASE("image folder: hidden names are left out, other files with a warning that counts their kinds") {
    const TemporaryDirectory directory;
    make_folder(directory);
    for (const char* name : {".ipynb_checkpoints", "bee/.thumbnails", "bee/more"}) {
        std::filesystem::create_directory(directory.path() / name);
    }
    for (const char* name : {".DS_Store", "Ant/._2.png", ".ipynb_checkpoints/1.png", "bee/.thumbnails/1.png",
                             "bee/Thumbs.db", "bee/more/LICENSE", "Ant/other.TXT"}) {
        directory.write(name, "");
    }
    std::filesystem::create_symlink("nowhere", directory.path() / "bee/gone.jpg");
    const sd_test::Warnings warnings;
    const sd::ImageFolder folder(directory.path(), small);
    CHECK(folder.size() == 5);
    CHECK(folder.classes() == std::vector<std::string>{"Ant", "bee"});
    const std::string where = directory.path().string();
    CHECK(warnings.messages ==
          std::vector<std::string>{where + ": 5 files left out, not PNG or JPEG files: 1 .db "
                                           "(bee/Thumbs.db), 1 .jpg (bee/gone.jpg), 2 .txt (Ant/notes.txt), 1 without "
                                           "extension (bee/more/LICENSE)",
                                   where + ": 1 file left out, in no folder of a class: 1 .png (read.png)"});
}

TEST_CASE("image folder: kinds of images that are not read are refused by name") {
    const sd_test::Warnings quiet;
    const TemporaryDirectory directory;
    make_folder(directory);
    const auto error = [&] {
        return sd_test::error_of<std::runtime_error>([&] { (void)sd::ImageFolder(directory.path(), small); });
    };
    for (const char* extension : {"bmp", "gif", "pgm", "pnm", "ppm", "tif", "tiff", "webp", "WebP"}) {
        const auto file = directory.write(sd::text("bee/1.", extension), "");
        CHECK_MESSAGE(error().starts_with(sd::text(directory.path().string(), ": kinds of images: got 1 .")),
                      extension);
        CHECK_MESSAGE(sd_test::contains(error(), sd::text(" (bee/1.", extension, "), expected PNG and JPEG alone")),
                      extension);
        std::filesystem::remove(file);
    }
    CHECK(error() == "accepted");
    for (const char* name : {"bee/1.webp", "bee/2.webp", "Ant/1.gif"}) directory.write(name, "");
    CHECK(sd_test::contains(error(), "got 1 .gif (Ant/1.gif), 2 .webp (bee/1.webp), expected"));
}

TEST_CASE("image folder: two folders must have the same classes by name") {
    const TemporaryDirectory directory;
    for (const char* name : {"train/a", "train/b", "train/c", "val/a", "val/b", "val/c"}) {
        std::filesystem::create_directories(directory.path() / name);
        directory.write(name + std::string("/1.png"), "");
    }
    const auto error = [&] {
        return sd_test::error_of<std::runtime_error>([&] {
            sd::expect_same_classes(sd::ImageFolder(directory.path() / "val"),
                                    sd::ImageFolder(directory.path() / "train"));
        });
    };
    CHECK(error() == "accepted");
    const auto rename = [&](const char* from, const char* to) {
        std::filesystem::rename(directory.path() / from, directory.path() / to);
    };
    const std::string expected = sd::text(", expected the 3 of ", (directory.path() / "train").string());
    rename("val/b", "val/B");
    CHECK(error() == sd::text((directory.path() / "val").string(), ": classes: got no b, but also B", expected));
    rename("val/B", "gone");
    CHECK(sd_test::contains(error(), "val: classes: got no b" + expected));
    rename("gone", "val/b");
    std::filesystem::create_directory(directory.path() / "val/d");
    directory.write("val/d/1.png", "");
    CHECK(sd_test::contains(error(), "val: classes: got also d" + expected));
}

TEST_CASE("image folder: refused") {
    const TemporaryDirectory directory;
    const auto error = [&](const sd::ImageFolderOptions& options = small) -> std::string {
        try {
            const sd::ImageFolder folder(directory.path() / "top", options);
            std::vector<float> image(12);
            folder.read(0, image.data());
        } catch (const std::runtime_error& refusal) {
            return refusal.what();
        }
        return "accepted";
    };
    CHECK(error().find("top: listing: got ") != std::string::npos);
    std::filesystem::create_directory(directory.path() / "top");
    CHECK(error().find("top: folders of classes: got nothing, expected one or more") != std::string::npos);
    directory.write("top/1.png", "");
    CHECK(error().find("top: folders of classes: got 1.png alone, expected one or more") != std::string::npos);
    std::filesystem::remove(directory.path() / "top/1.png");
    std::filesystem::create_directory(directory.path() / "top" / "a");
    std::filesystem::create_directory(directory.path() / "top" / "b");
    CHECK(error().find("top: images: got none in a, b, expected one or more in each") != std::string::npos);
    std::filesystem::remove(directory.path() / "top" / "b");
    const std::string whole = png_file(3, 4, Bytes(36));
    directory.write("top/a/1.png", whole.substr(0, whole.size() - 1));
    CHECK(error().find("1.png: PNG: got an end in its middle, expected a whole image") != std::string::npos);
    directory.write("top/a/1.png", whole);
    CHECK(error() == "accepted");
    std::filesystem::create_directory_symlink("..", directory.path() / "top/a/up");
    CHECK(error().find("a/up: folder: got a link to a folder that it is in") != std::string::npos);
    std::filesystem::remove(directory.path() / "top/a/up");
    CHECK_THROWS_AS((void)error({.crop = {.resize = 1, .size = 2}}), std::invalid_argument);
    CHECK_THROWS_AS((void)error({.normalization = {{0}, {1}}}), std::invalid_argument);
    const sd::ImageFolder folder(directory.path() / "top", small);
    CHECK_THROWS_AS((void)folder.label(1), std::invalid_argument);
    CHECK_THROWS_AS((void)folder.file(-1), std::invalid_argument);
}

}  // namespace test_image_folder
