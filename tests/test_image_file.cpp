// PNG and JPEG: images of all kinds are decoded, and nothing that is not whole gets in.
#include "image_files.hpp"

#include "sd/io/file.hpp"
#include "sd/io/image_file.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>
#include <zlib.h>

namespace test_image_file {

using sd::Index;
using sd_test::jpeg_file;
using sd_test::JpegKind;
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

// The offset behind the nth marker of this kind.
std::size_t behind_marker(const std::string& file, char marker, int n = 0) {
    std::size_t at = 0;
    for (; n >= 0; --n) at = file.find(std::string("\xff") + marker, at) + 2;
    return at;
}

// A file with other bytes at this offset.
std::string with_bytes(std::string file, std::size_t at, const std::string& bytes) {
    return file.replace(at, bytes.size(), bytes);
}

// The pixels in a PPM file.
sd::RgbImage read_ppm(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    int most = 0;
    sd::RgbImage image;
    file >> magic >> image.width >> image.height >> most;
    file.get();
    image.pixels.resize(static_cast<std::size_t>(3 * image.width * image.height));
    file.read(reinterpret_cast<char*>(image.pixels.data()), static_cast<std::streamsize>(image.pixels.size()));
    REQUIRE(file.good());
    return image;
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
    CHECK(distance(decode(jpeg_file(20, 17, 1, JCS_GRAYSCALE, values,
                                    {.scans = {{1, {0}, 0, 0, 0, 0}, {1, {0}, 1, 63, 0, 0}}})),
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
    CHECK(refused_for(jpeg_file(4, 4, 2, JCS_UNKNOWN, gradient(4, 4, 2)), "JPEG: channels: got 2, expected 1 (grey)"));
    CHECK(refused_for(with_bytes(file, behind_marker(file, '\xc0') + 2, "\x0c"), "data precision 12"));
    CHECK(refused_for(jpeg_file(20, 17, 1, JCS_GRAYSCALE, gradient(20, 17, 1), {.scans = tiny_scans()}),
                      "more than 100 scans"));
}

TEST_CASE("pixels are Pillow's, to the bit") {
#if defined(LIBJPEG_TURBO_VERSION_NUMBER)
    const int jpeg_tolerance = 0;
#else
    const int jpeg_tolerance = 8;  // other libraries upsample colours in another way
#endif
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(SD_TEST_DATA_DIR "/images")) {
        std::filesystem::path path = entry.path();
        if (path.extension() == ".ppm") continue;
        sd::RgbImage image;
        CHECK_NOTHROW_MESSAGE(image = sd::decode_image(sd::read_file(path), path.string()), path);
        const int tolerance = path.extension() == ".jpg" ? jpeg_tolerance : 0;
        const auto expected = read_ppm(path.replace_extension(".ppm"));
        CHECK_MESSAGE(image.width == expected.width, path);
        CHECK_MESSAGE(distance(image, expected.pixels) <= tolerance, path);
        ++files;
    }
    CHECK(files == 39);
}

TEST_CASE("png: grey of 16 bits keeps its high byte") {
    CHECK(decode(png_file(1, 2, {1, 255, 200, 0}, {.color_type = PNG_COLOR_TYPE_GRAY, .bit_depth = 16})).pixels ==
          grey({1, 200}));
}

TEST_CASE("png: colours that the palette lacks are refused") {
    const std::string file = png_file(1, 4, {0x1B}, {.color_type = PNG_COLOR_TYPE_PALETTE, .bit_depth = 2});
    const std::string chunk = "PLTE" + file.substr(file.find("PLTE") + 4, 9);  // 3 of its 4 colours
    std::string shorter = file.substr(0, 33) + std::string("\0\0\0\x09", 4) + chunk + "sum?";
    put(shorter, shorter.size() - 4, checksum(chunk), 4);
    shorter += file.substr(file.find("IDAT") - 4);
    CHECK(refused_for(shorter, "PNG: got a pixel whose colour the palette lacks"));
    CHECK(error_of(file) == "accepted");
}

TEST_CASE("jpeg: arithmetic codes hold the same image") {
    const JpegKind arithmetic{.arithmetic = true};
    const std::string file = jpeg_file(20, 17, 3, JCS_RGB, gradient(20, 17, 3), arithmetic);
    CHECK(file.find("\xff\xc9") != std::string::npos);
    CHECK(decode(file).pixels == decode(jpeg_file(20, 17, 3, JCS_RGB, gradient(20, 17, 3))).pixels);
}

// The warnings that keep every pixel are among the files above, warns_*.
TEST_CASE("jpeg: warnings of pixels that the library made up are refused") {
    const Bytes pixels = gradient(40, 40, 3);
    const std::string file = jpeg_file(40, 40, 3, JCS_RGB, pixels);
    const std::size_t data = behind_marker(file, '\xda') + 12;
    const std::string end = "\xff\xd9";
    CHECK(refused_for(file.substr(0, file.size() - 2), "got Premature end of JPEG file"));
    CHECK(refused_for(file.substr(0, data + 40) + end, "got Corrupt JPEG data: premature end of data segment"));
    CHECK(refused_for(with_bytes(file, data + 20, std::string("\xff\0\xff\0\xff\0\xff\0", 8)), "bad Huffman code"));
    const std::string restarts = jpeg_file(40, 40, 3, JCS_RGB, pixels, {.restart_rows = 1});
    CHECK(error_of(restarts) == "accepted");
    CHECK(refused_for(with_bytes(restarts, behind_marker(restarts, '\xd1') - 1, "\xd4"), "found marker 0xd4 instead"));
    const std::string progressive =
        jpeg_file(20, 17, 1, JCS_GRAYSCALE, gradient(20, 17, 1),
                  {.scans = {{1, {0}, 0, 0, 0, 1}, {1, {0}, 0, 0, 1, 0}, {1, {0}, 1, 63, 0, 0}}});
    CHECK(error_of(progressive) == "accepted");
    // The second scan brings bit 0 of what has come without bit 1.
    CHECK(refused_for(with_bytes(progressive, behind_marker(progressive, '\xda') + 7, "\x02"),
                      "Inconsistent progression sequence"));
    const std::string arithmetic = jpeg_file(40, 40, 3, JCS_RGB, pixels, {.arithmetic = true});
    CHECK(
        refused_for(with_bytes(arithmetic, behind_marker(arithmetic, '\xda') + 42, "\1\1\1\1"), "bad arithmetic code"));
}

TEST_CASE("files that are neither are refused by name") {
    CHECK(refused_for("", "first bytes: got none, the file is empty"));
    CHECK(refused_for("GIF89a", "first bytes: got those of a GIF file, expected those of a PNG or JPEG file"));
    CHECK(refused_for("RIFF....WEBPVP8 ", "first bytes: got those of a WebP file"));
    CHECK(refused_for("<html>", "first bytes: got others"));
    CHECK(error_of("\xff\xd8") != "accepted");
}

}  // namespace test_image_file
