// Models to named tensors and back: PyTorch's state dicts, as safetensors. Needs nlohmann/json.
//
// A ResNet's names, shapes and layouts are torchvision's (convolutions OIHW, linear layers (out, in), running
// statistics and num_batches_tracked), so weights go both ways unchanged.
#pragma once

#include "sd/io/safetensors.hpp"
#include "sd/nn/visit.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <type_traits>

SD_NAMESPACE_BEGIN

namespace detail {

/// A buffer as a file holds it.
inline Tensor<std::int64_t> as_tensor(std::int64_t count) { return Tensor<std::int64_t>(Shape{}, {count}); }
template <class T, class Device>
Tensor<T> as_tensor(const Tensor<T, Device>& tensor) {
    return to_host(tensor);
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

/// Copies parameters and buffers from a file into the model. Everything is checked before anything is changed.
/// Throws std::runtime_error, naming file and tensor, if a tensor of the model is missing in the file or has another
/// type or shape there, or if the file has a tensor that the model lacks.
template <class Model>
void load_state_dict(Model& model, const SafeTensors& file) {
    std::set<std::string> left(file.names().begin(), file.names().end());
    const auto check = [&]<class T, class Device>(const std::string& name, const Tensor<T, Device>& own) {
        const Tensor<T> stored = file.tensor<T>(name);
        if (!(stored.shape() == own.shape())) {
            refuse_file(file.source(), text("tensor ", detail::in_quotes(name), ": shape"), stored.shape(),
                        own.shape());
        }
        left.erase(name);
    };
    for_each_state(
        model, [&](const std::string& name, const auto& parameter) { check(name, parameter->value); },
        [&](const std::string& name, const auto& buffer) { check(name, detail::as_tensor(buffer)); });
    if (!left.empty()) {
        refuse_file(file.source(), "tensors", text(detail::in_quotes(*left.begin()), ", which the model lacks"),
                    "those of the model");
    }
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
