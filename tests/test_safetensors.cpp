// Safetensors files: what is written is read, and nothing malformed gets in.
#include "random.hpp"
#include "temporary_directory.hpp"

#include "sd/io/safetensors.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace test_safetensors {

using sd::Index;
using sd::SafeTensors;
using sd::Shape;
using sd::Tensor;
using sd_test::TemporaryDirectory;

namespace {

std::string with_size(std::uint64_t size, const std::string& rest) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &size, 8);
    return bytes + rest;
}

// A file of the header and `data_size` zero bytes.
std::string file_of(const std::string& header, std::size_t data_size) {
    return with_size(header.size(), header + std::string(data_size, '\0'));
}

SafeTensors parse(const std::string& bytes) {
    return sd::parse_safetensors(std::as_bytes(std::span(bytes)), "file.safetensors");
}

std::string error_of(const std::string& bytes) {
    try {
        (void)parse(bytes);
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "accepted";
}

std::string tensor_json(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return sd::text(R"({"a":{"dtype":)", dtype, R"(,"shape":)", shape, R"(,"data_offsets":)", offsets, "}}");
}

// Tensors "a" and `name`, one F32 each.
std::string two_tensors(const std::string& offsets, const std::string& name, const std::string& other_offsets) {
    const std::string fields = R"("dtype":"F32","shape":[1],"data_offsets":)";
    return sd::text("{\"a\":{", fields, offsets, "},\"", name, "\":{", fields, other_offsets, "}}");
}

}  // namespace

TEST_CASE("what is written is read") {
    const TemporaryDirectory directory;
    const auto path = directory.path() / "a.safetensors";
    SafeTensors file;
    const auto weight = sd_test::random_tensor<float>({2, 3, 1, 4}, 1);
    const auto mean = sd_test::random_tensor<double>({5}, 2);
    file.add("conv1.weight", weight);
    file.add("mean \"x\" \xc3\xa9", mean);
    file.add("count", Tensor<std::int64_t>(Shape{}, {-7}));
    file.add("empty", Tensor<float>(Shape{0, 3}));
    file.set_metadata("spec", "{\"a\": 1}");
    sd::write_safetensors(path, file);
    const SafeTensors read = sd::read_safetensors(path);
    CHECK(read.names() == file.names());
    CHECK(read.metadata() == file.metadata());
    CHECK(sd_test::relative_error(read.tensor<float>("conv1.weight"), weight) == 0);
    CHECK(sd_test::relative_error(read.tensor<double>("mean \"x\" \xc3\xa9"), mean) == 0);
    CHECK(read.tensor<std::int64_t>("count").data()[0] == -7);
    CHECK(read.tensor<float>("empty").shape() == Shape{0, 3});
    CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1);
    CHECK_THROWS_WITH_AS((void)read.tensor<float>("count"), doctest::Contains("dtype: got I64, expected F32"),
                         std::runtime_error);
    CHECK_THROWS_WITH_AS((void)read.tensor<float>("none"), doctest::Contains("\"none\""), std::runtime_error);
    CHECK_THROWS_AS(file.add("count", mean), std::invalid_argument);
}

TEST_CASE("the bytes are those of the format") {
    // By hand, from the format's description.
    SafeTensors file;
    file.add("a", Tensor<float>(Shape{1, 2}, {1.0F, -2.0F}));
    const TemporaryDirectory directory;
    sd::write_safetensors(directory.path() / "a", file);
    std::ifstream stream(directory.path() / "a", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(stream)), {});
    std::string header = R"({"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    CHECK(bytes == with_size(header.size(), header + std::string("\0\0\x80\x3f\0\0\0\xc0", 8)));
}

TEST_CASE("a failed write leaves the old file and no other") {
    const TemporaryDirectory directory;
    const auto path = directory.path() / "a";
    SafeTensors file;
    file.add("a", Tensor<float>(Shape{2}));
    sd::write_safetensors(path, file);
    SafeTensors unfit;
    unfit.add("\xff", Tensor<float>(Shape{2}));
    CHECK_THROWS_AS(sd::write_safetensors(path, unfit), std::invalid_argument);
    CHECK(sd::read_safetensors(path).names() == std::vector<std::string>{"a"});
    CHECK_THROWS_AS(sd::write_safetensors(directory.path() / "none" / "a", file), std::runtime_error);
    std::filesystem::create_directory(directory.path() / "folder");
    CHECK_THROWS_AS(sd::write_safetensors(directory.path() / "folder", file), std::runtime_error);
    CHECK_THROWS_AS((void)sd::read_safetensors(directory.path() / "folder"), std::runtime_error);
    CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 2);
}

TEST_CASE("sound files of all kinds are read") {
    CHECK(error_of(file_of("{}", 0)) == "accepted");
    CHECK(error_of(file_of("{}   ", 0)) == "accepted");
    CHECK(error_of(file_of(tensor_json("\"F32\"", "[2]", "[0,8]"), 8)) == "accepted");
    CHECK(error_of(file_of(tensor_json("\"BF16\"", "[1,1,1,1,2]", "[0,4]"), 4)) == "accepted");
    CHECK(error_of(file_of(tensor_json("\"F64\"", "[]", "[0,8]"), 8)) == "accepted");
    CHECK(error_of(file_of(R"({"__metadata__":{"format":"pt"}})", 0)) == "accepted");
    const SafeTensors five = parse(file_of(tensor_json("\"F32\"", "[1,1,1,1,2]", "[0,8]"), 8));
    CHECK_THROWS_WITH_AS((void)five.tensor<float>("a"), doctest::Contains("at most 4 dimensions"), std::runtime_error);
}

TEST_CASE("malformed files are refused, saying what and where") {
    const auto refused = [](const std::string& bytes, const std::string& words) {
        const std::string error = error_of(bytes);
        CAPTURE(error);
        CAPTURE(words);
        CHECK(error.find("file.safetensors") == 0);
        CHECK(error.find(words) != std::string::npos);
    };
    const std::string f32 = "\"F32\"";
    refused("", "bytes: got 0, expected at least 8");
    refused("1234567", "bytes: got 7");
    refused(with_size(100'000'001, std::string(16, ' ')),
            "bytes of the header: got 100000001, expected at most 100000000");
    refused(with_size(100'000'000, std::string(16, ' ')), "bytes of the header: got 100000000, expected at most 16");
    refused(with_size(3, "{}"), "bytes of the header: got 3, expected at most 2");
    refused(with_size(~std::uint64_t{0}, "{}"), "bytes of the header");
    refused(file_of("", 0), "header");
    refused(file_of("{", 0), "JSON");
    refused(file_of("{}{}", 0), "JSON");
    refused(file_of("[]", 0), "header");
    refused(file_of("\xef\xbb\xbf{}", 0), "header");
    refused(file_of(std::string("{}\0", 3), 0), "zero byte");
    refused(file_of("{\"\xff\":1}", 0), "UTF-8");
    refused(file_of(R"({"a":1})", 0), "\"a\"");
    refused(file_of(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8), "dtype: got none");
    refused(file_of(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8), "shape: got none");
    refused(file_of(R"({"a":{"dtype":"F32","shape":[2]}})", 8), "data_offsets: got none");
    refused(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8), "\"x\"");
    refused(file_of(tensor_json("\"F33\"", "[2]", "[0,8]"), 8), "\"F33\"");
    refused(file_of(tensor_json("32", "[2]", "[0,8]"), 8), "dtype: got 32");
    refused(file_of(tensor_json(f32, "2", "[0,8]"), 8), "shape: got 2");
    refused(file_of(tensor_json(f32, "[-2]", "[0,8]"), 8), "extent of shape: got -2");
    refused(file_of(tensor_json(f32, "[2.0]", "[0,8]"), 8), "extent of shape: got 2.0");
    refused(file_of(tensor_json(f32, "[18446744073709551615]", "[0,8]"), 8), "extent of shape");
    refused(file_of(tensor_json(f32, "[99999999999999999999]", "[0,8]"), 8), "extent of shape");
    refused(file_of(tensor_json(f32, "[4611686018427387904,4,0]", "[0,0]"), 0), "fits memory");
    refused(file_of(tensor_json(f32, "[[2]]", "[0,8]"), 8), "extent of shape");
    refused(file_of(tensor_json(f32, "[2]", "[0]"), 8), "data_offsets: got 1 numbers");
    refused(file_of(tensor_json(f32, "[2]", "[0,8,8]"), 8), "a third number");
    refused(file_of(tensor_json(f32, "[2]", "[0,1e1]"), 8), "data_offsets");
    refused(file_of(tensor_json(f32, "[2]", "[0.5,8.5]"), 9), "data_offsets: got 0.5");
    refused(file_of(tensor_json(f32, "[2]", "[-1,7]"), 8), "data_offsets: got -1");
    refused(file_of(tensor_json(f32, "[2]", "[0,9223372036854775808]"), 8), "data_offsets: got 9223372036854775808");
    refused(file_of(tensor_json(f32, "[2]", "[0,36893488147419103240]"), 8), "data_offsets: got 36893488147419103240");
    refused(file_of(tensor_json(f32, "[2]", "\"0,8\""), 8), "data_offsets: got the text");
    refused(file_of(tensor_json("null", "[2]", "[0,8]"), 8), "dtype: got null");
    refused(file_of(tensor_json(f32, "[2]", "[8,0]"), 8), "END of data_offsets: got 0");
    refused(file_of(tensor_json(f32, "[2]", "[0,16]"), 8), "END of data_offsets: got 16, expected at most 8");
    refused(file_of(tensor_json(f32, "[2]", "[0,4]"), 4), "bytes in data_offsets: got 4, expected 8");
    refused(file_of(tensor_json(f32, "[2]", "[4,12]"), 12), "BEGIN of data_offsets: got 4, expected 0");
    refused(file_of(tensor_json(f32, "[2]", "[0,8]"), 9), "bytes of data: got 9, expected 8");
    refused(file_of(R"({"__metadata__":{"a":1}})", 0), "__metadata__");
    refused(file_of(R"({"__metadata__":{"a":"1","a":"2"}})", 0), "twice");
    refused(file_of(R"({"__metadata__":{},"__metadata__":{}})", 0), "twice");
    refused(file_of(two_tensors("[0,4]", "b", "[8,12]"), 12), "BEGIN of data_offsets: got 8, expected 4");
    refused(file_of(two_tensors("[0,4]", "b", "[2,6]"), 6), "BEGIN of data_offsets: got 2, expected 4");
    refused(file_of(two_tensors("[0,4]", "b", "[0,4]"), 8), "BEGIN of data_offsets: got 0, expected 4");
    refused(file_of(two_tensors("[0,4]", "a", "[4,8]"), 8), "twice");
    refused(file_of(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4), "twice");
    refused(file_of(std::string(100'000, '['), 0), "header");
    refused(file_of(sd::text("{\"a\":", std::string(100'000, '{')), 0), "header");
    refused(file_of(sd::text("{\"a\":{\"shape\":", std::string(100'000, '[')), 0), "shape");
}

TEST_CASE("every shortened file is refused") {
    const std::string whole = file_of(tensor_json("\"F32\"", "[2]", "[0,8]"), 8);
    REQUIRE(error_of(whole) == "accepted");
    for (std::size_t size = 0; size < whole.size(); ++size) CHECK(error_of(whole.substr(0, size)) != "accepted");
}

}  // namespace test_safetensors
