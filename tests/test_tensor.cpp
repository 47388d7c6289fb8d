// Shapes, tensors, pending tensors.

// The checks of element access are tested here, in release builds too.
#undef SD_CHECK_BOUNDS
#define SD_CHECK_BOUNDS 1

#include "messages.hpp"

#include "sd/core/pending.hpp"
#include "sd/core/tensor.hpp"
#include "sd/eigen.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

using sd::as_eigen;
using sd::Index;
using sd::Shape;
using sd::Tensor;
using sd_test::contains;
using sd_test::message_of;

namespace {

// A number type of a user's own that counts its living instances.
struct Counted {
    static inline std::int64_t alive = 0;
    double value = 0;

    Counted() { ++alive; }
    explicit Counted(double number) : value(number) { ++alive; }
    Counted(const Counted& other) : value(other.value) { ++alive; }
    Counted& operator=(const Counted&) = default;
    ~Counted() { --alive; }

    friend Counted operator+(const Counted& a, const Counted& b) { return Counted(a.value + b.value); }
    friend Counted operator*(const Counted& a, const Counted& b) { return Counted(a.value * b.value); }
    friend bool operator<(const Counted& a, const Counted& b) { return a.value < b.value; }
    friend bool operator==(const Counted& a, const Counted& b) { return a.value == b.value; }
};

}  // namespace

TEST_CASE("shape: extents, size, comparison, text") {
    const Shape images{2, 3, 4, 5};
    CHECK(images.rank() == 4);
    CHECK(images.size() == 120);
    CHECK(images[0] == 2);
    CHECK(images[3] == 5);
    CHECK(Shape{}.rank() == 0);
    CHECK(Shape{}.size() == 1);
    CHECK(Shape{7, 0, 3}.size() == 0);
    CHECK(Shape{2, 3} == Shape{2, 3});
    CHECK_FALSE(Shape{2, 3} == Shape{3, 2});
    CHECK_FALSE(Shape{2, 3} == Shape{2, 3, 1});
    CHECK(sd::text(images) == "(2, 3, 4, 5)");
    CHECK(sd::text(Shape{}) == "()");
    CHECK(sd::with_samples(images, 9) == Shape{9, 3, 4, 5});
    const std::vector<int> extents = {4, 6};
    CHECK(Shape(extents.begin(), extents.end()) == Shape{4, 6});
}

TEST_CASE("shape: refused") {
    CHECK(contains(message_of([] { (void)Shape{2, -1}; }), "got -1, expected 0 or more"));
    CHECK(contains(message_of([] { (void)Shape{1, 1, 1, 1, 1}; }), "rank"));
    const Index huge = std::numeric_limits<Index>::max() / 2;
    CHECK(contains(message_of([&] { (void)Shape{huge, 1}; }), "number of elements"));
    CHECK(contains(message_of([&] { (void)Shape{1 << 30, 1 << 30, 1 << 30}; }), "number of elements"));
    CHECK_MESSAGE(message_of([&] {
                      (void)Shape{0, 1 << 30, 1 << 30, 1 << 30};
                  }) != "accepted",
                  "a zero hides no overflow");
    CHECK(contains(message_of([] { (void)Shape{2, 3}[2]; }), "dimension: got 2"));
    CHECK(contains(message_of([] { (void)Shape{2, 3}[-1]; }), "dimension: got -1"));
    CHECK(contains(message_of([] { (void)sd::with_samples(Shape{}, 1); }), "with_samples"));
    CHECK(message_of([] {
              sd::expect_shape("here", "x", {1, 2}, {1, 3});
          }) == "here: shape of x: got (1, 2), expected (1, 3)");
    CHECK(message_of([] {
              sd::expect_rank("here", "x", {1, 2}, 4);
          }) == "here: shape of x: got (1, 2), expected 4 dimensions");
    CHECK_THROWS_AS(sd::refuse_file("a.bin", "length", 3, 4), std::runtime_error);
}

TEST_CASE("tensor: a handle on shared elements") {
    Tensor<float> a(Shape{2, 3}, {1, 2, 3, 4, 5, 6});
    CHECK(a);
    CHECK(a.size() == 6);
    CHECK(a(1, 0) == 4);
    Tensor<float> handle = a;
    CHECK(handle.shares_storage_with(a));
    handle(1, 0) = 40;
    CHECK(a(1, 0) == 40);

    Tensor<float> copy = a.clone();
    CHECK_FALSE(copy.shares_storage_with(a));
    copy(0, 0) = -1;
    CHECK(a(0, 0) == 1);

    const Tensor<float> view = a.reshape({3, 2});
    CHECK(view.shares_storage_with(a));
    CHECK(view(2, 0) == 5);
    CHECK(contains(message_of([&] { (void)a.reshape({4, 2}); }), "expected 6 elements"));

    const Tensor<float> moved = std::move(handle);
    CHECK(moved.shares_storage_with(a));
    a = Tensor<float>();
    CHECK_FALSE(a);
    CHECK(moved(1, 0) == 40);
}

TEST_CASE("tensor: undefined, empty, scalar, filled") {
    const Tensor<double> undefined;
    CHECK_FALSE(undefined);
    CHECK(undefined.size() == 0);
    CHECK_FALSE(undefined.clone());
    const Tensor<double> none(Shape{0, 3});
    CHECK(none);
    CHECK(none.size() == 0);
    CHECK(none.begin() == none.end());
    CHECK(none.clone().shape() == Shape{0, 3});
    Tensor<double> scalar{Shape{}};
    CHECK(scalar.size() == 1);
    scalar() = 3;
    CHECK(scalar() == 3);
    CHECK(Tensor<int>::full({2, 2}, 7)(1, 1) == 7);
    CHECK(Tensor<int>(Shape{2, 2})(1, 1) == 0);
    CHECK(contains(message_of([] { (void)Tensor<int>(Shape{2, 2}, {1, 2, 3}); }), "number of values: got 3"));
}

TEST_CASE("tensor: element access is checked") {
    Tensor<float> a(Shape{2, 3});
    const Tensor<float> undefined;
    CHECK_NOTHROW((void)a(1, 2));
    CHECK_THROWS_AS((void)a(2, 0), std::out_of_range);
    CHECK_THROWS_AS((void)a(0, 3), std::out_of_range);
    CHECK_THROWS_AS((void)a(-1, 0), std::out_of_range);
    CHECK_THROWS_AS((void)a(1), std::out_of_range);
    CHECK_THROWS_AS((void)a(0, 0, 0), std::out_of_range);
    CHECK_THROWS_AS((void)undefined(0), std::out_of_range);
    CHECK_THROWS_WITH((void)a(0, 3), "Tensor: index: got (0, 3), expected inside (2, 3)");
}

TEST_CASE("tensor: NHWC memory, 64-byte aligned") {
    Tensor<float> images(Shape{2, 3, 4, 5});
    for (Index i = 0; i < images.size(); ++i) images.data()[i] = static_cast<float>(i);
    CHECK(images(1, 2, 3, 4) == 119);
    CHECK(images(1, 0, 2, 3) == static_cast<float>(((1 * 3 + 0) * 4 + 2) * 5 + 3));
    for (const Index size : {1, 3, 17, 1000, 123457}) {
        const auto address = reinterpret_cast<std::uintptr_t>(Tensor<float>(Shape{size}).data());
        CHECK(address % 64 == 0);
    }
}

TEST_CASE("tensor: buffers are reused") {
    const Shape shape{97, 41};
    { const auto first = Tensor<float>::empty(shape); }
    const std::int64_t before = sd::pool_allocations();
    for (int step = 0; step < 10; ++step) {
        const auto a = Tensor<float>::empty(shape);
        CHECK(a.size() == 97 * 41);
    }
    CHECK(sd::pool_allocations() == before);
    {
        const auto a = Tensor<float>::empty(shape);
        const auto b = Tensor<float>::empty(shape);
        CHECK_FALSE(a.shares_storage_with(b));
        CHECK(sd::pool_allocations() <= before + 1);
    }
    sd::trim_pool();
    const std::int64_t trimmed = sd::pool_allocations();
    { const auto a = Tensor<float>::empty(shape); }
    CHECK(sd::pool_allocations() == trimmed + 1);
}

TEST_CASE("eigen: views have the tensor's elements") {
    Tensor<double> a(Shape{2, 3}, {1, 2, 3, 4, 5, 6});
    const Tensor<double> b(Shape{3, 2}, {1, 0, 0, 1, 1, 1});
    const Tensor<double> product = sd::tensor_from(as_eigen(std::as_const(a)) * as_eigen(b));
    CHECK(product.shape() == Shape{2, 2});
    CHECK(product(0, 0) == 4);
    CHECK(product(0, 1) == 5);
    CHECK(product(1, 0) == 10);
    CHECK(product(1, 1) == 11);
    as_eigen(a)(1, 2) = 60;
    CHECK(a(1, 2) == 60);

    Tensor<double> images(Shape{2, 2, 2, 3});
    sd::as_eigen<4>(images)(1, 0, 1, 2) = 9;
    CHECK(images(1, 0, 1, 2) == 9);
    CHECK(as_eigen(images).rows() == 8);
    CHECK(as_eigen(images).cols() == 3);
    CHECK(sd::as_eigen<4>(std::as_const(images)).dimension(3) == 3);
    CHECK(contains(message_of([&] { (void)sd::as_eigen<3>(images); }),
                   "as_eigen: shape of the tensor: got (2, 2, 2, 3)"));
    const Tensor<double> empty(Shape{0, 3});
    CHECK(as_eigen(empty).rows() == 0);
    CHECK(as_eigen(empty).cols() == 3);
    CHECK(as_eigen(Tensor<double>::full(Shape{}, 7))(0, 0) == 7);
}

TEST_CASE("eigen: what the documentation shows") {
    Tensor<float> x(Shape{2, 2, 2, 3},
                    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23});
    const Eigen::RowVector3f shift(1, 2, 3);
    const Eigen::Matrix3f weight = Eigen::Matrix3f::Identity() * 2;
    sd::as_eigen(x).rowwise() += shift;
    const auto y = sd::tensor_from(sd::as_eigen(x) * weight);
    const Eigen::Tensor<float, 3, Eigen::RowMajor> means = sd::as_eigen<4>(x).mean(std::array<int, 1>{0});
    const auto z = sd::tensor_from(means);
    CHECK(x(0, 0, 1, 1) == 6);
    CHECK(y.shape() == Shape{8, 3});
    CHECK(y(7, 2) == 52);
    CHECK(z.shape() == Shape{2, 2, 3});
    CHECK(z(0, 0, 0) == 7);
}

TEST_CASE("eigen: tensors of matrices, arrays and Eigen tensors of either layout") {
    const auto number = [](Index i, Index j, Index k) { return static_cast<float>(100 * i + 10 * j + k); };
    Eigen::MatrixXf matrix(2, 3);  // column-major
    Eigen::Tensor<float, 3> by_columns(2, 3, 4);
    Eigen::Tensor<float, 3, Eigen::RowMajor> by_rows(2, 3, 4);
    for (Index i = 0; i < 2; ++i) {
        for (Index j = 0; j < 3; ++j) {
            matrix(i, j) = number(i, j, 0);
            for (Index k = 0; k < 4; ++k) by_columns(i, j, k) = by_rows(i, j, k) = number(i, j, k);
        }
    }
    const Tensor<float> of_matrix = sd::tensor_from(matrix);
    const Tensor<float> of_array = sd::tensor_from(matrix.array() + 1);
    const Tensor<float> of_columns = sd::tensor_from(by_columns);
    const Tensor<float> of_rows = sd::tensor_from(by_rows);
    REQUIRE(of_matrix.shape() == Shape{2, 3});
    REQUIRE(of_array.shape() == Shape{2, 3});
    REQUIRE(of_columns.shape() == Shape{2, 3, 4});
    REQUIRE(of_rows.shape() == Shape{2, 3, 4});
    for (Index i = 0; i < 2; ++i) {
        for (Index j = 0; j < 3; ++j) {
            CHECK(of_matrix(i, j) == number(i, j, 0));
            CHECK(of_array(i, j) == number(i, j, 0) + 1);
            for (Index k = 0; k < 4; ++k) {
                CHECK(of_columns(i, j, k) == number(i, j, k));
                CHECK(of_rows(i, j, k) == number(i, j, k));
            }
        }
    }
    matrix(0, 0) = 5;
    CHECK(of_matrix(0, 0) == 0);
    CHECK(sd::tensor_from(Eigen::MatrixXf(0, 3)).shape() == Shape{0, 3});
    CHECK(contains(message_of([] { (void)sd::tensor_from(Eigen::Tensor<float, 5>(1, 1, 1, 1, 1)); }), "at most 4"));
}

TEST_CASE("tensor: a number type of a user's own is constructed and destroyed") {
    CHECK(Counted::alive == 0);
    {
        Tensor<Counted> a(Shape{2, 2});
        CHECK(Counted::alive == 4);
        a(0, 1) = Counted(2.5);
        const Tensor<Counted> copy = a.clone();
        CHECK(Counted::alive == 8);
        CHECK(copy(0, 1) == Counted(2.5));
        const Tensor<Counted> handle = copy;
        CHECK(Counted::alive == 8);

        const sd::Pending<Counted> pending(a, Tensor<Counted>::full({2}, Counted(-2)),
                                           Tensor<Counted>::full({2}, Counted(1)), sd::Activation::relu);
        CHECK(pending.before_activation(Counted(2.5), 1) == Counted(-4));
        CHECK(pending.before_activation(Counted(-2.5), 0) == Counted(6));
    }
    CHECK(Counted::alive == 0);
}

TEST_CASE("pending: plain, scaled, rectified, NaN") {
    const Tensor<float> raw(Shape{1, 2}, {-1, 3});
    const sd::Pending<float> plain(raw);
    CHECK(plain.is_plain());
    CHECK(plain.value(0) == -1.0F);
    const sd::Pending<float> scaled(raw, Tensor<float>(Shape{2}, {2, -1}), Tensor<float>(Shape{2}, {5, 1}),
                                    sd::Activation::relu);
    CHECK_FALSE(scaled.is_plain());
    CHECK(scaled.channels() == 2);
    CHECK(scaled.value(0) == 3.0F);
    CHECK(scaled.value(1) == 0.0F);
    Tensor<float> undefined = raw.clone();
    undefined(0, 1) = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(sd::Pending<float>(undefined, scaled.scale, scaled.shift, scaled.activation).value(1)));
    const Tensor<float> rows(Shape{2, 2, 1, 1}, {1, 2, 3, 4});
    const auto gated = sd::Pending<float>(rows).gated(Tensor<float>(Shape{2, 1}, {10, -1}));
    CHECK_FALSE(gated.is_plain());
    CHECK(gated.value(1) == 20);
    CHECK(gated.value(2) == -3);
    CHECK(contains(message_of([&] { (void)gated.gated(Tensor<float>(Shape{1, 1})); }), "gate"));
    CHECK(contains(message_of([&] {
                       (void)sd::Pending<float>(raw, Tensor<float>(Shape{3}), Tensor<float>(Shape{2}),
                                                sd::Activation::none);
                   }),
                   "shape of scale: got (3), expected (2)"));
}
