// Stochastic gradient descent with momentum.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/parallel.hpp"
#include "sd/core/parameter.hpp"

#include <algorithm>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// What an optimizer carries from step to step, by name: tensors such as "conv1.weight.momentum_buffer".
template <class T, class Device = Cpu>
using OptimizerState = std::map<std::string, Tensor<T, Device>>;

/// Settings of SGD.
struct SgdOptions {
    double learning_rate = 0.1;  ///< 0 or more
    double momentum = 0;         ///< 0 or more
    double dampening = 0;        ///< of the gradient that enters the momentum
    double weight_decay = 0;     ///< 0 or more
    bool nesterov = false;       ///< needs momentum and no dampening
};

/// A parameter's part in one update.
template <class T, class Device = Cpu>
struct SgdTensor {
    Tensor<T, Device> value;     ///< w
    Tensor<T, Device> grad;      ///< dw
    Tensor<T, Device> velocity;  ///< v; undefined without momentum
    bool first = false;          ///< whether this is the parameter's first step
};

/// The factors of an update, in the type of the parameters.
template <class T>
struct SgdFactors {
    T learning_rate;    ///< of SgdOptions
    T momentum;         ///< of SgdOptions
    T weight_decay;     ///< of SgdOptions
    T share;            ///< of the gradient in the momentum: 1 at a parameter's first step, else 1 - dampening
    bool has_momentum;  ///< whether there is a velocity
    bool nesterov;      ///< of SgdOptions

    /// Of a parameter's first step or a later one.
    SgdFactors(const SgdOptions& options, bool first)
        : learning_rate(static_cast<T>(options.learning_rate)),
          momentum(static_cast<T>(options.momentum)),
          weight_decay(static_cast<T>(options.weight_decay)),
          share(static_cast<T>(first ? 1.0 : 1 - options.dampening)),
          has_momentum(options.momentum != 0),
          nesterov(options.nesterov) {}

    /// Updates element i; v is looked at only with momentum. No two of the tensors share memory.
    SD_HOST_DEVICE void update(Index i, T* __restrict w, T* __restrict v, const T* __restrict dw) const {
        const T g = dw[i] + weight_decay * w[i];
        T direction = g;
        if (has_momentum) {
            v[i] = momentum * v[i] + share * g;
            direction = nesterov ? T(g + momentum * v[i]) : v[i];
        }
        w[i] = w[i] - learning_rate * direction;
    }
};

/// Updates the tensors, see Sgd.
template <class T>
void sgd_update(std::span<SgdTensor<T>> tensors, const SgdOptions& options) {
    for (SgdTensor<T>& tensor : tensors) {
        const SgdFactors<T> factors(options, tensor.first);
        T* w = tensor.value.data();
        T* v = tensor.velocity.data();
        const T* dw = tensor.grad.data();
        parallel_ranges(tensor.value.size(), 16384, [&](Index begin, Index end) {
            const SgdFactors<T> own = factors;  // which no pointer leads to, so the compiler makes vectors of the loop
            for (Index i = begin; i < end; ++i) own.update(i, w, v, dw);
        });
    }
}

/// For every parameter w that received a gradient, in PyTorch's order of operations:
///
///     g = dw + weight_decay w
///     v = momentum v + (1 - dampening) g       (v = g at the parameter's first step)
///     w = w - learning_rate (nesterov ? g + momentum v : v)        (g for v without momentum)
///
/// A parameter that received no gradient is left alone, its momentum included.
/// I. Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013.
template <class T, class Device = Cpu>
class Sgd {
public:
    /// Throws std::invalid_argument for settings outside their ranges or an undefined parameter.
    explicit Sgd(ParameterList<T, Device> parameters, const SgdOptions& options = {})
        : parameters_(std::move(parameters)), velocity_(parameters_.size()) {
        for (const auto& parameter : parameters_) {
            if (!parameter) refuse("Sgd", "parameters", "an empty pointer", "parameters of a model");
        }
        set_options(options);
    }

    /// One update of all parameters that have a gradient.
    void step() {
        PooledVector<SgdTensor<T, Device>> updates;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const Parameter<T, Device>& parameter = *parameters_[i];
            if (!parameter.has_grad) continue;
            const bool first = !velocity_[i];
            if (first && options_.momentum != 0) velocity_[i] = Tensor<T, Device>(parameter.value.shape());
            updates.push_back({parameter.value, parameter.grad, velocity_[i], first});
        }
        sgd_update<T>(std::span<SgdTensor<T, Device>>(updates), options_);
    }

    /// Forgets all gradients.
    void zero_grad() {
        for (const auto& parameter : parameters_) parameter->zero_grad();
    }

    /// True if the optimizer trains the parameter at this address.
    [[nodiscard]] bool holds(const void* parameter) const {
        return std::any_of(parameters_.begin(), parameters_.end(),
                           [&](const auto& own) { return own.get() == parameter; });
    }

    /// What it trains.
    [[nodiscard]] const ParameterList<T, Device>& parameters() const { return parameters_; }

    /// The settings.
    [[nodiscard]] const SgdOptions& options() const { return options_; }
    /// Changes the settings. Throws std::invalid_argument, with nothing changed, if one is outside its range.
    void set_options(const SgdOptions& options) {
        const double most = largest_number<T>;  // of the type in which updates are computed
        const auto expect_not_negative = [&](const char* setting, double value) {
            if (is_in_range(value, 0, most)) return;
            refuse("Sgd", setting, value, text("a finite number of 0 or more, at most ", most));
        };
        expect_not_negative("learning_rate", options.learning_rate);
        expect_not_negative("momentum", options.momentum);
        expect_not_negative("weight_decay", options.weight_decay);
        if (!is_in_range(options.dampening, -most, most)) {
            refuse("Sgd", "dampening", options.dampening, "a finite number");
        }
        if (options.nesterov && (options.momentum == 0 || options.dampening != 0)) {
            refuse("Sgd", "nesterov", text("momentum ", options.momentum, " and dampening ", options.dampening),
                   "a momentum above 0 and no dampening");
        }
        options_ = options;
    }
    /// Changes the learning rate. Throws std::invalid_argument if it is negative or not finite.
    void set_learning_rate(double learning_rate) {
        SgdOptions options = options_;
        options.learning_rate = learning_rate;
        set_options(options);
    }

    /// The name of a parameter's momentum buffer in a state_dict().
    [[nodiscard]] static std::string buffer_name(const Parameter<T, Device>& parameter) {
        return parameter.name + ".momentum_buffer";
    }

    /// The momentum buffers v as "PARAMETER.momentum_buffer", PyTorch's word: handles, no copies. A parameter that has
    /// not taken a step with momentum has none.
    /// Throws std::invalid_argument if a parameter has no name, or two have the same.
    [[nodiscard]] OptimizerState<T, Device> state_dict() const {
        OptimizerState<T, Device> state;
        for (const auto& [name, i] : buffer_names()) {
            if (velocity_[i]) state.emplace(name, velocity_[i]);
        }
        return state;
    }

    /// Takes copies of the momentum buffers of a state_dict() in place of its own; a parameter without one there is as
    /// before its first step. Everything is checked before anything is changed. `source` names the state in errors.
    /// Throws std::runtime_error for a buffer of another shape or of no parameter here, and as state_dict() does.
    void load_state_dict(const OptimizerState<T, Device>& state, const std::string& source = "state_dict") {
        const std::map<std::string, std::size_t> names = buffer_names();
        std::vector<Tensor<T, Device>> velocity(parameters_.size());
        for (const auto& [name, buffer] : state) {
            const auto found = names.find(name);
            if (found == names.end()) {
                refuse_file(source, "optimizer's state", name, "buffers of the parameters that it trains");
            }
            const Shape& shape = parameters_[found->second]->value.shape();
            if (!(buffer.shape() == shape)) refuse_file(source, name + ": shape", buffer.shape(), shape);
            velocity[found->second] = buffer.clone();
        }
        velocity_ = std::move(velocity);
    }

private:
    /// The place of every parameter by the name of its momentum buffer.
    [[nodiscard]] std::map<std::string, std::size_t> buffer_names() const {
        std::map<std::string, std::size_t> names;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const std::string& name = parameters_[i]->name;
            if (name.empty()) refuse("Sgd", "name of a parameter", "none", "one, to keep its state by");
            if (!names.emplace(buffer_name(*parameters_[i]), i).second) {
                refuse("Sgd", "name of a parameter", text(name, " twice"), "one name a parameter");
            }
        }
        return names;
    }

    ParameterList<T, Device> parameters_;
    std::vector<Tensor<T, Device>> velocity_;  ///< undefined before a parameter's first step
    SgdOptions options_;
};

SD_NAMESPACE_END
