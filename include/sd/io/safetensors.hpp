// Named tensors in a file, in the safetensors format (https://github.com/huggingface/safetensors). Needs nlohmann/json.
//
//     | N: 8 bytes, little-endian | header: N bytes of JSON, padded with spaces | data of the tensors, no gaps |
//
//     header: {"__metadata__": {"key": "text", ...},
//              "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [BEGIN, END]}, ...}
//
// with offsets counted from the first byte after the header. A file may come from anywhere: everything in it is checked
// before any of it is used, and nothing is allocated that the size of the file does not bear out.
#pragma once

#include "sd/core/tensor.hpp"
#include "sd/io/file.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

/// Types of element in a file. Those that Tensor can hold here are F32, F64, I64, I32 and U8; tensors of the others are
/// listed with their bytes.
enum class Dtype { boolean, u8, i8, f8_e5m2, f8_e4m3, i16, u16, f16, bf16, i32, u32, f32, f64, i64, u64 };

namespace detail {

struct DtypeRow {
    Dtype dtype;
    std::string_view name;
    Index bytes;
};

inline constexpr std::array<DtypeRow, 15> dtype_table{{{Dtype::boolean, "BOOL", 1},
                                                       {Dtype::u8, "U8", 1},
                                                       {Dtype::i8, "I8", 1},
                                                       {Dtype::f8_e5m2, "F8_E5M2", 1},
                                                       {Dtype::f8_e4m3, "F8_E4M3", 1},
                                                       {Dtype::i16, "I16", 2},
                                                       {Dtype::u16, "U16", 2},
                                                       {Dtype::f16, "F16", 2},
                                                       {Dtype::bf16, "BF16", 2},
                                                       {Dtype::i32, "I32", 4},
                                                       {Dtype::u32, "U32", 4},
                                                       {Dtype::f32, "F32", 4},
                                                       {Dtype::f64, "F64", 8},
                                                       {Dtype::i64, "I64", 8},
                                                       {Dtype::u64, "U64", 8}}};

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

inline constexpr std::string_view metadata_key = "__metadata__";
inline constexpr std::uint64_t largest_header = 100'000'000;  // the limit of the format's own reader

/// A string for a message: in quotes, escaped, not too long.
inline std::string in_quotes(const std::string& name) {
    constexpr std::size_t longest = 120;
    std::string result =
        nlohmann::json(name.substr(0, longest)).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    return name.size() > longest ? result + "..." : result;
}

inline std::string shape_text(const std::vector<Index>& shape) {
    std::string result = "(";
    for (std::size_t i = 0; i < shape.size() && i < 8; ++i) result += text(i != 0 ? ", " : "", shape[i]);
    return result + (shape.size() > 8 ? ", ...)" : ")");
}

}  // namespace detail

/// The name of a type in a file, such as "F32".
[[nodiscard]] constexpr std::string_view dtype_name(Dtype dtype) {
    return detail::dtype_table[static_cast<std::size_t>(dtype)].name;
}

/// The size of one element in bytes.
[[nodiscard]] constexpr Index dtype_bytes(Dtype dtype) {
    return detail::dtype_table[static_cast<std::size_t>(dtype)].bytes;
}

/// A tensor as it stands in a file: of any type and rank, row-major.
struct SafeTensorEntry {
    Dtype dtype = Dtype::f32;
    std::vector<Index> shape;      ///< outermost extent first; empty for a scalar
    std::vector<std::byte> bytes;  ///< the elements, little-endian
};

namespace detail {

/// The size in bytes of a tensor, or nothing if it is more than memory can hold. As in Shape, an extent of 0 does not hide an
/// overflow in the others.
inline std::optional<Index> tensor_bytes(Dtype dtype, const std::vector<Index>& shape) {
    Index capacity = 1;
    Index elements = 1;
    for (const Index extent : shape) {
        const Index factor = std::max<Index>(extent, 1);
        if (extent < 0 || capacity > std::numeric_limits<Index>::max() / 64 / factor) return std::nullopt;
        capacity *= factor;
        elements *= extent;
    }
    return elements * dtype_bytes(dtype);
}

}  // namespace detail

/// Named tensors and metadata, in the order in which they were added or stand in the header of a file.
class SafeTensors {
public:
    SafeTensors() = default;

    /// `source` names the file in errors.
    explicit SafeTensors(std::string source) : source_(std::move(source)) {}

    [[nodiscard]] Index size() const { return static_cast<Index>(entries_.size()); }
    [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
    [[nodiscard]] bool contains(const std::string& name) const { return index_.contains(name); }

    /// Texts that go with the tensors, by key.
    [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
    void set_metadata(const std::string& key, const std::string& value) { metadata_[key] = value; }

    /// The tensor as it stands in the file. Throws std::runtime_error if there is none of the name.
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

    /// Adds a copy of a tensor. Throws std::invalid_argument for a name that is taken or reserved, or an undefined tensor.
    template <class T>
    void add(const std::string& name, const Tensor<T>& tensor) {
        if (!tensor) refuse("SafeTensors::add", text("tensor ", detail::in_quotes(name)), "an undefined one", "a tensor");
        SafeTensorEntry added{detail::DtypeOf<T>::value, {tensor.shape().begin(), tensor.shape().end()}, {}};
        added.bytes.resize(static_cast<std::size_t>(tensor.size()) * sizeof(T));
        if (!added.bytes.empty()) std::memcpy(added.bytes.data(), tensor.data(), added.bytes.size());
        add(name, std::move(added));
    }

    /// Adds a tensor of any type and rank. Throws std::invalid_argument for a name that is taken or reserved, or bytes that
    /// are not as many as dtype and shape ask for.
    void add(const std::string& name, SafeTensorEntry added) {
        if (name == detail::metadata_key) {
            refuse("SafeTensors::add", "name of a tensor", detail::in_quotes(name), "another: this one is reserved");
        }
        const std::optional<Index> bytes = detail::tensor_bytes(added.dtype, added.shape);
        if (!bytes || *bytes != static_cast<Index>(added.bytes.size())) {
            refuse("SafeTensors::add", text("bytes of tensor ", detail::in_quotes(name)), added.bytes.size(),
                   text(bytes ? text(*bytes) : "a size that fits memory", " for ", dtype_name(added.dtype), " of shape ",
                        detail::shape_text(added.shape)));
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

/// One tensor of a header, not yet checked against the data.
struct HeaderTensor {
    std::string name;
    std::optional<Dtype> dtype;
    std::optional<std::vector<Index>> shape;
    std::optional<std::vector<Index>> offsets;
};

/// Follows the JSON of a header as it is parsed. Only what a header may hold is let in, value by value, so that the first
/// thing out of place ends the parse, be it a second key of the same name or a bracket too deep.
class HeaderReader {
public:
    explicit HeaderReader(std::string source) : source_(std::move(source)) {}

    std::vector<HeaderTensor> tensors;
    std::map<std::string, std::string> metadata;

    // What nlohmann::json::sax_parse calls. Each says whether to go on; everything unfit throws instead.
    bool null() { unexpected("null"); }
    bool boolean(bool value) { unexpected(value ? "true" : "false"); }
    bool binary(nlohmann::json::binary_t& /*value*/) { unexpected("binary data"); }
    bool number_integer(nlohmann::json::number_integer_t value) { unexpected(text(value)); }  // one with a minus sign
    bool number_float(nlohmann::json::number_float_t /*value*/, const std::string& digits) { unexpected(clipped(digits)); }

    bool number_unsigned(nlohmann::json::number_unsigned_t value) {
        if (place_ != Place::shape && place_ != Place::offsets) unexpected(text(value));
        if (value > static_cast<std::uint64_t>(std::numeric_limits<Index>::max())) unexpected(text(value));
        std::vector<Index>& numbers = place_ == Place::shape ? *tensors.back().shape : *tensors.back().offsets;
        if (place_ == Place::offsets && numbers.size() == 2) unexpected("a third number");
        numbers.push_back(static_cast<Index>(value));
        return true;
    }

    bool string(std::string& value) {
        if (place_ == Place::metadata) {
            metadata[key_] = value;
        } else if (place_ == Place::tensor && key_ == "dtype") {
            const auto row = std::find_if(dtype_table.begin(), dtype_table.end(),
                                          [&](const DtypeRow& candidate) { return candidate.name == value; });
            if (row == dtype_table.end()) unexpected(in_quotes(value));
            tensors.back().dtype = row->dtype;
        } else {
            unexpected(text("the text ", in_quotes(value)));
        }
        return true;
    }

    bool start_object(std::size_t /*unknown*/) {
        if (place_ == Place::start) {
            place_ = Place::top;
        } else if (place_ == Place::top) {
            place_ = key_ == metadata_key ? Place::metadata : Place::tensor;
        } else {
            unexpected("an object");
        }
        return true;
    }

    bool key(std::string& name) {
        if (place_ == Place::top) {
            const bool is_first = names_.insert(name).second;
            if (!is_first) refuse_file(source_, text("header: key ", in_quotes(name)), "it twice", "it once");
            if (name != metadata_key) tensors.push_back({name, {}, {}, {}});
        } else if (place_ == Place::metadata) {
            if (metadata.contains(name)) {
                refuse_file(source_, text("__metadata__: key ", in_quotes(name)), "it twice", "it once");
            }
        } else {
            const HeaderTensor& tensor = tensors.back();
            if (name != "dtype" && name != "shape" && name != "data_offsets") {
                refuse_file(source_, text("tensor ", in_quotes(tensor.name), ": field"), in_quotes(name),
                            "dtype, shape or data_offsets");
            }
            if (name == "dtype" ? tensor.dtype.has_value()
                                : (name == "shape" ? tensor.shape.has_value() : tensor.offsets.has_value())) {
                refuse_file(source_, text("tensor ", in_quotes(tensor.name), ": field ", name), "it twice", "it once");
            }
        }
        key_ = name;
        return true;
    }

    bool end_object() {
        if (place_ == Place::tensor) {
            const HeaderTensor& tensor = tensors.back();
            const auto missing = [&](const char* field, const char* expected) {
                refuse_file(source_, text("tensor ", in_quotes(tensor.name), ": ", field), "none", expected);
            };
            if (!tensor.dtype) missing("dtype", "a type such as F32");
            if (!tensor.shape) missing("shape", "a list of extents");
            if (!tensor.offsets) missing("data_offsets", "[BEGIN, END]");
            if (tensor.offsets->size() != 2) {
                refuse_file(source_, text("tensor ", in_quotes(tensor.name), ": data_offsets"),
                            text(tensor.offsets->size(), " numbers"), "[BEGIN, END]");
            }
        }
        place_ = place_ == Place::top ? Place::end : Place::top;
        return true;
    }

    bool start_array(std::size_t /*unknown*/) {
        if (place_ == Place::tensor && key_ == "shape") {
            tensors.back().shape.emplace();
            place_ = Place::shape;
        } else if (place_ == Place::tensor && key_ == "data_offsets") {
            tensors.back().offsets.emplace();
            place_ = Place::offsets;
        } else {
            unexpected("a list");
        }
        return true;
    }

    bool end_array() {
        place_ = Place::tensor;
        return true;
    }

    bool parse_error(std::size_t position, const std::string& /*token*/, const nlohmann::json::exception& error) {
        refuse_file(source_, text("header: byte ", position), clipped(error.what()), "JSON in UTF-8");
    }

private:
    enum class Place { start, top, metadata, tensor, shape, offsets, end };

    static std::string clipped(const std::string& message) { return message.substr(0, 200); }

    [[noreturn]] void unexpected(const std::string& got) const {
        switch (place_) {
            case Place::metadata:
                refuse_file(source_, text("__metadata__: ", in_quotes(key_)), got, "a text");
            case Place::top:
                if (key_ == metadata_key) refuse_file(source_, "__metadata__", got, "an object of texts");
                refuse_file(source_, text("tensor ", in_quotes(key_)), got, "an object of dtype, shape, data_offsets");
            case Place::tensor:
                refuse_file(source_, text("tensor ", in_quotes(tensors.back().name), ": ", key_), got,
                            key_ == "dtype" ? "a type such as F32" : "a list of whole numbers");
            case Place::shape:
                refuse_file(source_, text("tensor ", in_quotes(tensors.back().name), ": extent of shape"), got,
                            "a whole number from 0 on that fits memory");
            case Place::offsets:
                refuse_file(source_, text("tensor ", in_quotes(tensors.back().name), ": data_offsets"), got,
                            "two whole numbers from 0 on, [BEGIN, END]");
            default:
                refuse_file(source_, "header", got, "an object");
        }
    }

    std::string source_;
    std::set<std::string> names_;
    std::string key_;
    Place place_ = Place::start;
};

/// Checks that the tensors cover `data_size` bytes from 0 on, each with the bytes that its dtype and shape ask for, without
/// hole, overlap or rest.
inline void check_layout(const std::string& source, const std::vector<HeaderTensor>& tensors, Index data_size) {
    for (const HeaderTensor& tensor : tensors) {
        const std::string where = text("tensor ", in_quotes(tensor.name), ": ");
        const Index begin = (*tensor.offsets)[0];
        const Index end = (*tensor.offsets)[1];
        if (end < begin) refuse_file(source, where + "END of data_offsets", end, text("at least BEGIN, ", begin));
        if (end > data_size) {
            refuse_file(source, where + "END of data_offsets", end, text("at most ", data_size, ", the bytes of data"));
        }
        const std::optional<Index> bytes = tensor_bytes(*tensor.dtype, *tensor.shape);
        if (!bytes) refuse_file(source, where + "shape", shape_text(*tensor.shape), "a size that fits memory");
        if (*bytes != end - begin) {
            refuse_file(source, where + "bytes in data_offsets", end - begin,
                        text(*bytes, " for ", dtype_name(*tensor.dtype), " of shape ", shape_text(*tensor.shape)));
        }
    }
    std::vector<std::size_t> by_offset(tensors.size());
    std::iota(by_offset.begin(), by_offset.end(), std::size_t{0});
    std::sort(by_offset.begin(), by_offset.end(),
              [&](std::size_t a, std::size_t b) { return *tensors[a].offsets < *tensors[b].offsets; });
    Index covered = 0;
    for (const std::size_t i : by_offset) {
        const Index begin = (*tensors[i].offsets)[0];
        if (begin != covered) {
            refuse_file(source, text("tensor ", in_quotes(tensors[i].name), ": BEGIN of data_offsets"), begin,
                        text(covered, ", where the tensors before it end"));
        }
        covered = (*tensors[i].offsets)[1];
    }
    if (covered != data_size) refuse_file(source, "bytes of data", data_size, text(covered, ", where the last tensor ends"));
}

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

/// Writes the tensors to a file, in their order, metadata by key: the same tensors always give the same bytes. The file is
/// replaced as a whole or not at all, see write_file_atomically().
/// Throws std::invalid_argument for names or metadata that are not UTF-8, std::runtime_error if writing fails.
inline void write_safetensors(const std::filesystem::path& path, const SafeTensors& file) {
    const std::string header = detail::safetensors_header(file);
    std::vector<std::span<const std::byte>> pieces{std::as_bytes(std::span(header))};
    for (const std::string& name : file.names()) pieces.emplace_back(file.entry(name).bytes);
    write_file_atomically(path, pieces);
}

SD_NAMESPACE_END
