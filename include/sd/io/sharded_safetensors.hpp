// Tensors in several safetensors files beside an index, as Hugging Face's libraries write them. Needs nlohmann/json.
//
//     model.safetensors.index.json
//         {"metadata": {...}, "weight_map": {"conv1.weight": "model-00001-of-00002.safetensors", ...}}
#pragma once

#include "sd/io/safetensors.hpp"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>

SD_NAMESPACE_BEGIN

namespace detail {

inline constexpr std::string_view shard_index_suffix = ".index.json";

/// Whether a text is the name of a file in the same folder, and nothing that leads out of it.
inline bool is_plain_file_name(std::string_view name) {
    return !name.empty() && name != "." && name != ".." &&
           name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

}  // namespace detail

/// Which file holds each tensor.
using ShardIndex = std::map<std::string, std::string>;

/// The `weight_map` of an index: the name of a file for each tensor. `source` names the index in errors.
/// Throws std::runtime_error for bytes that are not such an index, and for a file in another folder than the index.
[[nodiscard]] inline ShardIndex parse_shard_index(std::span<const std::byte> bytes, const std::string& source) {
    const char* const first = reinterpret_cast<const char*>(bytes.data());
    const nlohmann::json index = nlohmann::json::parse(first, first + bytes.size(), nullptr, false);
    if (!index.is_object()) refuse_file(source, "index", "something else", "a JSON object");
    const auto map = index.find("weight_map");
    if (map == index.end() || !map->is_object() || map->empty()) {
        refuse_file(source, "weight_map", "none", "an object with a file for each tensor");
    }
    ShardIndex shards;
    for (const auto& [tensor, file] : map->items()) {
        const std::string what = text("weight_map: ", detail::in_quotes(tensor));
        if (!file.is_string()) refuse_file(source, what, "no text", "the name of a file");
        const auto& name = file.get_ref<const std::string&>();
        if (!detail::is_plain_file_name(name)) {
            refuse_file(source, what, detail::in_quotes(name), "the name of a file in the index's own folder");
        }
        shards.emplace(tensor, name);
    }
    return shards;
}

/// All tensors that an index lists, from the files beside it, under the index's name in errors; their metadata
/// together. Throws std::runtime_error if a file cannot be read, is none of safetensors, lacks a tensor that the index
/// says it holds, or has one that the index does not list there.
[[nodiscard]] inline SafeTensors read_sharded_safetensors(const std::filesystem::path& index_path) {
    const ShardIndex shards = parse_shard_index(read_file(index_path), index_path.string());
    std::map<std::string, Index> counts;
    for (const auto& [tensor, file] : shards) ++counts[file];
    SafeTensors all(index_path.string());
    for (const auto& [file, count] : counts) {
        const SafeTensors shard = read_safetensors(index_path.parent_path() / file);
        for (const std::string& name : shard.names()) {
            const auto found = shards.find(name);
            if (found == shards.end() || found->second != file) {
                refuse_file(shard.source(), text("tensor ", detail::in_quotes(name)), "it",
                            found == shards.end() ? "none: the index does not list it" : "it in " + found->second);
            }
            all.add(name, shard.entry(name));
        }
        if (shard.size() != count) {
            refuse_file(shard.source(), "tensors", shard.size(), text(count, ", as the index lists"));
        }
        for (const auto& [key, value] : shard.metadata()) all.set_metadata(key, value);
    }
    return all;
}

/// The tensors of a safetensors file, or of all files of an index *.index.json.
/// Throws as read_safetensors() and read_sharded_safetensors() do.
[[nodiscard]] inline SafeTensors read_weights(const std::filesystem::path& path) {
    return path.filename().string().ends_with(detail::shard_index_suffix) ? read_sharded_safetensors(path)
                                                                          : read_safetensors(path);
}

SD_NAMESPACE_END
