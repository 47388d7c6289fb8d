// PNG and JPEG: images of all kinds are decoded, and nothing that is not whole gets in.
#include "image_files.hpp"

#include "sd/io/image_file.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>
#include <zlib.h>

using sd::Index;
using sd_test::jpeg_file;
using sd_test::png_file;
using Bytes = std::vector<std::uint8_t>;

namespace {

sd::RgbImage decode(const std::string& bytes) { return sd::decode_image(std::as_bytes(std::span(bytes)), "a.file"); }

std::string error_of(const std::string& bytes) {
    try {
        (void)decode(bytes);
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "accepted";
}

bool refused_for(const std::string& bytes, const std::string& reason) {
    const std::string error = error_of(bytes);
    const bool refused = error.find("a.file: ") == 0 && error.find(reason) != std::string::npos;
    if (!refused) MESSAGE(error);
    return refused;
}

// Bytes that change slowly: (height, width, channels).
Bytes gradient(int height, int width, int channels) {
    Bytes bytes;
    for (int h = 0; h < height; ++h) {
        for (int w = 0; w < width; ++w) {
            for (int c = 0; c < channels; ++c) bytes.push_back(static_cast<std::uint8_t>(20 + 5 * h + 3 * w + 40 * c));
        }
    }
    return bytes;
}

// The same value for red, green and blue.
Bytes grey(const Bytes& values) {
    Bytes pixels;
    for (const std::uint8_t value : values) pixels.insert(pixels.end(), 3, value);
    return pixels;
}

// The largest difference of two images of one size, 256 for others.
int distance(const sd::RgbImage& image, const Bytes& expected) {
    if (image.pixels.size() != expected.size()) return 256;
    int largest = 0;
    for (std::size_t i = 0; i < expected.size(); ++i)
        largest = std::max(largest, std::abs(image.pixels[i] - expected[i]));
    return largest;
}

void put(std::string& bytes, std::size_t at, std::uint32_t value, int count) {
    for (int i = 0; i < count; ++i)
        bytes[at + static_cast<std::size_t>(i)] = static_cast<char>(value >> 8 * (count - 1 - i));
}

std::uint32_t checksum(const std::string& bytes) {
    return static_cast<std::uint32_t>(
        crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

// The PNG file with other extents in its header: the header's name begins at 12, its 13 bytes at 16.
std::string with_png_extents(std::string file, std::uint32_t height, std::uint32_t width) {
    put(file, 16, width, 4);
    put(file, 20, height, 4);
    put(file, 29, checksum(file.substr(12, 17)), 4);
    return file;
}

// The PNG file with a chunk of 9 bytes after the header, which ends at 33.
std::string with_png_chunk(const std::string& file, const std::string& name) {
    std::string chunk = std::string("\0\0\0\x09", 4) + name + "123456789" + "sum?";
    put(chunk, 17, checksum(chunk.substr(4, 13)), 4);
    return file.substr(0, 33) + chunk + file.substr(33);
}

// The JPEG file with other extents in its frame's header.
std::string with_jpeg_extents(std::string file, std::uint32_t height, std::uint32_t width) {
    const std::size_t frame = std::min(file.find("\xff\xc0"), file.find("\xff\xc2"));
    put(file, frame + 5, height, 2);
    put(file, frame + 7, width, 2);
    return file;
}

// Scans of a grey image that bring every coefficient alone, bit by bit.
std::vector<::jpeg_scan_info> tiny_scans() {
    std::vector<::jpeg_scan_info> scans;
    for (int bit = 2; bit >= 0; --bit) {
        for (int k = 0; k < 64; ++k) scans.push_back({1, {0}, k, k, bit == 2 ? 0 : bit + 1, bit});
    }
    return scans;
}

}  // namespace

TEST_CASE("png: every kind becomes RGB") {
    const Bytes rgb = gradient(5, 7, 3);
    const auto image = decode(png_file(5, 7, rgb));
    CHECK(image.height == 5);
    CHECK(image.width == 7);
    CHECK(image.pixels == rgb);
    CHECK(decode(png_file(5, 7, rgb, {.interlace = PNG_INTERLACE_ADAM7})).pixels == rgb);

    const Bytes values = gradient(5, 7, 1);
    CHECK(decode(png_file(5, 7, values, {.color_type = PNG_COLOR_TYPE_GRAY})).pixels == grey(values));
    // Pixels 1, 0, 1 and 0, 1, 1 in bits, from the highest on.
    CHECK(decode(png_file(2, 3, {0xA0, 0x60}, {.color_type = PNG_COLOR_TYPE_GRAY, .bit_depth = 1})).pixels ==
          grey({255, 0, 255, 0, 255, 255}));
    CHECK(decode(png_file(1, 2, {1, 3}, {.color_type = PNG_COLOR_TYPE_PALETTE})).pixels == Bytes{3, 4, 5, 9, 10, 11});
    CHECK(decode(png_file(1, 3, {0xD8}, {.color_type = PNG_COLOR_TYPE_PALETTE, .bit_depth = 2})).pixels ==
          Bytes{9, 10, 11, 3, 4, 5, 6, 7, 8});
    CHECK(decode(png_file(1, 2, {1, 2, 3, 0, 4, 5, 6, 255}, {.color_type = PNG_COLOR_TYPE_RGB_ALPHA})).pixels ==
          Bytes{1, 2, 3, 4, 5, 6});
    CHECK(decode(png_file(1, 2, {7, 0, 8, 9}, {.color_type = PNG_COLOR_TYPE_GRAY_ALPHA})).pixels == grey({7, 8}));
    CHECK(decode(png_file(1, 1, {1, 255, 2, 0, 3, 128}, {.bit_depth = 16})).pixels == Bytes{1, 2, 3});
}

TEST_CASE("png: what is not whole is refused") {
    const std::string whole = png_file(5, 7, gradient(5, 7, 3));
    CHECK(error_of(whole) == "accepted");
    CHECK(error_of(whole + "more") == "accepted");
    for (std::size_t size = 0; size < whole.size(); ++size) {
        CHECK_MESSAGE(refused_for(whole.substr(0, size), size < 8 ? "first bytes" : "an end in its middle"), size);
    }
    for (std::size_t byte = 0; byte < whole.size(); ++byte) {
        std::string corrupt = whole;
        corrupt[byte] ^= 16;
        CHECK_MESSAGE(error_of(corrupt) != "accepted", byte);
    }
}

TEST_CASE("png: what stands beside the image is skipped, but not what breaks its checksum") {
    const std::string file = png_file(5, 7, gradient(5, 7, 3));
    for (const char* name : {"tEXt", "iCCP", "gAMA", "abCd"}) {
        std::string more = with_png_chunk(file, name);
        CHECK(error_of(more) == "accepted");
        more[45] ^= 1;
        CHECK(refused_for(more, "CRC error"));
    }
    CHECK(refused_for(with_png_chunk(file, "ABCD"), "unhandled critical chunk"));
}

TEST_CASE("png: extents that the file cannot have are refused before anything is allocated") {
    const std::string file = png_file(5, 7, gradient(5, 7, 3));
    CHECK(with_png_extents(file, 5, 7) == file);
    CHECK(refused_for(with_png_extents(file, 0, 7), "Invalid IHDR data"));
    CHECK(refused_for(with_png_extents(file, 5, 0), "Invalid IHDR data"));
    CHECK(refused_for(with_png_extents(file, 0xFFFFFFFF, 7), "PNG: got "));
    CHECK(
        refused_for(with_png_extents(file, 16385, 7), "height x width: got 16385 x 7, expected at most 16384 a side"));
    CHECK(
        refused_for(with_png_extents(file, 5, 16385), "height x width: got 5 x 16385, expected at most 16384 a side"));
    CHECK(refused_for(with_png_extents(file, 16384, 16384), "pixels, what the file can hold"));
    CHECK(refused_for(with_png_extents(file, 6, 7), "PNG: got Not enough"));
    CHECK(refused_for(with_png_extents(file, 4, 7), "PNG: got "));
}

TEST_CASE("jpeg: grey and colour, in one scan or several") {
    const Bytes rgb = gradient(20, 17, 3);
    const auto image = decode(jpeg_file(20, 17, 3, JCS_RGB, rgb));
    CHECK(image.height == 20);
    CHECK(image.width == 17);
    CHECK(distance(image, rgb) <= 8);
    const Bytes values = gradient(20, 17, 1);
    CHECK(distance(decode(jpeg_file(20, 17, 1, JCS_GRAYSCALE, values)), grey(values)) <= 3);
    CHECK(distance(decode(jpeg_file(20, 17, 1, JCS_GRAYSCALE, values, {{1, {0}, 0, 0, 0, 0}, {1, {0}, 1, 63, 0, 0}})),
                   grey(values)) <= 3);
}

TEST_CASE("jpeg: what is not whole is refused") {
    const std::string whole = jpeg_file(20, 17, 3, JCS_RGB, gradient(20, 17, 3));
    CHECK(error_of(whole) == "accepted");
    CHECK(error_of(whole + "more") == "accepted");
    for (std::size_t size = 0; size < whole.size(); ++size) {
        CHECK_MESSAGE(refused_for(whole.substr(0, size), size < 2 ? "first bytes" : "JPEG: got "), size);
    }
    CHECK(refused_for(whole.substr(0, whole.size() - 2) + std::string(64, '\0'), "JPEG: got "));  // no end marker
    std::string corrupt = whole;  // a marker in the middle of the image's data
    put(corrupt, whole.size() - 40, 0xFFD9, 2);
    CHECK(refused_for(corrupt, "JPEG: got "));
    for (std::size_t byte = 0; byte < whole.size(); ++byte) {  // not every error shows, but none does harm
        corrupt = whole;
        corrupt[byte] ^= 16;
        CHECK(error_of(corrupt) != "");
    }
}

TEST_CASE("jpeg: extents, colours and scans that are too much are refused") {
    const std::string file = jpeg_file(20, 17, 3, JCS_RGB, gradient(20, 17, 3));
    CHECK(with_jpeg_extents(file, 20, 17) == file);
    CHECK(refused_for(with_jpeg_extents(file, 0, 17), "JPEG: got "));
    CHECK(refused_for(with_jpeg_extents(file, 20, 0), "JPEG: got "));
    CHECK(refused_for(with_jpeg_extents(file, 65535, 17), "JPEG: got "));
    CHECK(refused_for(with_jpeg_extents(file, 16385, 17), "at most 16384 a side"));
    CHECK(refused_for(with_jpeg_extents(file, 16384, 16384), "pixels, what the file can hold"));
    CHECK(refused_for(with_jpeg_extents(file, 36, 17), "JPEG: got "));
    CHECK(refused_for(jpeg_file(4, 4, 4, JCS_CMYK, gradient(4, 4, 4)), "Unsupported color conversion"));
    CHECK(refused_for(jpeg_file(20, 17, 1, JCS_GRAYSCALE, gradient(20, 17, 1), tiny_scans()), "more than 100 scans"));
}

TEST_CASE("files that are neither are refused") {
    CHECK(refused_for("", "first bytes"));
    CHECK(refused_for("GIF89a", "first bytes"));
    CHECK(error_of("\xff\xd8") != "accepted");
}
