// Checkpoints: a training run in one file, to go on from bit for bit. Needs nlohmann/json and zlib.
//
// A checkpoint is a safetensors file with
//
//     tensors    model.NAME       parameters and buffers, NAME as in the model's state dict
//                optimizer.NAME   what the optimizer carries from step to step
//                carried.NAME     what algorithms carry from batch to batch
//                crc32            the last four bytes of the file: the CRC-32 of all bytes before them
//     metadata   checkpoint       "1", the version of this layout
//                run.KEY          where the run stands
//                settings.KEY     what the run was started with
//
// and no clock time, number of threads or path, so the same state always gives the same bytes.
#pragma once

#include "sd/core/named_tensors.hpp"
#include "sd/io/state_dict.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <iomanip>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>
#include <zlib.h>

SD_NAMESPACE_BEGIN

/// A training run at some moment. Texts are UTF-8.
struct Checkpoint {
    SafeTensors model;                            ///< state dict of the model
    SafeTensors optimizer;                        ///< state of the optimizer
    SafeTensors carried;                          ///< what algorithms carry from batch to batch
    std::map<std::string, std::string> run;       ///< where the run stands: counts of batches and the like
    std::map<std::string, std::string> settings;  ///< what the run was started with
};

namespace detail {

inline constexpr std::string_view checkpoint_version_key = "checkpoint";
inline constexpr std::string_view checkpoint_version = "1";
inline constexpr std::string_view checkpoint_crc_name = "crc32";
inline constexpr std::string_view model_prefix = "model.";
inline constexpr std::string_view optimizer_prefix = "optimizer.";
inline constexpr std::string_view carried_prefix = "carried.";
inline constexpr std::string_view run_prefix = "run.";
inline constexpr std::string_view settings_prefix = "settings.";

inline std::uint32_t crc32_of(std::uint32_t before, std::span<const std::byte> bytes) {
    // zlib starts anew when it is given no address.
    if (bytes.empty()) return before;
    return static_cast<std::uint32_t>(
        ::crc32_z(before, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

inline std::string hexadecimal(std::uint32_t value) { return text(std::hex, std::setw(8), std::setfill('0'), value); }

/// Checks that the last four bytes, the tensor `crc32`, are the checksum of those before.
inline void check_crc32(std::span<const std::byte> bytes, const SafeTensors& file) {
    const std::string where = text("tensor ", in_quotes(std::string(checkpoint_crc_name)));
    if (file.size() == 0 || file.names().back() != checkpoint_crc_name) {
        refuse_file(file.source(), where, "none at the end", "the checksum of the file");
    }
    const SafeTensorEntry& entry = file.entry(file.names().back());
    if (entry.dtype != Dtype::u32 || !entry.shape.empty()) {
        refuse_file(file.source(), where, text(dtype_name(entry.dtype), " of shape ", shape_text(entry.shape)),
                    "U32 of shape ()");
    }
    std::uint32_t stored = 0;
    std::memcpy(&stored, bytes.last(sizeof stored).data(), sizeof stored);
    const std::uint32_t computed = crc32_of(0, bytes.first(bytes.size() - sizeof stored));
    if (computed != stored) {
        refuse_file(file.source(), "CRC-32 of the contents", hexadecimal(computed),
                    hexadecimal(stored) + ": the file is damaged");
    }
}

/// What follows the prefix, if the name has it; nothing for the one name that no tensor may have.
inline std::optional<std::string> after_prefix(const std::string& name, std::string_view prefix) {
    if (!name.starts_with(prefix) || name.substr(prefix.size()) == metadata_key) return std::nullopt;
    return name.substr(prefix.size());
}

}  // namespace detail

/// The checkpoint in the bytes of a file; `source` names it in errors.
/// Throws std::runtime_error, naming the file, for bytes that are not a whole and undamaged checkpoint.
[[nodiscard]] inline Checkpoint parse_checkpoint(std::span<const std::byte> bytes, const std::string& source) {
    const SafeTensors file = parse_safetensors(bytes, source);
    const auto version = file.metadata().find(std::string(detail::checkpoint_version_key));
    if (version == file.metadata().end()) {
        refuse_file(source, "metadata \"checkpoint\"", "none", "a version: this is no checkpoint");
    }
    if (version->second != detail::checkpoint_version) {
        refuse_file(source, "metadata \"checkpoint\"", detail::in_quotes(version->second),
                    detail::in_quotes(std::string(detail::checkpoint_version)));
    }
    detail::check_crc32(bytes, file);

    Checkpoint checkpoint{SafeTensors(source), SafeTensors(source), SafeTensors(source), {}, {}};
    for (const auto& [key, value] : file.metadata()) {
        if (const auto name = detail::after_prefix(key, detail::run_prefix)) checkpoint.run[*name] = value;
        if (const auto name = detail::after_prefix(key, detail::settings_prefix)) checkpoint.settings[*name] = value;
    }
    for (const std::string& name : file.names()) {
        if (const auto own = detail::after_prefix(name, detail::model_prefix)) {
            checkpoint.model.add(*own, file.entry(name));
        } else if (const auto its = detail::after_prefix(name, detail::optimizer_prefix)) {
            checkpoint.optimizer.add(*its, file.entry(name));
        } else if (const auto carried = detail::after_prefix(name, detail::carried_prefix)) {
            checkpoint.carried.add(*carried, file.entry(name));
        } else if (name != detail::checkpoint_crc_name) {
            refuse_file(source, "tensor", detail::in_quotes(name), "one of model.NAME, optimizer.NAME, carried.NAME");
        }
    }
    return checkpoint;
}

/// The checkpoint in a file. Throws std::runtime_error if it cannot be read, or as parse_checkpoint() does.
[[nodiscard]] inline Checkpoint read_checkpoint(const std::filesystem::path& path) {
    return parse_checkpoint(read_file(path), path.string());
}

/// Writes a checkpoint. The file is replaced as a whole or not at all, see write_file_atomically().
/// Throws std::invalid_argument for names or texts that are not UTF-8, std::runtime_error if writing fails.
inline void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
    SafeTensors file;
    file.set_metadata("format", "pt");
    file.set_metadata(std::string(detail::checkpoint_version_key), std::string(detail::checkpoint_version));
    const auto add_texts = [&](std::string_view prefix, const std::map<std::string, std::string>& texts) {
        for (const auto& [key, value] : texts) file.set_metadata(text(prefix, key), value);
    };
    add_texts(detail::run_prefix, checkpoint.run);
    add_texts(detail::settings_prefix, checkpoint.settings);
    const auto add_tensors = [&](std::string_view prefix, const SafeTensors& tensors) {
        for (const std::string& name : tensors.names()) file.add(text(prefix, name), tensors.entry(name));
    };
    add_tensors(detail::model_prefix, checkpoint.model);
    add_tensors(detail::optimizer_prefix, checkpoint.optimizer);
    add_tensors(detail::carried_prefix, checkpoint.carried);
    file.add(std::string(detail::checkpoint_crc_name), SafeTensorEntry{Dtype::u32, {}, std::vector<std::byte>(4)});

    const std::string header = detail::safetensors_header(file);
    std::vector<std::span<const std::byte>> pieces{std::as_bytes(std::span(header))};
    for (const std::string& name : file.names()) pieces.emplace_back(file.entry(name).bytes);
    pieces.pop_back();
    std::uint32_t checksum = 0;
    for (const std::span<const std::byte> piece : pieces) checksum = detail::crc32_of(checksum, piece);
    pieces.emplace_back(std::as_bytes(std::span(&checksum, 1)));
    write_file_atomically(path, pieces);
}

/// Named tensors as those of a file, copied.
template <class T, class Device>
[[nodiscard]] SafeTensors to_safetensors(const NamedTensors<T, Device>& tensors) {
    SafeTensors file;
    for (const auto& [name, tensor] : tensors) file.add(name, to_host(tensor));
    return file;
}

/// A file's tensors by name, where the device is. Throws std::runtime_error, naming file and tensor, for another type.
template <class T, class Device>
[[nodiscard]] NamedTensors<T, Device> to_named_tensors(const SafeTensors& file) {
    NamedTensors<T, Device> tensors;
    for (const std::string& name : file.names()) tensors.emplace(name, to_device<Device>(file.tensor<T>(name)));
    return tensors;
}

/// Puts a model's and an optimizer's state into a checkpoint, copied.
template <class Model, class Optimizer>
void capture(Checkpoint& checkpoint, Model& model, const Optimizer& optimizer) {
    checkpoint.model = state_dict(model);
    checkpoint.optimizer = to_safetensors(optimizer.state_dict());
}

/// Copies a checkpoint's state into a model and an optimizer. Everything is checked before anything is changed.
/// Throws std::runtime_error, naming file and tensors, if the checkpoint is of another model or optimizer.
template <class Model, class Optimizer>
void restore(const Checkpoint& checkpoint, Model& model, Optimizer& optimizer) {
    check_state_dict(model, checkpoint.model);
    using Buffer = typename decltype(optimizer.state_dict())::mapped_type;
    const auto state =
        to_named_tensors<typename Buffer::value_type, typename Buffer::device_type>(checkpoint.optimizer);
    optimizer.load_state_dict(state, checkpoint.optimizer.source());
    load_state_dict(model, checkpoint.model);
}

SD_NAMESPACE_END
