// The layer under gradcheck, in double on a device or in dual numbers, with handles on all that gradcheck moves.
#pragma once

#include "sd/cpu/pending.hpp"
#include "sd/nn/context.hpp"
#include "sd/nn/visit.hpp"
#include "sd/testing/dual.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace testing::detail {

inline Tensor<Dual> to_dual(const Tensor<double>& x) {
    Tensor<Dual> result(x.shape());
    std::transform(x.begin(), x.end(), result.begin(), [](double value) { return Dual(value); });
    return result;
}

/// A layer with the handles that gradcheck moves: its input first, then its parameters. Outputs come to the CPU.
template <class T, class Layer, class Device = Cpu>
class Checked {
public:
    struct Variable {
        std::string name;
        Tensor<T, Device>* value;
        Parameter<T, Device>* parameter;  ///< nullptr for the input
    };

    Checked(Layer layer, const Tensor<T>& input, const Context& context)
        : layer_(std::move(layer)), x_(to_device<Device>(input)), context_(context) {
        variables_.push_back({"input", &x_, nullptr});
        for_each_parameter(layer_, [&](const std::string& name, auto& parameter) {
            variables_.push_back({name, &parameter->value, parameter.get()});
        });
    }
    Checked(const Checked&) = delete;
    Checked& operator=(const Checked&) = delete;

    Layer& layer() { return layer_; }
    std::vector<Variable>& variables() { return variables_; }
    Tensor<T> forward() { return to_host(materialize(Pending<T, Device>(layer_.forward(x_, context_)))); }
    Tensor<T> backward(const Tensor<T, Device>& dy) { return to_host<T, Device>(layer_.backward(dy)); }

private:
    Layer layer_;
    Tensor<T, Device> x_;
    Context context_;
    std::vector<Variable> variables_;
};

/// Copies parameters and buffers from one layer to its twin in dual numbers.
template <class From, class To>
void copy_state(From& from, To& to) {
    std::vector<Tensor<double>> tensors;
    std::vector<std::int64_t> counts;
    const auto take = [&]<class Buffer>(Buffer& buffer) {
        if constexpr (std::is_same_v<Buffer, std::int64_t>) {
            counts.push_back(buffer);
        } else {
            tensors.push_back(to_host(buffer).clone());
        }
    };
    for_each_state(
        from, [&](const std::string&, auto& parameter) { take(parameter->value); },
        [&](const std::string&, auto& buffer) { take(buffer); });
    std::size_t tensor = 0;
    std::size_t count = 0;
    const auto give = [&]<class Buffer>(Buffer& buffer) {
        if constexpr (std::is_same_v<Buffer, std::int64_t>) {
            buffer = counts.at(count++);
        } else {
            buffer = to_dual(tensors.at(tensor++));
        }
    };
    for_each_state(
        to, [&](const std::string&, auto& parameter) { give(parameter->value); },
        [&](const std::string&, auto& buffer) { give(buffer); });
}

/// Forgets all gradients but leaves NaN where they were, unlike zero_grad(): a backward that adds to what it should set
/// shows.
template <class Layer>
void forget_gradients(Layer& layer) {
    for_each_parameter(layer, [](const std::string&, auto& parameter) {
        if (parameter->grad) parameter->grad.fill(std::numeric_limits<double>::quiet_NaN());
        parameter->has_grad = false;
    });
}

/// The gradients after one backward: by the input, then by each parameter; zeros where none was received.
template <class Layer, class Device>
std::vector<Tensor<double>> gradients(Checked<double, Layer, Device>& checked, const Tensor<double, Device>& dy) {
    poison_pool(Device());
    std::vector<Tensor<double>> result{checked.backward(dy).clone()};
    for (auto& variable : checked.variables()) {
        if (variable.parameter == nullptr) continue;
        result.push_back(variable.parameter->has_grad ? to_host(variable.parameter->grad).clone()
                                                      : Tensor<double>(variable.value->shape()));
    }
    return result;
}

}  // namespace testing::detail

SD_NAMESPACE_END
