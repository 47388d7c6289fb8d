// Data sets, readers, augmentation, order and batches.
#include "random.hpp"
#include "messages.hpp"
#include "temporary_directory.hpp"

#include "sd/training.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

namespace test_data {

using sd::Index;
using sd::Shape;
using sd_test::TemporaryDirectory;

namespace {

// `records` records of a CIFAR file: record r has label r mod 10, after the coarse label if any, and pixel values
// (r + plane position + 7 plane) mod 256.
std::string cifar_records(int records, const std::string& coarse_label = "") {
    std::string bytes;
    for (int r = 0; r < records; ++r) {
        bytes += coarse_label + static_cast<char>(r % 10);
        for (int i = 0; i < 3072; ++i) bytes += static_cast<char>((r + i % 1024 + 7 * (i / 1024)) % 256);
    }
    return bytes;
}

// Four grey images of 2 x 3 pixels: image i holds 10 i, 10 i + 1, ...
std::shared_ptr<const sd::InMemoryDataset> tiny_dataset(Index count = 4) {
    std::vector<std::uint8_t> pixels;
    std::vector<Index> labels;
    for (Index i = 0; i < count; ++i) {
        for (int p = 0; p < 6; ++p) pixels.push_back(static_cast<std::uint8_t>(10 * i + p));
        labels.push_back(i % 2);
    }
    return std::make_shared<const sd::InMemoryDataset>(Shape{2, 3, 1}, pixels, labels, 2,
                                                       sd::Normalization{{0.0F}, {1.0F / 255}});
}

}  // namespace

TEST_CASE("cifar-10: pixels, labels and normalisation") {
    const TemporaryDirectory directory;
    for (int batch = 1; batch <= 5; ++batch) {
        directory.write(sd::text("data_batch_", batch, ".bin"), cifar_records(batch));
    }
    directory.write("test_batch.bin", cifar_records(12));
    const auto train = sd::read_cifar10(directory.path(), sd::Split::train);
    const auto test = sd::read_cifar10(directory.path(), sd::Split::test);
    CHECK(train.size() == 1 + 2 + 3 + 4 + 5);
    CHECK(train.label(2) == 1);
    REQUIRE(test.size() == 12);
    CHECK(test.label(11) == 1);
    CHECK(test.num_classes() == 10);
    CHECK(test.image_shape() == Shape{32, 32, 3});
    std::vector<float> image(3072);
    test.read(11, image.data());
    // Green of pixel (2, 5): byte (11 + 2 * 32 + 5 + 7) mod 256 = 87, then (87 / 255 - mean) / deviation.
    CHECK(image[(2 * 32 + 5) * 3 + 1] == doctest::Approx((87.0 / 255 - 0.4822) / 0.2435).epsilon(1e-5));
}

TEST_CASE("cifar-10: files that are not whole are refused, naming the file") {
    const TemporaryDirectory directory;
    const auto read = [&] { (void)sd::read_cifar10(directory.path(), sd::Split::test); };
    CHECK_THROWS_AS(read(), std::runtime_error);
    directory.write("test_batch.bin", "");
    CHECK_THROWS_AS(read(), std::runtime_error);
    directory.write("test_batch.bin", cifar_records(2).substr(1));
    CHECK_THROWS_WITH_AS(read(), doctest::Contains("test_batch.bin"), std::runtime_error);
    std::string wrong_label = cifar_records(2);
    wrong_label[3073] = 10;
    directory.write("test_batch.bin", wrong_label);
    CHECK_THROWS_WITH_AS(read(), doctest::Contains("label of record 1: got 10, expected 0 to 9"), std::runtime_error);
    std::filesystem::remove(directory.path() / "test_batch.bin");
    directory.write("test_batch.bin.xz", "x");
    CHECK_THROWS_WITH_AS(read(), doctest::Contains("xz -dk"), std::runtime_error);
}

TEST_CASE("cifar-100: fine labels are the classes, coarse labels are checked") {
    const TemporaryDirectory directory;
    const std::string coarse(1, '\x13');
    std::string bytes = cifar_records(3, coarse);
    bytes[3074 + 1] = 99;
    directory.write("train.bin", bytes);
    directory.write("test.bin", cifar_records(1, coarse));
    const auto train = sd::read_cifar100(directory.path(), sd::Split::train);
    REQUIRE(train.size() == 3);
    CHECK(train.num_classes() == 100);
    CHECK(train.image_shape() == Shape{32, 32, 3});
    CHECK(train.label(1) == 99);
    CHECK(train.label(2) == 2);
    std::vector<float> image(3072);
    train.read(2, image.data());
    // Blue of pixel (1, 3): byte 2 + 32 + 3 + 14 = 51, a fifth of 255.
    CHECK(image[(32 + 3) * 3 + 2] == doctest::Approx((0.2 - 0.4409) / 0.2762).epsilon(1e-5));

    const auto read = [&] { (void)sd::read_cifar100(directory.path(), sd::Split::test); };
    CHECK_NOTHROW(read());
    std::string wrong = cifar_records(2, coarse);
    wrong[3074] = 20;
    directory.write("test.bin", wrong);
    CHECK_THROWS_WITH_AS(read(), doctest::Contains("coarse label of record 1: got 20, expected 0 to 19"),
                         std::runtime_error);
    wrong[3074] = 0;
    wrong[3075] = 100;
    directory.write("test.bin", wrong);
    CHECK_THROWS_WITH_AS(read(), doctest::Contains("fine label of record 1: got 100, expected 0 to 99"),
                         std::runtime_error);
    directory.write("test.bin", cifar_records(1));
    CHECK_THROWS_WITH_AS(read(), doctest::Contains("size of a CIFAR-100 record"), std::runtime_error);
    std::filesystem::remove(directory.path() / "test.bin");
    CHECK_THROWS_AS(read(), std::runtime_error);
}

TEST_CASE("cifar: the folder that the archive unpacks to is found in its parent") {
    const TemporaryDirectory directory;
    const auto message = [](const auto& read) { return sd_test::error_of<std::runtime_error>([&] { (void)read(); }); };
    const auto read10 = [&] { return sd::read_cifar10(directory.path(), sd::Split::test); };
    const auto read100 = [&] { return sd::read_cifar100(directory.path(), sd::Split::test); };
    for (const char* name : {"cifar-10-batches-py", "cifar-100-python", ".hidden"}) {
        std::filesystem::create_directory(directory.path() / name);
    }
    const std::string where = directory.path().string();
    CHECK(message(read10) ==
          where + ": binary CIFAR-10: got cifar-10-batches-py, cifar-100-python, expected test_batch.bin");
    CHECK(message(read100) ==
          where + ": binary CIFAR-100: got cifar-10-batches-py, cifar-100-python, expected test.bin");
    for (const char* name : {"cifar-10-batches-bin", "cifar-100-binary"}) {
        std::filesystem::create_directory(directory.path() / name);
    }
    CHECK(message(read10) == where + "/cifar-10-batches-bin: binary CIFAR-10: got nothing, expected test_batch.bin");
    directory.write("cifar-10-batches-bin/test_batch.bin", cifar_records(2));
    directory.write("cifar-100-binary/test.bin", cifar_records(3, std::string(1, '\0')));
    CHECK(read10().size() == 2);
    CHECK(read100().size() == 3);
    directory.write("test_batch.bin", cifar_records(1));  // what is in the directory itself comes first
    CHECK(read10().size() == 1);
}

TEST_CASE("data sets in memory: refused") {
    const auto make = [](Shape shape, std::size_t pixels, std::vector<Index> labels, Index classes,
                         sd::Normalization normalization) {
        (void)sd::InMemoryDataset(shape, std::vector<std::uint8_t>(pixels), std::move(labels), classes,
                                  std::move(normalization));
    };
    CHECK_NOTHROW(make({2, 2, 1}, 4, {0}, 1, {{0}, {1}}));
    CHECK_THROWS_AS(make({2, 2, 1}, 5, {0}, 1, {{0}, {1}}), std::invalid_argument);
    CHECK_THROWS_AS(make({2, 2, 1}, 4, {1}, 1, {{0}, {1}}), std::invalid_argument);
    CHECK_THROWS_AS(make({2, 2, 1}, 4, {0}, 0, {{0}, {1}}), std::invalid_argument);
    CHECK_THROWS_AS(make({2, 2, 1}, 4, {0}, 1, {{0, 0}, {1}}), std::invalid_argument);
    CHECK_THROWS_AS(make({2, 2, 1}, 4, {0}, 1, {{0}, {0}}), std::invalid_argument);
    CHECK_THROWS_AS(make({2, 2, 1}, 4, {0}, 1, {{std::nanf("")}, {1}}), std::invalid_argument);
}

TEST_CASE("order: a permutation, a function of seed and epoch") {
    const auto order = sd::shuffled_order(1000, 1, 0);
    std::vector<Index> sorted = order;
    std::sort(sorted.begin(), sorted.end());
    std::vector<Index> all(1000);
    std::iota(all.begin(), all.end(), Index{0});
    CHECK(sorted == all);
    CHECK(order != all);
    CHECK(sd::shuffled_order(1000, 1, 0) == order);
    CHECK(sd::shuffled_order(1000, 1, 1) != order);
    CHECK(sd::shuffled_order(1000, 2, 0) != order);
    CHECK(sd::shuffled_order(0, 1, 0).empty());
    CHECK_THROWS_AS((void)sd::shuffled_order(-1, 1, 0), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::shuffled_order(1, 1, -1), std::invalid_argument);
}

TEST_CASE("order: every place is as likely as any other") {
    // Where sample 0 of 5 goes in 10,000 epochs: 2000 each, standard deviation 40.
    std::vector<int> count(5);
    for (Index epoch = 0; epoch < 10000; ++epoch) {
        const auto order = sd::shuffled_order(5, sd_test::seed, epoch);
        ++count[static_cast<std::size_t>(std::find(order.begin(), order.end(), 0) - order.begin())];
    }
    for (const int places : count) CHECK(std::abs(places - 2000) < 200);
}

TEST_CASE("augmentation: crops and flips, by hand") {
    const Shape shape{2, 3, 1};
    const std::vector<float> image = {1, 2, 3, 4, 5, 6};
    std::vector<float> cropped(6);
    sd::pad_and_crop(image.data(), shape, 1, 0, 2, cropped.data());  // a row of padding above, a column to the right
    CHECK(cropped == std::vector<float>{0, 0, 0, 2, 3, 0});
    sd::pad_and_crop(image.data(), shape, 1, 1, 1, cropped.data());
    CHECK(cropped == image);
    sd::pad_and_crop(image.data(), shape, 5, 10, 10, cropped.data());  // nothing but padding
    CHECK(cropped == std::vector<float>(6));
    std::vector<float> flipped = image;
    sd::horizontal_flip(flipped.data(), shape);
    CHECK(flipped == std::vector<float>{3, 2, 1, 6, 5, 4});
}

TEST_CASE("augmentation: the draw is a function of seed, epoch and sample, in range, of the stated probabilities") {
    const sd::Augmentation options{.padding = 2, .horizontal_flip = true};
    const int draws = 10000;
    int flips = 0;
    int on_diagonal = 0;
    std::vector<int> rows(5);
    for (Index sample = 0; sample < draws; ++sample) {
        const auto draw = sd::draw_augmentation({32, 32, 3}, options, sd_test::seed, 3, sample);
        REQUIRE(draw.row >= 0);
        REQUIRE(draw.row <= 4);
        REQUIRE(draw.column >= 0);
        REQUIRE(draw.column <= 4);
        ++rows[static_cast<std::size_t>(draw.row)];
        flips += draw.flip ? 1 : 0;
        on_diagonal += draw.row == draw.column ? 1 : 0;
    }
    CHECK(std::abs(flips - draws / 2) < 5 * 50);
    for (const int count : rows) CHECK(std::abs(count - draws / 5) < 5 * 40);
    CHECK(std::abs(on_diagonal - draws / 5) < 5 * 40);  // row and column are independent
    CHECK_THROWS_AS(sd::detail::check_augmentation({.padding = -1}), std::invalid_argument);
}

TEST_CASE("loader: every sample once an epoch, the last batch short or left out") {
    const auto dataset = tiny_dataset(10);
    const sd::DataLoader loader(dataset, {.batch_size = 4, .seed = 7});
    REQUIRE(loader.batches() == 3);
    std::set<float> seen;
    for (Index i = 0; i < 3; ++i) {
        const auto batch = loader.load(2, i);
        CHECK(batch.images.shape() == Shape{i == 2 ? 2 : 4, 2, 3, 1});
        CHECK(batch.first == 4 * i);
        for (Index n = 0; n < batch.images.extent(0); ++n) {
            const float first = batch.images(n, 0, 0, 0);
            seen.insert(first);
            CHECK(batch.labels[static_cast<std::size_t>(n)] == std::lround(first) / 10 % 2);
            CHECK(batch.images(n, 1, 2, 0) == doctest::Approx(first + 5));
        }
    }
    CHECK(seen.size() == 10);
    CHECK(sd::DataLoader(dataset, {.batch_size = 4, .drop_last = true}).batches() == 2);
    CHECK(sd::DataLoader(dataset, {.batch_size = 4, .shuffle = false}).load(0, 1).images(0, 0, 0, 0) ==
          doctest::Approx(40));
    CHECK_THROWS_AS((void)loader.load(0, 3), std::invalid_argument);
    CHECK_THROWS_AS((void)loader.load(-1, 0), std::invalid_argument);
    CHECK_THROWS_AS(sd::DataLoader(dataset, {.batch_size = 0}), std::invalid_argument);
}

TEST_CASE("loader: ranks load the parts of one batch, in rank order") {
    const auto dataset = tiny_dataset(10);
    for (const Index ranks : {1, 2, 3, 5}) {
        for (Index i = 0; i < 3; ++i) {  // batches of 4, 4 and 2
            const auto whole = sd::DataLoader(dataset, {.batch_size = 4, .seed = 7}).load(1, i);
            std::vector<Index> labels;
            std::vector<float> pixels;
            for (Index rank = 0; rank < ranks; ++rank) {
                const sd::LoaderOptions options{.batch_size = 4, .seed = 7, .rank = rank, .ranks = ranks};
                const auto part = sd::DataLoader(dataset, options).load(1, i);
                CHECK(part.first == whole.first + static_cast<Index>(labels.size()));
                CHECK(part.samples == whole.images.extent(0));
                CHECK(part.images.extent(0) == static_cast<Index>(part.labels.size()));
                labels.insert(labels.end(), part.labels.begin(), part.labels.end());
                pixels.insert(pixels.end(), part.images.begin(), part.images.end());
            }
            CHECK(labels == whole.labels);
            CHECK(std::equal(pixels.begin(), pixels.end(), whole.images.begin(), whole.images.end()));
        }
    }
    CHECK_THROWS_AS(sd::DataLoader(dataset, {.rank = 2, .ranks = 2}), std::invalid_argument);
    CHECK_THROWS_AS(sd::DataLoader(dataset, {.rank = -1, .ranks = 2}), std::invalid_argument);
    CHECK_THROWS_AS(sd::DataLoader(dataset, {.ranks = 0}), std::invalid_argument);
}

TEST_CASE("loader: a batch is the same at any time, for any number of threads and in any type") {
    const auto dataset = std::make_shared<const sd::InMemoryDataset>(sd::synthetic_images(64, 10, 16, 16, 1));
    const sd::LoaderOptions options{
        .batch_size = 16, .seed = 7, .augmentation = sd::Augmentation{.random_erasing = 0.5}};
    const int threads = sd::num_threads();
    sd::set_num_threads(1);
    const auto first = sd::DataLoader(dataset, options).load(1, 2);
    sd::set_num_threads(3);
    const sd::DataLoader loader(dataset, options);
    (void)loader.load(5, 0);
    const auto second = loader.load(1, 2);
    const auto in_double = sd::DataLoader<sd::InMemoryDataset, double>(dataset, options).load(1, 2);
    sd::set_num_threads(threads);
    CHECK(first.labels == second.labels);
    CHECK(std::equal(first.images.begin(), first.images.end(), second.images.begin()));
    CHECK(std::equal(first.images.begin(), first.images.end(), in_double.images.begin()));
    CHECK_FALSE(std::equal(first.images.begin(), first.images.end(), loader.load(2, 2).images.begin()));
}

TEST_CASE("synthetic images: a function of seed and number, classes in turn") {
    const auto all = sd::synthetic_images(20, 10, 8, 12, 5);
    const auto last = sd::synthetic_images(5, 10, 8, 12, 5, 15);
    CHECK(all.label(17) == 7);
    CHECK(last.label(2) == 7);
    std::vector<float> a(8 * 12 * 3);
    std::vector<float> b(a.size());
    all.read(17, a.data());
    last.read(2, b.data());
    CHECK(a == b);
    all.read(16, b.data());
    CHECK(a != b);
    CHECK_THROWS_AS((void)sd::synthetic_images(1, 0, 8, 8, 1), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::synthetic_images(1, 1, 0, 8, 1), std::invalid_argument);
}

}  // namespace test_data
