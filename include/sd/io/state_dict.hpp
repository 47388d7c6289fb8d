// Models to named tensors and back: PyTorch's state dicts, as safetensors. Needs nlohmann/json.
//
// A ResNet's names, shapes and layouts are torchvision's (convolutions OIHW, linear layers (out, in), running
// statistics and num_batches_tracked), so weights go both ways unchanged.
#pragma once

#include "sd/io/safetensors.hpp"
#include "sd/nn/visit.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// A buffer as a file holds it.
inline Tensor<std::int64_t> as_tensor(std::int64_t count) { return Tensor<std::int64_t>(Shape{}, {count}); }
template <class T, class Device>
Tensor<T> as_tensor(const Tensor<T, Device>& tensor) {
    return to_host(tensor);
}

/// How the file's tensor of the name differs from one of the model, if it does.
template <class T, class Device>
std::optional<std::string> difference_from(const Tensor<T, Device>& own, const std::string& name,
                                           const SafeTensors& file) {
    const std::string where = text("tensor ", in_quotes(name), ": ");
    if (!file.contains(name)) return where + "got none, expected one";
    const SafeTensorEntry& stored = file.entry(name);
    if (stored.dtype != DtypeOf<T>::value) {
        return text(where, "dtype: got ", dtype_name(stored.dtype), ", expected ", dtype_name(DtypeOf<T>::value));
    }
    if (!std::equal(stored.shape.begin(), stored.shape.end(), own.shape().begin(), own.shape().end())) {
        return text(where, "shape: got ", shape_text(stored.shape), ", expected ", own.shape());
    }
    return std::nullopt;
}

/// Refuses a file that differs from the model, if there are differences.
inline void refuse_differences(const std::string& source, const std::vector<std::string>& differences) {
    constexpr std::size_t most = 12;
    if (differences.empty()) return;
    std::string message = text(source, ": ", differences.size(), " of its tensors and the model's differ");
    for (std::size_t i = 0; i < std::min(most, differences.size()); ++i) message += "\n  " + differences[i];
    if (differences.size() > most) message += text("\n  and ", differences.size() - most, " more");
    throw std::runtime_error(message);
}

}  // namespace detail

/// The model's parameters and buffers by their full names, in the order of its visits. Elements are copied.
template <class Model>
[[nodiscard]] SafeTensors state_dict(Model& model) {
    SafeTensors file;
    file.set_metadata("format", "pt");
    for_each_state(
        model, [&](const std::string& name, const auto& parameter) { file.add(name, to_host(parameter->value)); },
        [&](const std::string& name, const auto& buffer) { file.add(name, detail::as_tensor(buffer)); });
    return file;
}

/// Throws std::runtime_error, naming file and tensors, if tensors of the model are missing in the file or have another
/// type or shape there, or if the file has tensors that the model lacks: all of them are named, up to a dozen.
template <class Model>
void check_state_dict(Model& model, const SafeTensors& file) {
    std::vector<std::string> differences;
    std::set<std::string> left(file.names().begin(), file.names().end());
    const auto check = [&]<class T, class Device>(const std::string& name, const Tensor<T, Device>& own) {
        left.erase(name);
        if (const auto difference = detail::difference_from(own, name, file)) differences.push_back(*difference);
    };
    for_each_state(
        model, [&](const std::string& name, const auto& parameter) { check(name, parameter->value); },
        [&](const std::string& name, const auto& buffer) { check(name, detail::as_tensor(buffer)); });
    for (const std::string& name : left) {
        differences.push_back(text("tensor ", detail::in_quotes(name), ": got it, expected none: the model lacks it"));
    }
    detail::refuse_differences(file.source(), differences);
}

/// Copies parameters and buffers from a file into the model. Everything is checked before anything is changed.
/// Throws as check_state_dict() does.
template <class Model>
void load_state_dict(Model& model, const SafeTensors& file) {
    check_state_dict(model, file);
    const auto copy = [&]<class T, class Device>(const std::string& name, Tensor<T, Device>& own) {
        own.write(file.tensor<T>(name).data());
    };
    for_each_state(
        model, [&](const std::string& name, auto& parameter) { copy(name, parameter->value); },
        [&]<class Buffer>(const std::string& name, Buffer& buffer) {
            if constexpr (std::is_same_v<Buffer, std::int64_t>) {
                buffer = file.tensor<std::int64_t>(name).data()[0];
            } else {
                copy(name, buffer);
            }
        });
}

/// Writes state_dict(model); the file is replaced as a whole or not at all. Throws std::runtime_error if that fails.
template <class Model>
void save_weights(Model& model, const std::filesystem::path& path) {
    write_safetensors(path, state_dict(model));
}

/// Reads a file and loads it with load_state_dict. Throws what read_safetensors and load_state_dict throw.
template <class Model>
void load_weights(Model& model, const std::filesystem::path& path) {
    load_state_dict(model, read_safetensors(path));
}

SD_NAMESPACE_END
