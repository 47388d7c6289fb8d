// PNG and JPEG files, decoded. Needs libpng and libjpeg (or libjpeg-turbo).
//
// A file may come from anywhere: whatever is not whole is refused, and nothing is allocated that the size of the file
// does not bear out. Both libraries leave their errors by longjmp, which skips destructors; so the functions that call
// setjmp hold nothing but plain values, and all memory belongs to objects outside of them.
#pragma once

#include "sd/core/shape.hpp"
#include "sd/io/deflate.hpp"

#include <array>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <jpeglib.h>
#include <jerror.h>  // after jpeglib.h, which decides how its messages are numbered
#include <new>
#include <png.h>
#include <span>
#include <string>
#include <string_view>
#include <vector>

SD_NAMESPACE_BEGIN

/// An image of three channels: red, green, blue.
struct RgbImage {
    Index height = 0;                  ///< 1 or more
    Index width = 0;                   ///< 1 or more
    std::vector<std::uint8_t> pixels;  ///< (height, width, 3)
};

/// Files of more pixels along a side are refused.
inline constexpr Index largest_image_extent = 16384;

namespace detail {

/// The memory of an image, whose header states its extents. `most` is how many pixels the file can hold.
inline RgbImage make_image(const std::string& source, Index height, Index width, Index most) {
    if (height > largest_image_extent || width > largest_image_extent) {
        refuse_file(source, "height x width", text(height, " x ", width),
                    text("at most ", largest_image_extent, " a side"));
    }
    if (height * width > most) {
        refuse_file(source, "height x width", text(height, " x ", width),
                    text("at most ", most, " pixels, what the file can hold"));
    }
    return {height, width, std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * 3))};
}

/// One PNG file. After a function returned false, message() tells why, and only the destructor may be called.
class PngReader {
public:
    explicit PngReader(std::span<const std::byte> bytes) : rest_(bytes) {
        png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
        if (png_ != nullptr) info_ = png_create_info_struct(png_);
        if (info_ == nullptr) {
            png_destroy_read_struct(&png_, nullptr, nullptr);
            throw std::bad_alloc();
        }
    }
    PngReader(const PngReader&) = delete;
    PngReader& operator=(const PngReader&) = delete;
    ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

    [[nodiscard]] const char* message() const { return message_.data(); }
    [[nodiscard]] Index height() const { return static_cast<Index>(png_get_image_height(png_, info_)); }
    [[nodiscard]] Index width() const { return static_cast<Index>(png_get_image_width(png_, info_)); }
    [[nodiscard]] Index bits_per_pixel() const {
        return Index{png_get_bit_depth(png_, info_)} * png_get_channels(png_, info_);
    }

    [[nodiscard]] bool read_header() {
        if (setjmp(png_jmpbuf(png_)) != 0) return false;
        png_set_read_fn(png_, this, on_read);
        // What stands beside the image (texts, colour profiles, transparency) is skipped; the image must be faultless.
        png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
        png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, reinterpret_cast<::png_const_bytep>("tRNS"), 1);
        png_set_benign_errors(png_, 0);
        png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
        png_read_info(png_, info_);
        return true;
    }

    [[nodiscard]] bool read_pixels(std::uint8_t* pixels) {
        if (setjmp(png_jmpbuf(png_)) != 0) return false;
        const bool has_palette = png_get_color_type(png_, info_) == PNG_COLOR_TYPE_PALETTE;
        if (has_palette) {
            png_set_packing(png_);  // an index per byte
        } else {
            png_set_expand(png_);  // grey of fewer than 8 bits
            png_set_strip_16(png_);
            png_set_gray_to_rgb(png_);
            png_set_strip_alpha(png_);
        }
        const int passes = png_set_interlace_handling(png_);
        png_read_update_info(png_, info_);
        const std::size_t width = png_get_image_width(png_, info_);
        if (png_get_rowbytes(png_, info_) != (has_palette ? 1 : 3) * width) png_error(png_, "another layout than RGB");
        const std::size_t rows = png_get_image_height(png_, info_);
        for (int pass = 0; pass < passes; ++pass) {
            for (std::size_t row = 0; row < rows; ++row) png_read_row(png_, pixels + 3 * row * width, nullptr);
        }
        for (std::size_t row = 0; has_palette && row < rows; ++row) look_up_colors(pixels + 3 * row * width, width);
        png_read_end(png_, nullptr);
        return true;
    }

private:
    /// Makes the indices in the first third of a row its colours. libpng would make colours up that the palette lacks.
    void look_up_colors(std::uint8_t* row, std::size_t width) {
        ::png_colorp colors = nullptr;
        int count = 0;
        png_get_PLTE(png_, info_, &colors, &count);
        for (std::size_t w = width; w-- > 0;) {
            if (row[w] >= count) png_error(png_, "a pixel whose colour the palette lacks");
            const ::png_color color = colors[row[w]];
            row[3 * w] = color.red;
            row[3 * w + 1] = color.green;
            row[3 * w + 2] = color.blue;
        }
    }

    [[noreturn]] static void on_error(::png_structp png, ::png_const_charp message) {
        auto& reader = *static_cast<PngReader*>(png_get_error_ptr(png));
        std::strncpy(reader.message_.data(), message, reader.message_.size() - 1);
        png_longjmp(png, 1);
    }
    static void on_warning(::png_structp, ::png_const_charp) {}
    static void on_read(::png_structp png, ::png_bytep out, std::size_t count) {
        auto& reader = *static_cast<PngReader*>(png_get_io_ptr(png));
        if (count > reader.rest_.size()) png_error(png, "an end in its middle");
        std::memcpy(out, reader.rest_.data(), count);
        reader.rest_ = reader.rest_.subspan(count);
    }

    std::span<const std::byte> rest_;
    std::array<char, 200> message_{};
    ::png_structp png_ = nullptr;
    ::png_infop info_ = nullptr;
};

/// Whether every pixel is as the file says although libjpeg gave this warning.
inline bool keeps_pixels(int warning) {
    switch (warning) {
        case JWRN_ADOBE_XFORM:      // an unknown transform in Adobe's marker: taken for YCbCr or YCCK
        case JWRN_BOGUS_ICC:        // colour profiles are not followed
        case JWRN_EXTRANEOUS_DATA:  // bytes before a marker that no part of the image needs
        case JWRN_JFIF_MAJOR:       // a version of JFIF that is not 1
        case JWRN_NOT_SEQUENTIAL:   // parameters of a scan that a sequential image has no use for
        case JWRN_TOO_MUCH_DATA:    // of writing
            return true;
        // Made up: all after an early end (JWRN_HIT_MARKER, JWRN_JPEG_EOF), after a wrong code (JWRN_HUFF_BAD_CODE,
        // JWRN_ARITH_BAD_CODE) or a lost restart marker (JWRN_MUST_RESYNC), and the bits of coefficients that no scan
        // brought (JWRN_BOGUS_PROGRESSION).
        default:
            return false;
    }
}

/// Pixels of four inks become red, green and blue. Inks are stored inverted, 255 for none, as Adobe does. With
/// k the value of black, c of another ink, the colour is k - round((255 - c) k / 255), as in Pillow.
inline void cmyk_to_rgb(const std::uint8_t* cmyk, std::size_t pixels, std::uint8_t* rgb) {
    for (std::size_t i = 0; i < pixels; ++i, cmyk += 4) {
        const unsigned black = cmyk[3];
        for (std::size_t c = 0; c < 3; ++c) {
            const unsigned product = (255U - cmyk[c]) * black + 128;
            *rgb++ = static_cast<std::uint8_t>(black - (((product >> 8) + product) >> 8));
        }
    }
}

/// One JPEG file, likewise.
class JpegReader {
public:
    explicit JpegReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;
    ~JpegReader() { jpeg_destroy_decompress(&jpeg_); }

    [[nodiscard]] const char* message() const { return message_.data(); }
    [[nodiscard]] Index height() const { return static_cast<Index>(jpeg_.image_height); }
    [[nodiscard]] Index width() const { return static_cast<Index>(jpeg_.image_width); }
    [[nodiscard]] int channels() const { return jpeg_.num_components; }

    [[nodiscard]] bool read_header() {
        jpeg_.err = jpeg_std_error(&errors_);
        jpeg_.client_data = this;
        errors_.error_exit = on_error;
        errors_.emit_message = on_message;
        if (setjmp(jump_) != 0) return false;
        jpeg_create_decompress(&jpeg_);
        progress_.progress_monitor = on_progress;
        jpeg_.progress = &progress_;
        jpeg_mem_src(&jpeg_, reinterpret_cast<const unsigned char*>(bytes_.data()),
                     static_cast<unsigned long>(bytes_.size()));
        jpeg_read_header(&jpeg_, TRUE);
        return true;
    }

    /// `inks` is room for a row of an image of 4 channels.
    [[nodiscard]] bool read_pixels(std::uint8_t* pixels, std::uint8_t* inks) {
        if (setjmp(jump_) != 0) return false;
        const bool is_cmyk = channels() == 4;
        jpeg_.out_color_space = is_cmyk ? JCS_CMYK : JCS_RGB;
        jpeg_start_decompress(&jpeg_);
        while (jpeg_.output_scanline < jpeg_.output_height) {
            std::uint8_t* rgb = pixels + std::size_t{3} * jpeg_.output_width * jpeg_.output_scanline;
            ::JSAMPROW row = is_cmyk ? inks : rgb;
            jpeg_read_scanlines(&jpeg_, &row, 1);
            if (is_cmyk) cmyk_to_rgb(inks, jpeg_.output_width, rgb);
        }
        jpeg_finish_decompress(&jpeg_);
        return true;
    }

private:
    [[noreturn]] static void on_error(::j_common_ptr jpeg) {
        auto& reader = *static_cast<JpegReader*>(jpeg->client_data);
        jpeg->err->format_message(jpeg, reader.message_.data());
        std::longjmp(reader.jump_, 1);
    }
    /// Level -1 is a warning.
    static void on_message(::j_common_ptr jpeg, int level) {
        if (level < 0 && !keeps_pixels(jpeg->err->msg_code)) on_error(jpeg);
    }
    /// Every scan of a progressive image goes over all of it, and takes no more than a few bytes of the file.
    static void on_progress(::j_common_ptr jpeg) {
        constexpr int most_scans = 100;
        auto& reader = *static_cast<JpegReader*>(jpeg->client_data);
        if (reader.jpeg_.input_scan_number <= most_scans) return;
        std::strncpy(reader.message_.data(), "more than 100 scans", reader.message_.size() - 1);
        std::longjmp(reader.jump_, 1);
    }

    std::span<const std::byte> bytes_;
    std::array<char, JMSG_LENGTH_MAX> message_{};
    ::jpeg_error_mgr errors_{};
    ::jpeg_progress_mgr progress_{};
    ::jpeg_decompress_struct jpeg_{};
    std::jmp_buf jump_{};
};

/// The kind of file that these bytes begin, for messages.
inline const char* kind_of_file(std::span<const std::byte> bytes) {
    struct Start {
        std::string_view bytes;
        const char* kind;
    };
    static constexpr std::array<Start, 8> starts = {{{"GIF8", "those of a GIF file"},
                                                     {"BM", "those of a BMP file"},
                                                     {"RIFF", "those of a WebP file"},
                                                     {"II*", "those of a TIFF file"},
                                                     {"MM", "those of a TIFF file"},
                                                     {"P5", "those of a PGM file"},
                                                     {"P6", "those of a PPM file"},
                                                     {"version https://git-lfs", "those of a Git LFS pointer"}}};
    if (bytes.empty()) return "none, the file is empty";
    const std::string_view file(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    for (const Start& start : starts) {
        if (file.starts_with(start.bytes)) return start.kind;
    }
    return "others";
}

}  // namespace detail

/// The image in the bytes of a PNG file, as Pillow's convert("RGB") makes it; `source` names it in errors. Grey and
/// palettes become RGB, of 16 bits per sample the high 8 are taken, transparency is dropped, colours are not corrected.
/// Grey of 16 bits alone differs from Pillow, which makes every value above 255 white.
/// Throws std::runtime_error for bytes that are not a whole and faultless PNG image, or one of more than
/// largest_image_extent a side. What follows the image's end is not looked at.
[[nodiscard]] inline RgbImage decode_png(std::span<const std::byte> bytes, const std::string& source) {
    detail::PngReader reader(bytes);
    if (!reader.read_header()) refuse_file(source, "PNG", reader.message(), "a whole image");
    const Index most = static_cast<Index>(bytes.size()) * detail::largest_deflate_ratio * 8 / reader.bits_per_pixel();
    RgbImage image = detail::make_image(source, reader.height(), reader.width(), most);
    if (!reader.read_pixels(image.pixels.data())) refuse_file(source, "PNG", reader.message(), "a whole image");
    return image;
}

/// The image in the bytes of a JPEG file, as Pillow's convert("RGB") makes it; `source` names it in errors. Grey, CMYK
/// and YCCK become RGB; inks are taken for inverted ones, with or without Adobe's marker. Orientation tags and colour
/// profiles are not followed.
/// Throws std::runtime_error for bytes that are not a whole JPEG image of 8 bits with 1, 3 or 4 channels, for corrupt
/// data that the library could only guess, for more than 100 scans, more than 1024 pixels a byte, or more than
/// largest_image_extent a side. What follows the image's end is not looked at.
[[nodiscard]] inline RgbImage decode_jpeg(std::span<const std::byte> bytes, const std::string& source) {
    // A Huffman code takes at least 1 bit for a block of 8 x 8 samples. One component has all columns and one, maybe
    // another, all rows, and sampling factors go up to 4: so there are at least 2 blocks for 8 x 32 pixels.
    constexpr Index most_pixels_per_byte = 1024;
    detail::JpegReader reader(bytes);
    if (!reader.read_header()) refuse_file(source, "JPEG", reader.message(), "a whole image");
    if (reader.channels() != 1 && reader.channels() != 3 && reader.channels() != 4) {
        refuse_file(source, "JPEG: channels", reader.channels(), "1 (grey), 3 (colour) or 4 (CMYK)");
    }
    const Index most = static_cast<Index>(bytes.size()) * most_pixels_per_byte;
    RgbImage image = detail::make_image(source, reader.height(), reader.width(), most);
    std::vector<std::uint8_t> inks(reader.channels() == 4 ? static_cast<std::size_t>(4 * image.width) : 0);
    if (!reader.read_pixels(image.pixels.data(), inks.data())) {
        refuse_file(source, "JPEG", reader.message(), "a whole image");
    }
    return image;
}

/// The image in the bytes of a PNG or JPEG file, whichever its first bytes tell; `source` names it in errors.
/// Throws std::runtime_error for other files, or as decode_png or decode_jpeg does.
[[nodiscard]] inline RgbImage decode_image(std::span<const std::byte> bytes, const std::string& source) {
    const std::string_view file(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (file.starts_with("\x89PNG\r\n\x1a\n")) return decode_png(bytes, source);
    if (file.starts_with("\xff\xd8")) return decode_jpeg(bytes, source);
    refuse_file(source, "first bytes", detail::kind_of_file(bytes), "those of a PNG or JPEG file");
}

SD_NAMESPACE_END
