// Named tensors in a file, in the safetensors format (https://github.com/huggingface/safetensors). Needs nlohmann/json.
//
//     | N: 8 bytes, little-endian | header: N bytes of JSON, padded with spaces | data of the tensors, no gaps |
//
// with offsets counted from the first byte after the header. A file may come from anywhere: everything in it is checked
// before any of it is used, and nothing is allocated that the size of the file does not bear out.
#pragma once

#include "sd/core/tensor.hpp"
#include "sd/io/file.hpp"
#include "sd/io/safetensors_header.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

namespace detail {

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
    static constexpr Dtype value = Dtype::f32;
};
template <>
struct DtypeOf<double> {
    static constexpr Dtype value = Dtype::f64;
};
template <>
struct DtypeOf<std::int64_t> {
    static constexpr Dtype value = Dtype::i64;
};
template <>
struct DtypeOf<std::int32_t> {
    static constexpr Dtype value = Dtype::i32;
};
template <>
struct DtypeOf<std::uint8_t> {
    static constexpr Dtype value = Dtype::u8;
};

}  // namespace detail

/// A tensor as it is in a file: of any type and rank, row-major.
struct SafeTensorEntry {
    Dtype dtype = Dtype::f32;      ///< type of the elements
    std::vector<Index> shape;      ///< outermost extent first; empty for a scalar
    std::vector<std::byte> bytes;  ///< the elements, little-endian
};

/// Named tensors and metadata, in the order in which they were added or are in the header of a file.
class SafeTensors {
public:
    SafeTensors() = default;

    /// `source` names the file in errors.
    explicit SafeTensors(std::string source) : source_(std::move(source)) {}

    /// What errors call the file.
    [[nodiscard]] const std::string& source() const { return source_; }

    /// The number of tensors.
    [[nodiscard]] Index size() const { return static_cast<Index>(entries_.size()); }
    /// In the order in which they were added.
    [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
    /// Whether there is a tensor of the name.
    [[nodiscard]] bool contains(const std::string& name) const { return index_.contains(name); }

    /// Texts that go with the tensors, by key.
    [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
    /// Adds or replaces a text.
    void set_metadata(const std::string& key, const std::string& value) { metadata_[key] = value; }

    /// The tensor as it is in the file. Throws std::runtime_error if there is none of the name.
    [[nodiscard]] const SafeTensorEntry& entry(const std::string& name) const {
        const auto found = index_.find(name);
        if (found == index_.end()) {
            refuse_file(source_, text("tensor ", detail::in_quotes(name)), "none", text("one of ", size(), " tensors"));
        }
        return entries_[found->second];
    }

    /// A copy of the tensor. T: float, double, std::int64_t, std::int32_t or std::uint8_t.
    /// Throws std::runtime_error if there is none of the name, it is of another type, or has more than four dimensions.
    template <class T>
    [[nodiscard]] Tensor<T> tensor(const std::string& name) const {
        const SafeTensorEntry& found = entry(name);
        if (found.dtype != detail::DtypeOf<T>::value) {
            refuse_file(source_, text("tensor ", detail::in_quotes(name), ": dtype"), dtype_name(found.dtype),
                        dtype_name(detail::DtypeOf<T>::value));
        }
        if (found.shape.size() > static_cast<std::size_t>(Shape::max_rank)) {
            refuse_file(source_, text("tensor ", detail::in_quotes(name), ": shape"), detail::shape_text(found.shape),
                        text("at most ", Shape::max_rank, " dimensions"));
        }
        auto result = Tensor<T>::empty(Shape(found.shape.begin(), found.shape.end()));
        if (!found.bytes.empty()) std::memcpy(result.data(), found.bytes.data(), found.bytes.size());
        return result;
    }

    /// Adds a copy of a tensor. Throws std::invalid_argument for a name that is taken or reserved, or an undefined
    /// tensor.
    template <class T>
    void add(const std::string& name, const Tensor<T>& tensor) {
        if (!tensor)
            refuse("SafeTensors::add", text("tensor ", detail::in_quotes(name)), "an undefined one", "a tensor");
        SafeTensorEntry added{detail::DtypeOf<T>::value, {tensor.shape().begin(), tensor.shape().end()}, {}};
        added.bytes.resize(static_cast<std::size_t>(tensor.size()) * sizeof(T));
        if (!added.bytes.empty()) std::memcpy(added.bytes.data(), tensor.data(), added.bytes.size());
        add(name, std::move(added));
    }

    /// Adds a tensor of any type and rank. Throws std::invalid_argument for a name that is taken or reserved, or bytes
    /// that are not as many as dtype and shape ask for.
    void add(const std::string& name, SafeTensorEntry added) {
        if (name == detail::metadata_key) {
            refuse("SafeTensors::add", "name of a tensor", detail::in_quotes(name), "another: this one is reserved");
        }
        const std::optional<Index> bytes = detail::tensor_bytes(added.dtype, added.shape);
        if (!bytes || *bytes != static_cast<Index>(added.bytes.size())) {
            refuse("SafeTensors::add", text("bytes of tensor ", detail::in_quotes(name)), added.bytes.size(),
                   text(bytes ? text(*bytes) : "a size that fits memory", " for ", dtype_name(added.dtype),
                        " of shape ", detail::shape_text(added.shape)));
        }
        if (!index_.emplace(name, entries_.size()).second) {
            refuse("SafeTensors::add", "name of a tensor", detail::in_quotes(name), "one that is not taken");
        }
        names_.push_back(name);
        entries_.push_back(std::move(added));
    }

private:
    std::string source_ = "safetensors";
    std::vector<std::string> names_;
    std::vector<SafeTensorEntry> entries_;
    std::map<std::string, std::size_t> index_;
    std::map<std::string, std::string> metadata_;
};

namespace detail {

/// A text as JSON. Throws std::invalid_argument if it is not UTF-8.
inline std::string json_text(const std::string& value) {
    try {
        return nlohmann::json(value).dump();
    } catch (const nlohmann::json::exception&) {
        refuse("write_safetensors", "name or metadata", in_quotes(value), "UTF-8");
    }
}

/// The first bytes of a file: size of the header and header, padded with spaces to a multiple of 8.
inline std::string safetensors_header(const SafeTensors& file) {
    std::string header = "{";
    if (!file.metadata().empty()) {
        header += text('"', metadata_key, "\":{");
        bool is_first = true;
        for (const auto& [key, value] : file.metadata()) {
            header += text(is_first ? "" : ",", json_text(key), ':', json_text(value));
            is_first = false;
        }
        header += '}';
    }
    Index offset = 0;
    for (const std::string& name : file.names()) {
        const SafeTensorEntry& entry = file.entry(name);
        if (header.size() > 1) header += ',';
        header += json_text(name) + text(":{\"dtype\":\"", dtype_name(entry.dtype), "\",\"shape\":[");
        for (std::size_t i = 0; i < entry.shape.size(); ++i) header += text(i != 0 ? "," : "", entry.shape[i]);
        const Index end = offset + static_cast<Index>(entry.bytes.size());
        header += text("],\"data_offsets\":[", offset, ',', end, "]}");
        offset = end;
    }
    header += '}';
    header.resize((header.size() + 7) / 8 * 8, ' ');
    if (header.size() > largest_header) {
        refuse("write_safetensors", "bytes of the header", header.size(), text("at most ", largest_header));
    }
    const std::uint64_t size = header.size();
    std::string start(sizeof size, '\0');
    std::memcpy(start.data(), &size, sizeof size);
    return start + header;
}

}  // namespace detail

/// The tensors in the bytes of a file; `source` names it in errors.
/// Throws std::runtime_error, naming file and tensor, for bytes that are not a safetensors file through and through.
[[nodiscard]] inline SafeTensors parse_safetensors(std::span<const std::byte> bytes, const std::string& source) {
    std::uint64_t header_size = 0;
    if (bytes.size() < sizeof header_size) refuse_file(source, "bytes", bytes.size(), "at least 8");
    std::memcpy(&header_size, bytes.data(), sizeof header_size);
    bytes = bytes.subspan(sizeof header_size);
    if (header_size > detail::largest_header) {
        refuse_file(source, "bytes of the header", header_size, text("at most ", detail::largest_header));
    }
    if (header_size > bytes.size()) {
        refuse_file(source, "bytes of the header", header_size, text("at most ", bytes.size(), ", what the file has"));
    }
    const std::span<const std::byte> header_bytes = bytes.first(static_cast<std::size_t>(header_size));
    const std::span<const std::byte> data = bytes.subspan(static_cast<std::size_t>(header_size));
    std::string header(header_bytes.size(), '\0');
    std::transform(header_bytes.begin(), header_bytes.end(), header.begin(),
                   [](std::byte byte) { return static_cast<char>(byte); });
    // The parser would skip a byte order mark and stop at a zero byte, as at the end.
    if (!header.starts_with('{')) refuse_file(source, "header", "another first byte", "an object, { first");
    if (const std::size_t zero = header.find('\0'); zero != std::string::npos) {
        refuse_file(source, text("header: byte ", zero), "a zero byte", "JSON in UTF-8");
    }

    detail::HeaderReader reader(source);
    nlohmann::json::sax_parse(header, &reader);
    detail::check_layout(source, reader.tensors, static_cast<Index>(data.size()));

    SafeTensors file(source);
    for (const auto& [key, value] : reader.metadata) file.set_metadata(key, value);
    for (detail::HeaderTensor& tensor : reader.tensors) {
        const Index begin = (*tensor.offsets)[0];
        const Index end = (*tensor.offsets)[1];
        const auto part = data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
        file.add(tensor.name, SafeTensorEntry{*tensor.dtype, std::move(*tensor.shape), {part.begin(), part.end()}});
    }
    return file;
}

/// The tensors in a file. Throws std::runtime_error if it cannot be read, or as parse_safetensors does.
[[nodiscard]] inline SafeTensors read_safetensors(const std::filesystem::path& path) {
    return parse_safetensors(read_file(path), path.string());
}

/// Writes the tensors to a file, in their order, metadata by key: the same tensors always give the same bytes. The file
/// is replaced as a whole or not at all, see write_file_atomically().
/// Throws std::invalid_argument for names or metadata that are not UTF-8, std::runtime_error if writing fails.
inline void write_safetensors(const std::filesystem::path& path, const SafeTensors& file) {
    const std::string header = detail::safetensors_header(file);
    std::vector<std::span<const std::byte>> pieces{std::as_bytes(std::span(header))};
    for (const std::string& name : file.names()) pieces.emplace_back(file.entry(name).bytes);
    write_file_atomically(path, pieces);
}

SD_NAMESPACE_END
