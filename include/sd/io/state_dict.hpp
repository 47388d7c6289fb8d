// Models to named tensors and back: PyTorch's state dicts, as safetensors. Needs nlohmann/json.
//
// A ResNet's names, shapes and layouts are torchvision's (convolutions OIHW, linear layers (out, in), running
// statistics and num_batches_tracked), so weights go both ways unchanged.
#pragma once

#include "sd/core/number_text.hpp"
#include "sd/core/warning.hpp"
#include "sd/io/adapted_weights.hpp"
#include "sd/io/finite_state.hpp"
#include "sd/io/safetensors.hpp"
#include "sd/io/sharded_safetensors.hpp"
#include "sd/nn/branch_scale.hpp"
#include "sd/nn/visit.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
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
    if (!file.contains(name)) return "got none, expected one";
    const SafeTensorEntry& stored = file.entry(name);
    if (stored.dtype != DtypeOf<T>::value) {
        return text("dtype: got ", dtype_name(stored.dtype), ", expected ", dtype_name(DtypeOf<T>::value));
    }
    if (!std::equal(stored.shape.begin(), stored.shape.end(), own.shape().begin(), own.shape().end())) {
        return text("shape: got ", shape_text(stored.shape), ", expected ", own.shape());
    }
    return std::nullopt;
}

}  // namespace detail

/// A file and a model have different tensors. Says how, for a dozen of them.
class StateDictMismatch : public std::runtime_error {
public:
    /// `differences`: in words, by the name of the tensor; `source` names the file.
    StateDictMismatch(const std::string& source, const std::map<std::string, std::string>& differences)
        : std::runtime_error(message(source, differences)) {
        for (const auto& [name, words] : differences) names_.push_back(name);
    }
    /// All tensors that differ, by name.
    [[nodiscard]] const std::vector<std::string>& names() const { return names_; }

private:
    static std::string message(const std::string& source, const std::map<std::string, std::string>& differences) {
        constexpr Index most = 12;
        const auto count = static_cast<Index>(differences.size());
        std::string message = text(source, ": ", count, " of its tensors and the model's differ");
        Index told = 0;
        for (const auto& [name, words] : differences) {
            if (told++ < most) message += text("\n  tensor ", detail::in_quotes(name), ": ", words);
        }
        if (count > most) message += text("\n  and ", count - most, " more");
        return message;
    }

    std::vector<std::string> names_;
};

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

/// Throws StateDictMismatch, a std::runtime_error that names file and tensors, if tensors of the model are missing in
/// the file or have another type or shape there, or if the file has tensors that the model lacks.
template <class Model>
void check_state_dict(Model& model, const SafeTensors& file) {
    std::map<std::string, std::string> differences;
    std::set<std::string> left(file.names().begin(), file.names().end());
    const auto check = [&]<class T, class Device>(const std::string& name, const Tensor<T, Device>& own) {
        left.erase(name);
        if (const auto difference = detail::difference_from(own, name, file)) differences.emplace(name, *difference);
    };
    for_each_state(
        model, [&](const std::string& name, const auto& parameter) { check(name, parameter->value); },
        [&](const std::string& name, const auto& buffer) { check(name, detail::as_tensor(buffer)); });
    for (const std::string& name : left) differences.emplace(name, "got it, expected none: the model lacks it");
    if (!differences.empty()) throw StateDictMismatch(file.source(), differences);
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

namespace detail {

/// The factors other than 1 that a model's blocks have in evaluation, by the names of the parameters that they can be
/// folded into. `function` names the caller in errors.
/// Throws std::invalid_argument if a block's branch does not tell which these are.
template <class Model>
std::map<std::string, double> evaluation_factors(const char* function, Model& model) {
    std::map<std::string, double> factors;
    for_each_scaled_branch(model, [&](const std::string& block, double factor, const std::vector<std::string>& names) {
        if (factor == 1) return;
        if (names.empty()) {
            refuse(function, text("last layer that the branch of block ", in_quotes(block), " names"),
                   "one that its factor of evaluation cannot be folded into",
                   "a batch norm, convolution or linear layer, or a visit_output(visitor). state_dict(model) has the "
                   "raw values");
        }
        for (const std::string& name : names) factors.emplace(name, factor);
    });
    return factors;
}

}  // namespace detail

/// The model's weights for a plain network, one without stochastic depth: with Scaling::inference a block multiplies
/// its branch by 1 - p in evaluation, and here the branch's last layer holds this factor, that of the rate applied now.
/// So the plain network evaluates alike, but for rounding. If a factor is not 1, the metadata have
///
///     stochastic_depth               folded
///     stochastic_depth.factor.NAME   the factor, for each tensor that was multiplied
///
/// Throws std::invalid_argument for a block with such a factor whose branch does not tell its last layer; see
/// ResidualBranch.
template <class Model>
[[nodiscard]] SafeTensors plain_state_dict(Model& model) {
    const std::map<std::string, double> factors = detail::evaluation_factors("save_weights", model);
    SafeTensors raw = state_dict(model);
    if (factors.empty()) return raw;
    SafeTensors file;
    for (const auto& [key, value] : raw.metadata()) file.set_metadata(key, value);
    file.set_metadata(std::string(detail::folding_key), std::string(detail::folding_value));
    for (const std::string& name : raw.names()) {
        const SafeTensorEntry& entry = raw.entry(name);
        const auto found = factors.find(name);
        if (found == factors.end()) {
            file.add(name, entry);
        } else {
            file.set_metadata(text(detail::factor_prefix, name), detail::number_text(found->second));
            file.add(name, detail::scaled_as(entry.dtype, entry, found->second, 1, file.source(), name));
        }
    }
    return file;
}

/// Writes plain_state_dict(model), weights that evaluate alike in a plain network, here or in PyTorch; the file is
/// replaced as a whole or not at all. A checkpoint keeps the raw values, as does write_safetensors(path,
/// state_dict(model)). Throws what plain_state_dict() throws, and std::runtime_error if writing fails or a parameter or a
/// running statistic has a number that is not finite: a file that is there then stays as it was.
template <class Model>
void save_weights(Model& model, const std::filesystem::path& path) {
    const SafeTensors state = plain_state_dict(model);
    detail::expect_finite_state(model, state, [&](const std::string& name, double number) {
        refuse_file(path.string(), text("tensor ", detail::in_quotes(name)), number,
                    "finite numbers; nothing is written");
    });
    write_safetensors(path, state);
}

/// Copies weights from a file into the model and says what it did other than to copy:
///
/// - F16, BF16, F32 and F64 are converted to the model's type, rounded to the nearest;
/// - a num_batches_tracked that the file lacks becomes 0;
/// - names lose the `module.` and `_orig_mod.` of PyTorch's wrappers;
/// - tensors that LoadOptions::skip names stay the model's own;
/// - a file with folded factors (see plain_state_dict) evaluates alike in the model: where this has a factor of its
///   own, the tensors are divided by it. So a model that is to become stochastic gets the values that were trained if
///   it is made stochastic before it reads them. What a factor of 0 has made 0 is lost, and warned of.
///
/// Everything is checked before anything is changed. Throws std::invalid_argument if a prefix of `skip` starts no
/// tensor's name, StateDictMismatch if other tensors are missing, left over, or of another type or shape, and
/// std::runtime_error for metadata that make no sense or numbers that the model's type cannot hold.
template <class Model>
LoadReport load_weights(Model& model, const SafeTensors& file, const LoadOptions& options = {}) {
    const SafeTensors own = state_dict(model);
    detail::WeightAdapter adapter(own, file, options);
    std::map<std::string, double> factors;
    if (adapter.is_folded()) factors = detail::evaluation_factors("load_weights", model);
    std::erase_if(factors, [](const auto& factor) { return factor.second == 0; });  // a branch that evaluation ignores
    load_state_dict(model, adapter.adapt(factors));
    const LoadReport& report = adapter.report();
    if (!report.lost.empty()) {
        warn(text(file.source(), ": ", detail::in_quotes(report.lost.front()), " and ", report.lost.size() - 1,
                  " more tensors are 0: saved at drop rate 1, whose factor of evaluation is 0"));
    }
    return report;
}

/// The same from a safetensors file, or from the index *.safetensors.index.json of several.
/// Throws what read_weights throws too.
template <class Model>
LoadReport load_weights(Model& model, const std::filesystem::path& path, const LoadOptions& options = {}) {
    return load_weights(model, read_weights(path), options);
}

SD_NAMESPACE_END
