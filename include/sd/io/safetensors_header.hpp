// The header of a safetensors file: what it may hold, and the checks that let nothing else in.
//
//     {"__metadata__": {"key": "text", ...},
//      "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [BEGIN, END]}, ...}
//
// Format: https://github.com/huggingface/safetensors.
#pragma once

#include "sd/core/error.hpp"
#include "sd/core/shape.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

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

namespace detail {

/// The size in bytes of a tensor, or nothing if it is more than memory can hold. As in Shape, an extent of 0 does not
/// hide an overflow in the others.
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

/// One tensor of a header, not yet checked against the data.
struct HeaderTensor {
    std::string name;
    std::optional<Dtype> dtype;
    std::optional<std::vector<Index>> shape;
    std::optional<std::vector<Index>> offsets;
};

/// Follows the JSON of a header as it is parsed. Only what a header may hold is let in, value by value, so that the
/// first thing out of place ends the parse, such as a second key of the same name or a bracket too deep.
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
    bool number_float(nlohmann::json::number_float_t /*value*/, const std::string& digits) {
        unexpected(clipped(digits));
    }

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

/// Checks that the tensors cover `data_size` bytes from 0 on, each with the bytes that its dtype and shape ask for,
/// without hole, overlap or rest.
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
    if (covered != data_size)
        refuse_file(source, "bytes of data", data_size, text(covered, ", where the last tensor ends"));
}

}  // namespace detail

SD_NAMESPACE_END
