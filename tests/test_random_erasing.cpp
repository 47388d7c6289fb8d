// Random erasing: its boxes are torchvision's, its draws disturb no others, its pixels are zero.
#include "messages.hpp"
#include "random.hpp"

#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

namespace test_random_erasing {

using sd::Index;
using sd::Shape;

namespace {

// What torchvision's RandomErasing.get_params (0.29, in double precision) gives for the numbers that are drawn here: its
// calls of uniform_(a, b) and randint(0, n) were answered by a + (b - a) u and floor(n u), u = word / 2^32, where the
// words of attempt k are Philox4x32-10 of the key (42, 0) and the counter (sample low, sample high, s low, s high << 8 |
// 7), s = 11 epoch + k. No box within ten attempts is the box {0, 0, 0, 0}. Attempts that were needed stand behind.
struct TorchvisionBox {
    Index height, width, epoch, sample;
    sd::ImageBox box;
};
const std::vector<TorchvisionBox> torchvision_boxes = {
    {32, 32, 0, 0, {18, 8, 28, 19}},                                  // 1
    {32, 32, 0, 1, {3, 2, 16, 13}},                                   // 1
    {32, 32, 0, 2, {4, 11, 18, 22}},                                  // 1
    {32, 32, 1, 0, {19, 2, 29, 6}},                                   // 1
    {224, 224, 7, 1281166, {148, 5, 192, 140}},                       // 1
    {224, 224, 90, 5, {37, 13, 197, 98}},                             // 1
    {300, 20, 2, 3, {227, 9, 246, 18}},                               // 10
    {8, 64, 2, 4, {1, 23, 7, 43}},                                    // 10
    {2, 64, 0, 0, {1, 14, 2, 16}},                                    // 4
    {2, 64, 0, 1, {0, 0, 0, 0}},                                      // all ten in vain
    {2, 64, 0, 2, {0, 22, 1, 25}},                                    // 8
    {2, 64, 0, 3, {0, 49, 1, 52}},                                    // 5
    {4, 48, 0, 9, {1, 27, 2, 30}},                                    // 2
    {3, 40, 5, 10, {0, 33, 2, 36}},                                   // 1
    {2, 3, 0, 0, {1, 1, 2, 2}},                                       // 1
    {2, 3, 0, 1, {0, 0, 1, 1}},                                       // 1
    {2, 3, 0, 2, {0, 1, 1, 2}},                                       // 1
    {2, 2, 0, 0, {1, 0, 2, 1}},                                       // 1
    {1, 1, 0, 0, {1, 0, 1, 0}},                                       // 1, without a pixel
    {1, 9, 0, 0, {1, 2, 1, 3}},                                       // 4, without a row
    {64, 48, 3, Index{1} << 32, {9, 10, 21, 48}},                     // 2
    {32, 32, Index{1} << 33, (Index{1} << 35) + 7, {9, 12, 16, 21}},  // 1
};

std::vector<Index> corners(const sd::ImageBox& box) { return {box.top, box.left, box.bottom, box.right}; }

// An image without a zero.
std::vector<float> full_image(const Shape& shape) {
    std::vector<float> image(static_cast<std::size_t>(shape.size()));
    for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<float>(i + 1);
    return image;
}

std::vector<float> augmented(const std::vector<float>& image, const Shape& shape, const sd::Augmentation& options,
                             Index epoch, Index sample) {
    std::vector<float> result(image.size(), -1.0F);
    sd::augment(image.data(), shape, options, sd_test::seed, epoch, sample, result.data());
    return result;
}

}  // namespace

TEST_CASE("random erasing: boxes are torchvision's for the same uniform numbers") {
    for (const TorchvisionBox& expected : torchvision_boxes) {
        CAPTURE(expected.height);
        CAPTURE(expected.width);
        CAPTURE(expected.epoch);
        CAPTURE(expected.sample);
        const auto box = sd::draw_erased_box(1, expected.height, expected.width, 42, expected.epoch, expected.sample);
        CHECK(corners(box) == corners(expected.box));
    }
}

TEST_CASE("random erasing: chance, area, ratio and place have the stated distributions") {
    // Of the boxes that fit, of all areas and ratios at the centres of a fine grid.
    double count = 0, mean_area = 0, mean_area_squared = 0, mean_log = 0, mean_log_squared = 0;
    constexpr int grid = 500;
    for (int i = 0; i < grid; ++i) {
        for (int j = 0; j < grid; ++j) {
            const double area = 0.02 + 0.31 * (i + 0.5) / grid;
            const double log_ratio = std::log(0.3) + std::log(11.0) * (j + 0.5) / grid;
            if (area * std::exp(std::abs(log_ratio)) >= 1) continue;
            ++count;
            mean_area += area;
            mean_area_squared += area * area;
            mean_log += log_ratio;
            mean_log_squared += log_ratio * log_ratio;
        }
    }
    for (double* sum : {&mean_area, &mean_area_squared, &mean_log, &mean_log_squared}) *sum /= count;
    const double area_deviation = std::sqrt(mean_area_squared - mean_area * mean_area);
    const double log_deviation = std::sqrt(mean_log_squared - mean_log * mean_log);

    constexpr Index side = 512, images = 40000;
    constexpr double chance = 0.25;
    double erased = 0, area = 0, log_ratio = 0, area_squared = 0, log_squared = 0, top = 0, left = 0, product = 0;
    for (Index sample = 0; sample < images; ++sample) {
        const auto box = sd::draw_erased_box(chance, side, side, sd_test::seed, 3, sample);
        if (box.area() == 0) continue;
        REQUIRE(box.top >= 0);
        REQUIRE(box.left >= 0);
        REQUIRE(box.bottom <= side);
        REQUIRE(box.right <= side);
        const auto height = static_cast<double>(box.bottom - box.top);
        const auto width = static_cast<double>(box.right - box.left);
        const double share = height * width / (side * side);
        ++erased;
        area += share;
        area_squared += share * share;
        log_ratio += std::log(height / width);
        log_squared += std::pow(std::log(height / width), 2);
        const double down = static_cast<double>(box.top) / (side - height) - 0.5;
        const double right = static_cast<double>(box.left) / (side - width) - 0.5;
        top += down;
        left += right;
        product += down * right;
    }
    CHECK(std::abs(erased - chance * images) < 5 * std::sqrt(images * chance * (1 - chance)));
    const double five = 5 / std::sqrt(erased);  // standard deviations of a mean
    CHECK(std::abs(area / erased - mean_area) < five * area_deviation);
    CHECK(std::abs(log_ratio / erased - mean_log) < five * log_deviation);
    CHECK(area_squared / erased == doctest::Approx(mean_area_squared).epsilon(0.05));
    CHECK(log_squared / erased == doctest::Approx(mean_log_squared).epsilon(0.05));
    const double uniform_deviation = 1 / std::sqrt(12.0);
    CHECK(std::abs(top / erased) < five * uniform_deviation);
    CHECK(std::abs(left / erased) < five * uniform_deviation);
    CHECK(std::abs(product / erased) < five / 12);  // of independent places
}

TEST_CASE("random erasing: crops and flips are drawn as without it") {
    for (Index sample = 0; sample < 200; ++sample) {
        const auto words =
            sd::random_words(sd_test::seed, sd::Stream::augmentation, 3, 0, static_cast<std::uint32_t>(sample));
        for (const double chance : {0.0, 0.25, 1.0}) {
            const auto draw =
                sd::draw_augmentation({9, 8, 3}, {.padding = 2, .random_erasing = chance}, sd_test::seed, 3, sample);
            CHECK(draw.row == sd::uniform_below(words[0], 5));
            CHECK(draw.column == sd::uniform_below(words[1], 5));
            CHECK(draw.flip == (sd::uniform_below(words[2], 2) == 1));
            if (chance == 0) CHECK(draw.erased.area() == 0);
            if (chance == 1) CHECK(draw.erased.area() > 0);
        }
    }
}

TEST_CASE("random erasing: what is erased is zero, of the crop as it is mirrored, and the rest is untouched") {
    for (const Shape& shape : {Shape{9, 8, 3}, Shape{32, 20, 1}, Shape{2, 3, 2}, Shape{1, 1, 3}}) {
        CAPTURE(shape);
        const std::vector<float> image = full_image(shape);
        bool was_erased = false;
        for (Index sample = 0; sample < 50; ++sample) {
            const sd::Augmentation plain{.padding = 1};
            const sd::Augmentation erasing{.padding = 1, .random_erasing = 1};
            std::vector<float> expected = augmented(image, shape, plain, 2, sample);
            const auto box = sd::draw_augmentation(shape, erasing, sd_test::seed, 2, sample).erased;
            for (Index h = 0; h < shape[0]; ++h) {
                for (Index w = 0; w < shape[1]; ++w) {
                    const bool is_erased = h >= box.top && h < box.bottom && w >= box.left && w < box.right;
                    for (Index c = 0; c < shape[2] && is_erased; ++c) {
                        expected[static_cast<std::size_t>((h * shape[1] + w) * shape[2] + c)] = 0;
                    }
                }
            }
            CHECK(augmented(image, shape, erasing, 2, sample) == expected);
            was_erased = was_erased || box.area() > 0;
        }
        CHECK(was_erased == (shape[0] > 1));  // in a single pixel none fits
    }
}

TEST_CASE("random erasing: with chance 0 images are what crop and flip make of them, bit for bit") {
    const Shape shape{9, 8, 3};
    const std::vector<float> image = full_image(shape);
    for (Index sample = 0; sample < 20; ++sample) {
        const auto words =
            sd::random_words(sd_test::seed, sd::Stream::augmentation, 4, 0, static_cast<std::uint32_t>(sample));
        std::vector<float> expected(image.size());
        sd::pad_and_crop(image.data(), shape, 2, sd::uniform_below(words[0], 5), sd::uniform_below(words[1], 5),
                         expected.data());
        if (sd::uniform_below(words[2], 2) == 1) sd::horizontal_flip(expected.data(), shape);
        CHECK(augmented(image, shape, {.padding = 2, .random_erasing = 0}, 4, sample) == expected);
    }
    CHECK(augmented(image, shape, {.padding = 0, .horizontal_flip = false}, 4, 0) == image);
}

TEST_CASE("random erasing: a sample of an epoch is the same in any batch and order") {
    const Shape shape{16, 16, 3};
    const auto dataset = std::make_shared<const sd::InMemoryDataset>(sd::synthetic_images(23, 10, 16, 16, 1));
    const sd::Augmentation erasing{.padding = 2, .random_erasing = 0.5};
    std::vector<float> image(static_cast<std::size_t>(shape.size()));
    for (const bool shuffle : {false, true}) {
        for (const Index batch_size : {1, 5, 23}) {
            const sd::DataLoader loader(
                dataset,
                {.batch_size = batch_size, .shuffle = shuffle, .seed = sd_test::seed, .augmentation = erasing});
            for (Index i = loader.batches() - 1; i >= 0; --i) {
                const auto batch = loader.load(6, i);
                const auto samples = loader.batch_samples(6, i).samples;
                for (std::size_t n = 0; n < samples.size(); ++n) {
                    dataset->read(samples[n], image.data());
                    const auto expected = augmented(image, shape, erasing, 6, samples[n]);
                    CHECK(std::equal(expected.begin(), expected.end(),
                                     batch.images.data() + static_cast<Index>(n) * shape.size()));
                }
            }
        }
    }
    const sd::Augmentation always{.random_erasing = 1};
    const auto of_epoch = [&](Index epoch) {
        return corners(sd::draw_augmentation(shape, always, sd_test::seed, epoch, 0).erased);
    };
    CHECK(of_epoch(0) != of_epoch(1));
}

TEST_CASE("random erasing: what is no chance, and what is no image, is refused") {
    const auto dataset = std::make_shared<const sd::InMemoryDataset>(sd::synthetic_images(2, 2, 8, 8, 1));
    for (const double chance :
         {-0.1, 1.01, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
        const sd::Augmentation options{.random_erasing = chance};
        CHECK(sd_test::contains(sd_test::message_of([&] { (void)sd::DataLoader(dataset, {.augmentation = options}); }),
                                "Augmentation: chance of random erasing: got"));
        CHECK_THROWS_AS((void)sd::draw_augmentation({8, 8, 3}, options, 1, 0, 0), std::invalid_argument);
        CHECK_THROWS_AS((void)sd::draw_erased_box(chance, 8, 8, 1, 0, 0), std::invalid_argument);
    }
    CHECK_THROWS_AS((void)sd::draw_augmentation({8, 8}, {.random_erasing = 1}, 1, 0, 0), std::invalid_argument);
    CHECK(sd::DataLoader(dataset, {.augmentation = sd::Augmentation{.random_erasing = 0.25}})
              .settings()
              .at("random_erasing") == "0.25");
    CHECK(sd::DataLoader(dataset).settings().at("random_erasing") == "0");
}

}  // namespace test_random_erasing
