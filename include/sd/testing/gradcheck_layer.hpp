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

/// A layer of any type with the handles that gradcheck moves: its input first, then its parameters. Outputs come to the
/// CPU. What judges a gradient sees this alone, and is compiled once for all layers.
template <class T, class Device = Cpu>
class Checked {
public:
    struct Variable {
        std::string name;
        Tensor<T, Device>* value;
        Parameter<T, Device>* parameter;  ///< nullptr for the input
    };
    /// Parameters and buffers, in the order of the layer's visits.
    struct State {
        std::vector<Tensor<T, Device>*> tensors;
        std::vector<std::int64_t*> counts;
    };

    Checked(const Tensor<T>& input, const Context& context) : x_(to_device<Device>(input)), context_(context) {
        variables_.push_back({"input", &x_, nullptr});
    }
    Checked(const Checked&) = delete;
    Checked& operator=(const Checked&) = delete;
    virtual ~Checked() = default;

    std::vector<Variable>& variables() { return variables_; }
    Tensor<T> forward() { return forward(x_, context_); }
    virtual Tensor<T> forward(const Tensor<T, Device>& x, const Context& context) = 0;
    virtual Tensor<T> backward(const Tensor<T, Device>& dy) = 0;
    virtual State state() = 0;

private:
    Tensor<T, Device> x_;
    Context context_;
    std::vector<Variable> variables_;
};

template <class T, class Layer, class Device>
class CheckedLayer final : public Checked<T, Device> {
    using Base = Checked<T, Device>;

public:
    CheckedLayer(Layer layer, const Tensor<T>& input, const Context& context)
        : Base(input, context), layer_(std::move(layer)) {
        for_each_parameter(layer_, [&](const std::string& name, auto& parameter) {
            this->variables().push_back({name, &parameter->value, parameter.get()});
        });
    }

    Tensor<T> forward(const Tensor<T, Device>& x, const Context& context) override {
        return to_host(materialize(Pending<T, Device>(layer_.forward(x, context))));
    }
    Tensor<T> backward(const Tensor<T, Device>& dy) override { return to_host<T, Device>(layer_.backward(dy)); }
    typename Base::State state() override {
        typename Base::State all;
        for_each_state(
            layer_, [&](const std::string&, auto& parameter) { all.tensors.push_back(&parameter->value); },
            [&]<class Buffer>(const std::string&, Buffer& buffer) {
                if constexpr (std::is_same_v<Buffer, std::int64_t>) {
                    all.counts.push_back(&buffer);
                } else {
                    all.tensors.push_back(&buffer);
                }
            });
        return all;
    }

private:
    Layer layer_;
};

/// Copies parameters and buffers from one layer to its twin in dual numbers.
template <class Device>
void copy_state(Checked<double, Device>& from, Checked<Dual>& to) {
    const auto own = from.state();
    const auto twin = to.state();
    for (std::size_t i = 0; i < own.tensors.size(); ++i) *twin.tensors.at(i) = to_dual(to_host(*own.tensors[i]));
    for (std::size_t i = 0; i < own.counts.size(); ++i) *twin.counts.at(i) = *own.counts[i];
}

/// Forgets all gradients but leaves NaN where they were, unlike zero_grad(): a backward that adds to what it should set
/// shows.
template <class Device>
void forget_gradients(Checked<double, Device>& checked) {
    for (auto& variable : checked.variables()) {
        if (variable.parameter == nullptr) continue;
        if (variable.parameter->grad) variable.parameter->grad.fill(std::numeric_limits<double>::quiet_NaN());
        variable.parameter->has_grad = false;
    }
}

/// The gradients after one backward: by the input, then by each parameter; zeros where none was received.
template <class Device>
std::vector<Tensor<double>> gradients(Checked<double, Device>& checked, const Tensor<double, Device>& dy) {
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
