// The wrong labels of the demo's training images: how many, which, and that nothing else changes.
#include "../tools/noisy_labels.hpp"

#include "sd/data/loader.hpp"
#include "sd/data/synthetic.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

namespace test_noisy_labels {

using sd::Index;

namespace {

using Images = sd::InMemoryDataset;
using Noisy = tools::NoisyLabels<Images>;

std::shared_ptr<const Images> images(Index count, Index classes = 10) {
    return std::make_shared<const Images>(sd::synthetic_images(count, classes, 4, 4, 1));
}

/// Samples whose label is not the image's.
std::vector<Index> wrong_samples(const Images& right, const Noisy& noisy) {
    std::vector<Index> wrong;
    for (Index i = 0; i < noisy.size(); ++i) {
        if (noisy.label(i) != right.label(i)) wrong.push_back(i);
    }
    return wrong;
}

std::vector<Index> labels_of(const Noisy& noisy) {
    std::vector<Index> labels;
    for (Index i = 0; i < noisy.size(); ++i) labels.push_back(noisy.label(i));
    return labels;
}

}  // namespace

TEST_CASE("the share of wrong labels is exact") {
    const auto right = images(1000);
    for (const double share : {0.0, 0.001, 0.25, 0.4, 1.0}) {
        CAPTURE(share);
        CHECK(wrong_samples(*right, Noisy(right, share, 7)).size() == static_cast<std::size_t>(1000 * share + 0.5));
    }
    CHECK(wrong_samples(*images(3), Noisy(images(3), 0.5, 7)).size() == 2);
    CHECK(Noisy(images(0), 0.4, 7).size() == 0);
}

TEST_CASE("every wrong class and every place has the same chance") {
    constexpr Index count = 10000;
    constexpr Index classes = 5;
    const auto right = images(count, classes);
    const Noisy noisy(right, 0.4, 11);
    std::vector<int> away(classes);
    int in_first_half = 0;
    for (const Index i : wrong_samples(*right, noisy)) {
        REQUIRE(noisy.label(i) >= 0);
        REQUIRE(noisy.label(i) < classes);
        ++away[static_cast<std::size_t>((noisy.label(i) - right->label(i) + classes) % classes)];
        in_first_half += i < count / 2 ? 1 : 0;
    }
    CHECK(away[0] == 0);
    // Of 4000: means 1000 and 2000, standard deviations 27.4 and 24.5 (without replacement); five of them.
    for (std::size_t k = 1; k < classes; ++k) CHECK(std::abs(away[k] - 1000) < 137);
    CHECK(std::abs(in_first_half - 2000) < 123);
}

TEST_CASE("the seed alone decides, and another seed decides otherwise") {
    const auto right = images(500);
    CHECK(labels_of(Noisy(right, 0.4, 3)) == labels_of(Noisy(images(500), 0.4, 3)));
    CHECK(wrong_samples(*right, Noisy(right, 0.4, 3)) != wrong_samples(*right, Noisy(right, 0.4, 4)));
}

TEST_CASE("images, classes and shape stay") {
    const auto right = images(20);
    const Noisy noisy(right, 0.4, 3);
    CHECK(noisy.num_classes() == 10);
    CHECK(noisy.image_shape() == right->image_shape());
    std::vector<float> before(48), after(48);
    for (Index i = 0; i < 20; ++i) {
        right->read(i, before.data());
        noisy.read(i, after.data());
        CHECK(before == after);
    }
    CHECK(sd::DataLoader(std::make_shared<const Noisy>(noisy), {.batch_size = 20}).load(0, 0).labels.size() == 20);
}

TEST_CASE("what cannot be is refused") {
    const auto nan = std::numeric_limits<double>::quiet_NaN();
    for (const double share : {-0.1, 1.1, nan}) {
        CHECK_THROWS_WITH_AS(Noisy(images(4), share, 1), doctest::Contains("share of wrong labels"),
                             std::invalid_argument);
    }
    CHECK_THROWS_WITH_AS(Noisy(nullptr, 0.4, 1), doctest::Contains("a null pointer"), std::invalid_argument);
    CHECK_THROWS_WITH_AS(Noisy(images(4, 1), 0.4, 1), doctest::Contains("number of classes: got 1"),
                         std::invalid_argument);
    CHECK(Noisy(images(4, 1), 0, 1).label(3) == 0);
}

}  // namespace test_noisy_labels
