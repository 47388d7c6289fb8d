// Decompression of gzip files (RFC 1952). Needs zlib.
#pragma once

#include "sd/core/error.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <zlib.h>

SD_NAMESPACE_BEGIN

/// Decompresses the bytes of a gzip file of one member piece by piece: never more than is asked for.
class GzipReader {
public:
    /// `source` names the file in errors. The bytes must outlive the reader.
    GzipReader(std::span<const std::byte> bytes, std::string source) : rest_(bytes), source_(std::move(source)) {
        constexpr int gzip_alone = 16;  // added to the window's size, it tells zlib to expect nothing else
        if (inflateInit2(&stream_, gzip_alone + MAX_WBITS) != Z_OK) throw std::bad_alloc();
    }
    GzipReader(const GzipReader&) = delete;
    GzipReader& operator=(const GzipReader&) = delete;
    ~GzipReader() { inflateEnd(&stream_); }

    /// Fills `out` with the next bytes. Throws std::runtime_error if the file is corrupt or holds fewer.
    void read(std::span<std::byte> out) {
        const std::size_t asked = out.size();
        while (!out.empty()) {
            const std::size_t count = inflate_some(out);
            out = out.subspan(count);
            if (ended_ && !out.empty()) {
                refuse_file(source_, "decompressed bytes", text("an end after ", asked - out.size()),
                            text(asked, " at this place"));
            }
        }
    }

    /// Throws std::runtime_error if there is more to decompress, a checksum is wrong, or anything follows.
    void expect_end() {
        std::byte beyond{};
        while (!ended_) {
            if (inflate_some({&beyond, 1}) != 0) refuse_file(source_, "decompressed bytes", "more", "an end");
        }
        if (!rest_.empty()) refuse_file(source_, "bytes after the compressed ones", rest_.size(), 0);
    }

private:
    /// Decompresses into the first bytes of `out` and returns how many: some, or none at the end of the input's or the
    /// file's member.
    std::size_t inflate_some(std::span<std::byte> out) {
        // zlib counts in unsigned int, and its input is not const unless a macro says so before its header is read.
        constexpr std::size_t most = std::numeric_limits<uInt>::max();
        const std::size_t given = std::min(rest_.size(), most);
        const std::size_t room = std::min(out.size(), most);
        stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(rest_.data()));
        stream_.avail_in = static_cast<uInt>(given);
        stream_.next_out = reinterpret_cast<Bytef*>(out.data());
        stream_.avail_out = static_cast<uInt>(room);
        const int status = inflate(&stream_, Z_NO_FLUSH);
        rest_ = rest_.subspan(given - stream_.avail_in);
        if (status == Z_MEM_ERROR) throw std::bad_alloc();
        if (status == Z_BUF_ERROR) refuse_file(source_, "compressed bytes", "an end in their middle", "all of them");
        if (status != Z_OK && status != Z_STREAM_END) {
            refuse_file(source_, "compressed bytes", stream_.msg != nullptr ? stream_.msg : "an error", "gzip");
        }
        ended_ = status == Z_STREAM_END;
        return room - stream_.avail_out;
    }

    std::span<const std::byte> rest_;
    std::string source_;
    ::z_stream stream_{};
    bool ended_ = false;
};

SD_NAMESPACE_END
