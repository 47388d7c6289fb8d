// PNG and JPEG files, made by libpng and libjpeg.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <jpeglib.h>
#include <png.h>
#include <string>
#include <vector>

namespace sd_test {

/// What a PNG file is made of.
struct PngKind {
    int color_type = PNG_COLOR_TYPE_RGB;
    int bit_depth = 8;
    int interlace = PNG_INTERLACE_NONE;
};

/// A PNG file of these bytes, rows one after the other. A palette has the colours (3 i, 3 i + 1, 3 i + 2).
inline std::string png_file(std::uint32_t height, std::uint32_t width, std::vector<std::uint8_t> bytes,
                            const PngKind& kind = {}) {
    std::string file;
    ::png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
    ::png_infop info = png_create_info_struct(png);
    png_set_write_fn(
        png, &file,
        [](::png_structp writer, ::png_bytep data, std::size_t size) {
            static_cast<std::string*>(png_get_io_ptr(writer))->append(reinterpret_cast<const char*>(data), size);
        },
        nullptr);
    png_set_IHDR(png, info, width, height, kind.bit_depth, kind.color_type, kind.interlace,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    std::vector<::png_color> palette;
    if (kind.color_type == PNG_COLOR_TYPE_PALETTE) {
        for (int i = 0; i < 1 << kind.bit_depth; ++i) {
            const auto first = static_cast<::png_byte>(3 * i);
            palette.push_back({first, static_cast<::png_byte>(first + 1), static_cast<::png_byte>(first + 2)});
        }
        png_set_PLTE(png, info, palette.data(), static_cast<int>(palette.size()));
    }
    png_write_info(png, info);
    std::vector<::png_bytep> rows;
    for (std::size_t row = 0; row < height; ++row) rows.push_back(bytes.data() + row * (bytes.size() / height));
    png_write_image(png, rows.data());
    png_write_end(png, nullptr);
    png_destroy_write_struct(&png, &info);
    return file;
}

/// How a JPEG file is written.
struct JpegKind {
    std::vector<::jpeg_scan_info> scans = {};  ///< of a progressive image, if there are any
    bool arithmetic = false;                   ///< arithmetic codes, not Huffman's
    int restart_rows = 0;                      ///< rows of blocks between restart markers; 0: no markers
};

/// A JPEG file of these bytes (height, width, channels) in the colour space.
inline std::string jpeg_file(std::uint32_t height, std::uint32_t width, int channels, ::J_COLOR_SPACE space,
                             std::vector<std::uint8_t> bytes, const JpegKind& kind = {}) {
    ::jpeg_compress_struct jpeg{};
    ::jpeg_error_mgr errors{};
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    unsigned char* data = nullptr;
    unsigned long size = 0;
    jpeg_mem_dest(&jpeg, &data, &size);
    jpeg.image_height = height;
    jpeg.image_width = width;
    jpeg.input_components = channels;
    jpeg.in_color_space = space;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 100, TRUE);
    jpeg.arith_code = kind.arithmetic ? TRUE : FALSE;
    jpeg.restart_in_rows = kind.restart_rows;
    if (!kind.scans.empty()) {
        jpeg.scan_info = kind.scans.data();
        jpeg.num_scans = static_cast<int>(kind.scans.size());
    }
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        ::JSAMPROW row = bytes.data() + std::size_t{jpeg.next_scanline} * width * static_cast<std::size_t>(channels);
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    std::string file(reinterpret_cast<const char*>(data), size);
    jpeg_destroy_compress(&jpeg);
    std::free(data);
    return file;
}

}  // namespace sd_test
