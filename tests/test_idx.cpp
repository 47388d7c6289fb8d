// IDX files, plain and compressed: what they hold is read, and nothing malformed gets in.
#include "temporary_directory.hpp"

#include "sd/data/idx_gzip.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>
#include <zlib.h>

namespace test_idx {

using sd::Index;
using sd::Shape;
using sd_test::TemporaryDirectory;

namespace {

// Numbers as an IDX header has them.
std::string big_endian(std::initializer_list<std::uint32_t> numbers) {
    std::string bytes;
    for (const std::uint32_t number : numbers) {
        for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(number >> shift & 0xFF);
    }
    return bytes;
}

// Bytes 0, 1, 2 ...
std::string counting(int count) {
    std::string bytes;
    for (int i = 0; i < count; ++i) bytes += static_cast<char>(i);
    return bytes;
}

std::string images_file(std::uint32_t count, std::uint32_t height, std::uint32_t width) {
    return big_endian({0x803, count, height, width}) + counting(static_cast<int>(count * height * width));
}

std::string labels_file(const std::string& labels) {
    return big_endian({0x801, static_cast<std::uint32_t>(labels.size())}) + labels;
}

// By zlib, as a gzip file of one member.
std::string gzip(const std::string& bytes) {
    ::z_stream stream{};
    REQUIRE(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    std::string source = bytes;
    std::string compressed(deflateBound(&stream, source.size()), '\0');
    stream.next_in = reinterpret_cast<Bytef*>(source.data());
    stream.avail_in = static_cast<uInt>(source.size());
    stream.next_out = reinterpret_cast<Bytef*>(compressed.data());
    stream.avail_out = static_cast<uInt>(compressed.size());
    REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
    compressed.resize(stream.total_out);
    deflateEnd(&stream);
    return compressed;
}

// What is said of the bytes of a file.
std::string error_of(const std::function<void()>& call) {
    try {
        call();
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "accepted";
}
std::string error_of(const std::string& bytes, Index rank = 3) {
    return error_of([&] { (void)sd::parse_idx(std::as_bytes(std::span(bytes)), rank, "a.idx"); });
}
std::string error_of_gzip(const std::string& bytes, Index rank = 3) {
    return error_of([&] { (void)sd::parse_idx_gzip(std::as_bytes(std::span(bytes)), rank, "a.gz"); });
}

// Malformed arrays of three dimensions, and what is said of them plain and compressed.
struct Malformed {
    std::string bytes, plain, compressed;
};

std::vector<Malformed> malformed_arrays() {
    const std::string data = counting(12);
    const std::uint32_t huge = 0xFFFFFFFF;
    const std::string cut = "got an end after ";
    return {
        {"", "bytes: got 0, expected at least 16", cut + "0, expected 16"},
        {big_endian({0x803, 2, 3}), "bytes: got 12, expected at least 16", cut + "12, expected 16"},
        {big_endian({0x801, 2, 3, 2}) + data, "magic number: got 0x00000801, expected 0x00000803",
         "magic number: got 0x00000801"},
        {big_endian({0x03080000, 2, 3, 2}) + data, "magic number: got 0x03080000", "magic number: got 0x03080000"},
        {big_endian({0xD03, 2, 3, 2}) + data, "magic number: got 0x00000d03", "magic number: got 0x00000d03"},
        {big_endian({0x803, 0, 3, 2}), "extent of dimension 0: got 0", "extent of dimension 0: got 0"},
        {big_endian({0x803, 2, 0, 2}) + data, "extent of dimension 1: got 0", "extent of dimension 1: got 0"},
        {big_endian({0x803, 2, 3, 0}) + data, "extent of dimension 2: got 0", "extent of dimension 2: got 0"},
        {big_endian({0x803, huge, huge, huge}) + data, "extent of dimension 0: got 4294967295, expected at most 12",
         "extent of dimension 0: got 4294967295"},
        {big_endian({0x803, 1, huge, huge}) + data, "extent of dimension 1: got 4294967295, expected at most 12",
         "extent of dimension 1: got 4294967295"},
        {big_endian({0x803, 1, 1, huge}) + data, "extent of dimension 2: got 4294967295, expected at most 12",
         "extent of dimension 2: got 4294967295"},
        {big_endian({0x803, 2, 3, 3}) + data, "extent of dimension 2: got 3, expected at most 2",
         cut + "12, expected 18"},
        {big_endian({0x803, 2, 3, 2}) + data.substr(1), "extent of dimension 2: got 2, expected at most 1",
         cut + "11, expected 12"},
        {big_endian({0x803, 2, 3, 2}) + data + '\0', "bytes after the header: got 13, expected 12",
         "decompressed bytes: got more, expected an end"},
    };
}

}  // namespace

TEST_CASE("idx: arrays are read, plain and compressed") {
    const std::string bytes = images_file(2, 3, 4);
    for (const bool compressed : {false, true}) {
        const std::string file = compressed ? gzip(bytes) : bytes;
        const auto view = std::as_bytes(std::span(file));
        const auto images = compressed ? sd::parse_idx_gzip(view, 3, "a") : sd::parse_idx(view, 3, "a");
        CHECK(images.shape == Shape{2, 3, 4});
        REQUIRE(images.values.size() == 24);
        for (std::size_t i = 0; i < 24; ++i) CHECK(images.values[i] == i);
    }
    CHECK(error_of(labels_file("\1\2"), 1) == "accepted");
    CHECK(error_of(big_endian({0x802, 1, 2}) + "ab", 2) == "accepted");
    CHECK(error_of(big_endian({0x804, 1, 1, 1, 1}) + "a", 4) == "accepted");
    CHECK_THROWS_AS((void)sd::parse_idx({}, 0, "a"), std::invalid_argument);
    CHECK_THROWS_AS((void)sd::parse_idx({}, 5, "a"), std::invalid_argument);
}

TEST_CASE("idx: malformed arrays are refused, plain and compressed") {
    for (const Malformed& file : malformed_arrays()) {
        const std::string plain = error_of(file.bytes);
        const std::string compressed = error_of_gzip(gzip(file.bytes));
        CHECK(plain.find("a.idx: " + file.plain) == 0);
        CHECK_MESSAGE(compressed.find(file.compressed) != std::string::npos, compressed);
    }
}

TEST_CASE("idx: gzip that is not whole is refused") {
    const std::string whole = gzip(images_file(3, 10, 10));
    CHECK(error_of_gzip(whole) == "accepted");
    for (std::size_t size = 0; size < whole.size(); ++size) {
        const std::string error = error_of_gzip(whole.substr(0, size));
        CHECK_MESSAGE(error == "a.gz: compressed bytes: got an end in their middle, expected all of them", size);
    }
    CHECK(error_of_gzip(whole + 'x') == "a.gz: bytes after the compressed ones: got 1, expected 0");
    CHECK(error_of_gzip(whole + whole).find("bytes after the compressed ones") != std::string::npos);
    CHECK(error_of_gzip(images_file(1, 2, 3)).find("incorrect header check") != std::string::npos);
    for (std::size_t back = 1; back <= 8; ++back) {  // checksum and size at the end
        std::string corrupt = whole;
        corrupt[corrupt.size() - back] ^= 1;
        const std::string what = back <= 4 ? "incorrect length check" : "incorrect data check";
        CHECK(error_of_gzip(corrupt).find(what) != std::string::npos);
    }
    // A corrupt bit anywhere after the gzip header, whose name and time mean nothing here.
    for (std::size_t byte = 10; byte < whole.size(); ++byte) {
        std::string corrupt = whole;
        corrupt[byte] ^= 16;
        CHECK_MESSAGE(error_of_gzip(corrupt) != "accepted", byte);
    }
}

TEST_CASE("idx: a bomb is not inflated beyond what its header promises, nor a promise kept that it cannot hold") {
    const std::string bomb = gzip(big_endian({0x803, 1, 1, 1}) + std::string(10'000'000, '\0'));
    CHECK(error_of_gzip(bomb) == "a.gz: decompressed bytes: got more, expected an end");
    // Ten times as many values as so many bytes of gzip can be.
    const auto count = static_cast<std::uint32_t>(10 * 1032 * bomb.size());
    const std::string promise = gzip(big_endian({0x803, count, 1, 1}) + std::string(10'000'000, '\0'));
    CHECK(error_of_gzip(promise).find("extent of dimension 0") != std::string::npos);
}

TEST_CASE("mnist: images, labels and normalisation, plain and compressed") {
    const TemporaryDirectory directory;
    for (const bool compressed : {false, true}) {
        const auto write = [&](const std::string& name, const std::string& bytes) {
            directory.write(compressed ? name + ".gz" : name, compressed ? gzip(bytes) : bytes);
        };
        const auto read = compressed ? sd::read_mnist_gzip : sd::read_mnist;
        write("train-images-idx3-ubyte", images_file(3, 2, 4));
        write("train-labels-idx1-ubyte", labels_file({7, 0, 9}));
        write("t10k-images-idx3-ubyte", images_file(1, 28, 28));
        write("t10k-labels-idx1-ubyte", labels_file({5}));
        const auto train = read(directory.path(), sd::Split::train, sd::mnist_normalization());
        const auto test = read(directory.path(), sd::Split::test, sd::fashion_mnist_normalization());
        REQUIRE(train.size() == 3);
        CHECK(train.num_classes() == 10);
        CHECK(train.image_shape() == Shape{2, 4, 1});
        CHECK(train.label(0) == 7);
        CHECK(train.label(2) == 9);
        std::vector<float> image(8);
        train.read(2, image.data());
        CHECK(image[6] == doctest::Approx((22.0 / 255 - 0.1307) / 0.3081).epsilon(1e-5));
        REQUIRE(test.size() == 1);
        CHECK(test.image_shape() == Shape{28, 28, 1});
        CHECK(test.label(0) == 5);
        image.resize(28 * 28);
        test.read(0, image.data());
        CHECK(image[255] == doctest::Approx((1 - 0.2860) / 0.3530).epsilon(1e-5));
        CHECK_THROWS_AS((void)read(directory.path(), sd::Split::test, {{0, 0}, {1, 1}}), std::invalid_argument);
    }
}

TEST_CASE("mnist: both spellings, compressed or not, in any mixture") {
    // Of the two files of a split: bit 0 of each number tells the spelling, bit 1 whether it is compressed.
    for (int images = 0; images < 4; ++images) {
        for (int labels = 0; labels < 4; ++labels) {
            const TemporaryDirectory directory;
            const auto write = [&](const std::string& start, const std::string& end, int kind,
                                   const std::string& bytes) {
                directory.write(start + (kind % 2 == 0 ? "-" : ".") + end + (kind < 2 ? "" : ".gz"),
                                kind < 2 ? bytes : gzip(bytes));
            };
            write("t10k-images", "idx3-ubyte", images, images_file(2, 3, 4));
            write("t10k-labels", "idx1-ubyte", labels, labels_file({5, 6}));
            const auto read = images < 2 && labels < 2 ? sd::read_mnist : sd::read_mnist_gzip;
            const auto test = read(directory.path(), sd::Split::test, sd::mnist_normalization());
            REQUIRE(test.size() == 2);
            CHECK(test.label(1) == 6);
            CHECK(test.image_shape() == Shape{3, 4, 1});
        }
    }
}

TEST_CASE("mnist: what a file holds its first bytes tell, and a folder of its name is passed over") {
    const TemporaryDirectory directory;
    std::filesystem::create_directory(directory.path() / "t10k-images-idx3-ubyte");
    directory.write("t10k-images.idx3-ubyte", gzip(images_file(2, 3, 4)));
    directory.write("t10k-labels-idx1-ubyte.gz", labels_file({5, 6}));
    CHECK(sd::read_mnist_gzip(directory.path(), sd::Split::test, sd::mnist_normalization()).size() == 2);
}

TEST_CASE("mnist: if no name fits, the message tells what is there") {
    const TemporaryDirectory directory;
    for (const char* name : {".hidden", "a", "b", "c", "d", "e", "f", "g"}) directory.write(name, "");
    const auto error = [&](const auto& read) {
        return error_of([&] { (void)read(directory.path(), sd::Split::train, sd::mnist_normalization()); });
    };
    const std::string found = directory.path().string() + ": images: got a, b, c, d, e, f and 1 more, expected ";
    CHECK(error(sd::read_mnist) == found + "train-images-idx3-ubyte, train-images.idx3-ubyte");
    CHECK(error(sd::read_mnist_gzip) == found +
                                            "train-images-idx3-ubyte, train-images.idx3-ubyte, "
                                            "train-images-idx3-ubyte.gz, train-images.idx3-ubyte.gz");
}

TEST_CASE("mnist: files that do not go together are refused, naming the file") {
    const TemporaryDirectory directory;
    const auto error = [&] {
        return error_of([&] { (void)sd::read_mnist(directory.path(), sd::Split::test, sd::mnist_normalization()); });
    };
    CHECK(error().find(": images: got nothing, expected t10k-images-idx3-ubyte") != std::string::npos);
    directory.write("t10k-images-idx3-ubyte", images_file(3, 2, 2));
    CHECK(error().find(": labels: got t10k-images-idx3-ubyte, expected t10k-labels-idx1-ubyte") != std::string::npos);
    directory.write("t10k-labels-idx1-ubyte", labels_file({1, 2}));
    CHECK(error().find("t10k-labels-idx1-ubyte: number of labels: got 2, expected 3") != std::string::npos);
    directory.write("t10k-labels-idx1-ubyte", labels_file({1, 10, 3}));
    CHECK(error().find("t10k-labels-idx1-ubyte: label 1: got 10, expected 0 to 9") != std::string::npos);
    directory.write("t10k-labels-idx1-ubyte", images_file(3, 1, 1));
    CHECK(error().find("t10k-labels-idx1-ubyte: magic number") != std::string::npos);
    directory.write("t10k-labels-idx1-ubyte", labels_file({1, 2, 3}));
    CHECK(error() == "accepted");
}

}  // namespace test_idx
