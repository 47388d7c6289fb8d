// One parity case: PyTorch's inputs through the library, PyTorch's outputs against the library's.
#pragma once

#include "layout.hpp"
#include "parity_families.hpp"

#include "sd/io/safetensors.hpp"
#include "sd/training.hpp"

#include <nlohmann/json.hpp>

#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

namespace parity {

using sd::Index;
template <class T, class Device = sd::Cpu>
using Tensor = sd::Tensor<T, Device>;
using tools::to_nchw;
using tools::to_nhwc;

/// A case is of something that the library does not have.
struct NotInTheLibrary : std::runtime_error {
    explicit NotInTheLibrary(const std::string& what) : std::runtime_error("not in the library: " + what) {}
};

/// The largest relative error of a case and where it is.
class Result {
public:
    /// max |ours - theirs| / max(1e-3, max |theirs|); infinite for other shapes or values that are not finite.
    template <class T>
    void compare(const std::string& name, const Tensor<T>& ours, const Tensor<T>& theirs, double tolerance) {
        double difference = 0;
        double scale = 1e-3;
        bool sound = ours.shape() == theirs.shape();
        for (Index i = 0; sound && i < ours.size(); ++i) {
            const auto a = static_cast<double>(ours.data()[i]);
            const auto b = static_cast<double>(theirs.data()[i]);
            sound = sd::is_finite(a) && sd::is_finite(b);
            difference = std::max(difference, std::abs(a - b));
            scale = std::max(scale, std::abs(b));
        }
        note(name, sound ? difference / scale : std::numeric_limits<double>::infinity(), tolerance);
    }

    void require(const std::string& what, bool holds) {
        note(what, holds ? 0 : std::numeric_limits<double>::infinity(), 1);
    }

    [[nodiscard]] bool agrees() const { return compared_ > 0 && agrees_; }
    [[nodiscard]] std::string summary() const {
        return sd::text("largest relative error ", error_, " in ", where_, ", ", compared_, " compared");
    }

private:
    void note(const std::string& name, double error, double tolerance) {
        ++compared_;
        agrees_ = agrees_ && error <= tolerance;
        if (where_.empty() || error > error_) {
            error_ = error;
            where_ = name;
        }
    }

    int compared_ = 0;
    bool agrees_ = true;
    double error_ = 0;
    std::string where_;
};

/// The value of the name, if the enumeration has it.
template <class Enum>
std::optional<Enum> find_named(const std::string& name) {
    for (const auto& [value, known] : sd::detail::EnumNames<Enum>::names) {
        if (known == name) return value;
    }
    return std::nullopt;
}

inline std::vector<Index> to_indices(const Tensor<std::int64_t>& tensor) { return {tensor.begin(), tensor.end()}; }

// ------------------------------------------------------------------------------------------------------------ kernels

/// How far kernels and layers may be off. PyTorch's derivative of hardsigmoid is 1/6 in float for any type.
inline double kernel_tolerance(const sd::SafeTensors& file, const Json& spec) {
    // Of one or two channels only eps leaves anything of dx: PyTorch's is the rounding of numbers times 1 / sqrt(eps).
    if (spec.at("op") == "layer_norm2d" && file.tensor<double>("weight").size() <= 2) return 1e-6;
    if (spec.at("op") == "hardsigmoid" || spec.value("scale_activation", "") == "hardsigmoid") return 1e-7;
    return 1e-10;
}

/// One layer or block alone: state by its names, both passes, gradients and buffers.
template <class Layer>
void run_layer(const sd::SafeTensors& file, const Json& spec, Layer layer, Result& result) {
    using T = typename Layer::value_type;
    using Device = typename Layer::device_type;
    const double tolerance = kernel_tolerance(file, spec);
    const bool train = spec.value("train", true);
    const auto compare = [&](const std::string& name, const Tensor<T, Device>& ours) {
        result.compare(name, sd::to_host(ours), file.tensor<T>(name), tolerance);
    };
    const auto compare_images = [&](const std::string& name, const Tensor<T, Device>& ours) {
        result.compare(name, to_nchw(sd::to_host(ours)), file.tensor<T>(name), tolerance);
    };
    sd::for_each_state(
        layer,
        [&](const std::string& name, auto& parameter) {
            const Tensor<T> value = file.tensor<T>(name);
            sd::expect_shape("parity", name.c_str(), value.shape(), parameter->value.shape());
            parameter->value = sd::to_device<Device>(value);
        },
        [&]<class Buffer>(const std::string& name, Buffer& buffer) {
            if constexpr (std::is_same_v<Buffer, Tensor<T, Device>>) {
                buffer = sd::to_device<Device>(file.tensor<T>(name));
            }
        });
    compare_images("y", layer.forward(sd::to_device<Device>(to_nhwc(file.tensor<T>("x"))),
                                      train ? sd::Context::train({.step = 0, .seed = 0})
                                            : sd::Context::eval({.gradients = true})));
    compare_images("dx", layer.backward(sd::to_device<Device>(to_nhwc(file.tensor<T>("dy")))));
    sd::for_each_state(
        layer, [&](const std::string& name, auto& parameter) { compare("d" + name, parameter->grad); },
        [&]<class Buffer>(const std::string& name, Buffer& buffer) {
            if constexpr (std::is_same_v<Buffer, Tensor<T, Device>>) compare(name + "_after", buffer);
        });
}

/// A case of one kernel, which runs on the device.
template <class Device>
void run_kernel(const sd::SafeTensors& file, const Json& spec, Result& result) {
    using T = double;
    using Pending = sd::Pending<T, Device>;
    using PendingGradient = sd::PendingGradient<T, Device>;
    const double tolerance = kernel_tolerance(file, spec);
    const auto get = [&](const char* name) { return sd::to_device<Device>(file.tensor<T>(name)); };
    const auto get_images = [&](const char* name) { return sd::to_device<Device>(to_nhwc(file.tensor<T>(name))); };
    const auto compare = [&](const std::string& name, const Tensor<T, Device>& ours) {
        result.compare(name, sd::to_host(ours), file.tensor<T>(name), tolerance);
    };
    const auto compare_images = [&](const char* name, const Tensor<T, Device>& ours) {
        result.compare(name, to_nchw(sd::to_host(ours)), file.tensor<T>(name), tolerance);
    };
    const std::string op = spec.at("op");
    if (op == "conv2d") {
        const sd::Conv2dOptions options{spec.at("stride"), spec.at("padding"), spec.at("dilation"), spec.at("groups"),
                                        spec.value("bias", false)};
        if (options.bias)
            return run_layer(file, spec, sd::Conv2d<T, Device>(file.tensor<T>("weight"), options), result);
        const Tensor<T, Device> x = get_images("x");
        const Tensor<T, Device> weight = get("weight");
        const Tensor<T, Device> dy = get_images("dy");
        compare_images("y", sd::conv2d_forward<T>(Pending(x), weight, options));
        compare_images("dx", sd::conv2d_by_input<T>(PendingGradient(dy), weight, options, x.shape()));
        compare("dweight", sd::conv2d_by_weight<T>(Pending(x), PendingGradient(dy), options, weight.shape()));
    } else if (op == "max_pool2d") {
        const sd::Pool2dOptions options{spec.at("kernel"), spec.at("stride"), spec.at("padding")};
        const Tensor<T, Device> x = get_images("x");
        compare_images("y", sd::max_pool2d_forward<T>(Pending(x), options));
        compare_images("dx", sd::max_pool2d_by_input<T>(get_images("dy"), Pending(x), options));
    } else if (op == "avg_pool2d") {
        const sd::Pool2dOptions options{spec.at("kernel"), spec.at("stride"), spec.value("padding", sd::Index{0}),
                                        spec.value("ceil_mode", false), spec.value("count_include_pad", true)};
        const Tensor<T, Device> x = get_images("x");
        compare_images("y", sd::avg_pool2d_forward(x, options));
        compare_images("dx", sd::avg_pool2d_by_input(get_images("dy"), options, x.shape()));
    } else if (op == "batch_norm2d") {
        run_layer(file, spec,
                  sd::BatchNorm2d<T, Device>(file.tensor<T>("weight").size(),
                                             {.eps = spec.at("eps"), .momentum = spec.at("momentum")}),
                  result);
    } else if (op == "layer_norm2d") {
        const Index channels = file.tensor<T>("weight").size();
        run_layer(file, spec, sd::LayerNorm2d<T, Device>(channels, {.eps = spec.at("eps")}), result);
    } else if (op == "cn_block") {
        run_layer(file, spec, convnext_block<T, Device>(spec), result);
    } else if (op == "linear") {
        const Tensor<T, Device> dy = get("dy");
        compare("y", sd::linear_forward(get("x"), get("weight"), get("bias")));
        compare("dx", sd::linear_by_input(dy, get("weight")));
        compare("dweight", sd::linear_by_weight(dy, get("x")));
        compare("dbias", sd::linear_by_bias(dy));
    } else if (op == "cross_entropy") {
        const double smoothing = spec.at("label_smoothing");
        const auto check = [&](const auto& target) {
            compare("loss", Tensor<T, Device>(sd::Shape{1}, {sd::cross_entropy_forward(get("x"), target, smoothing)}));
            compare("dx", sd::cross_entropy_by_input(get("x"), target, smoothing));
        };
        if (spec.at("soft_targets")) {
            check(get("target"));
        } else {
            const std::vector<Index> classes = to_indices(file.tensor<std::int64_t>("target"));
            check(std::span<const Index>(classes));
        }
    } else if (op == "squeeze_excitation") {
        with_squeeze_excitation<T, Device>(spec, file.tensor<T>("x").extent(1),
                                           [&](auto layer) { run_layer(file, spec, std::move(layer), result); });
    } else if (op == "mbconv" || op == "fused_mbconv") {
        run_layer(file, spec, efficientnet_block<T, Device>(spec), result);
    } else if (op == "reg_block") {
        run_layer(file, spec, regnet_block<T, Device>(spec), result);
    } else if (const auto activation = find_named<sd::Activation>(op)) {
        const Tensor<T, Device> x = get("x");
        compare("y", sd::activation_forward(x, *activation));
        compare("dx", sd::activation_by_input(get("dy"), x, *activation));
    } else {
        throw NotInTheLibrary("op " + op);
    }
}

// ------------------------------------------------------------------------------------------------------------- models

inline sd::ResNetArchitecture architecture_of(const Json& spec) {
    sd::ResNetArchitecture architecture;
    architecture.layers = spec.at("layers").get<std::vector<Index>>();
    architecture.planes = spec.at("planes").get<std::vector<Index>>();
    architecture.stem_channels = spec.value("stem_planes", architecture.planes[0]);
    architecture.stem = spec.at("stem") == "cifar" ? sd::Stem::cifar : sd::Stem::imagenet;
    architecture.groups = spec.value("groups", Index{1});
    architecture.width_per_group = spec.value("width_per_group", Index{64});
    if (spec.value("shortcut", "") == "pad") architecture.shortcut = sd::ShortcutKind::pad;
    return architecture;
}

template <class Model>
void make_stochastic(Model& model, const Json& spec) {
    if (spec.at("method") == "none") return;
    sd::apply_stochastic_depth(
        model, {.target_layer_name = model.layer_name(),
                .stochastic_method = sd::parse<sd::StochasticMethod>(spec.at("method").get<std::string>()),
                .drop_rate = spec.at("drop_rate"),
                .drop_distribution = sd::parse<sd::DropDistribution>(spec.at("distribution").get<std::string>()),
                .compute = sd::parse<sd::Compute>(spec.at("compute").get<std::string>()),
                .scaling = sd::parse<sd::Scaling>(spec.at("scaling").get<std::string>())});
}

/// Names in the file with a prefix that the library did not produce, or produced without their being there.
class NameCheck {
public:
    NameCheck(const sd::SafeTensors& file, std::string prefix) : prefix_(std::move(prefix)) {
        for (const std::string& name : file.names()) {
            if (name.starts_with(prefix_)) left_.insert(name);
        }
    }
    std::string take(const std::string& name) {
        left_.erase(prefix_ + name);
        return prefix_ + name;
    }
    void finish(Result& result) const {
        for (const std::string& name : left_) result.require(name + " is missing here", false);
    }

private:
    std::string prefix_;
    std::set<std::string> left_;
};

inline std::int64_t integer_of(const sd::SafeTensors& file, const std::string& name) {
    return file.tensor<std::int64_t>(name).data()[0];
}

/// Gives a network the parameters and buffers of a file, `param.NAME` and `buffer.NAME`: all that either has.
template <class Model>
void load_state(const sd::SafeTensors& file, Model& model, Result& result) {
    using Device = typename Model::device_type;
    NameCheck parameters(file, "param.");
    NameCheck buffers(file, "buffer.");
    const auto load = [&]<class Number>(const std::string& name, Tensor<Number, Device>& target) {
        const Tensor<Number> value = file.tensor<Number>(name);
        sd::expect_shape("parity", name.c_str(), value.shape(), target.shape());
        target = sd::to_device<Device>(value);
    };
    sd::for_each_state(
        model, [&](const std::string& name, auto& parameter) { load(parameters.take(name), parameter->value); },
        [&]<class Buffer>(const std::string& name, Buffer& buffer) {
            if constexpr (std::is_same_v<Buffer, std::int64_t>) {
                buffer = integer_of(file, buffers.take(name));
            } else {
                load(buffers.take(name), buffer);
            }
        });
    parameters.finish(result);
    buffers.finish(result);
}

/// Gives the stochastic blocks of a network the masks of a step, PREFIXmask.I.
template <class Model>
void set_masks(const sd::SafeTensors& file, const std::string& prefix, Model& model) {
    const std::vector<sd::detail::NamedBlock> blocks = model.blocks();
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        if (!blocks[i].block->policy().is_stochastic) continue;
        const auto mask = file.tensor<std::int64_t>(sd::text(prefix, "mask.", i));
        blocks[i].block->set_mask(sd::Mask(mask.begin(), mask.end()));
    }
}

/// The optimizer of a case. Parameters that it names in `no_decay` have no weight decay.
template <class Model>
auto make_optimizer(Model& model, const Json& spec) {
    using T = typename Model::value_type;
    using Device = typename Model::device_type;
    using Any =
        std::variant<sd::Sgd<T, Device>, sd::AdamW<T, Device>, sd::Rmsprop<T, Device>, sd::RmspropTf<T, Device>>;
    std::vector<sd::ParameterRule> rules;
    for (const auto& name : spec.value("no_decay", std::vector<std::string>())) {
        rules.push_back({.match = name, .weight_decay = 0.0});
    }
    const auto groups = sd::parameter_groups(model, rules);
    const auto make = [&]<class O>(std::type_identity<O>, typename O::Options options) {
        options.learning_rate = spec.value("lr", 0.1);
        options.weight_decay = spec.value("weight_decay", 0.0);
        if constexpr (requires { options.momentum; }) options.momentum = spec.value("momentum", 0.9);
        if constexpr (requires { options.alpha; }) options.alpha = spec.at("alpha");
        if constexpr (requires { options.eps; }) options.eps = spec.at("eps");
        return Any(O(groups, options));
    };
    using std::type_identity;
    const std::string name = spec.value("optimizer", "sgd");
    if (name == "sgd") return make(type_identity<sd::Sgd<T, Device>>(), {.nesterov = spec.value("nesterov", false)});
    if (name == "rmsprop") return make(type_identity<sd::Rmsprop<T, Device>>(), {});
    if (name == "rmsprop_tf") return make(type_identity<sd::RmspropTf<T, Device>>(), {});
    if (name != "adamw") throw NotInTheLibrary("optimizer " + name);
    const auto betas = spec.at("betas").get<std::vector<double>>();
    return make(type_identity<sd::AdamW<T, Device>>(), {.beta1 = betas.at(0), .beta2 = betas.at(1)});
}

template <class Model>
void run_model(const sd::SafeTensors& file, const Json& spec, Result& result, Model model) {
    using T = typename Model::value_type;
    using Device = typename Model::device_type;
    make_stochastic(model, spec);

    const bool single = std::is_same_v<T, float>;
    const bool full = spec.at("classes") == 1000;
    const bool train = spec.at("mode") == "train";
    const int steps = spec.value("steps", 1);
    const bool averages = spec.contains("ema_decay");
    const double tolerance = single ? (full ? 1e-3 : 1e-4) : full ? 1e-7 : 1e-10;
    const double late_tolerance = single ? 1e-4 : full ? 1e-7 : 1e-8;
    const double smoothing = spec.value("label_smoothing", 0.0);

    load_state(file, model, result);
    const auto rates = spec.at("drop_rates").get<std::vector<double>>();
    const std::vector<sd::detail::NamedBlock> blocks = model.blocks();
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const sd::PolicySummary policy = blocks[i].block->policy();
        if (policy.is_stochastic) result.require(sd::text("drop_rates.", i), policy.drop_rate == rates.at(i));
    }

    auto chosen = make_optimizer(model, spec);
    auto optimizer = std::visit([](auto& one) { return sd::OptimizerRef<T, Device>(one); }, chosen);
    // What the library's algorithms see of a run.
    sd::State<T, Device> state{.model = sd::ModelView(model),
                               .tensors = sd::ModelTensors<T, Device>(model),
                               .optimizer = optimizer,
                               .seed = 0,
                               .run = {},
                               .classes = spec.at("classes")};
    sd::Logger logger;
    const sd::WeightAveraging averaging({.decay = spec.value("ema_decay", 0.0)});
    if (averages) averaging.apply(sd::Event::fit_start, state, logger);
    const Tensor<T> losses = file.tensor<T>("losses");
    Tensor<T> our_losses(losses.shape());
    const bool eval_only = (full && single) || !spec.value("gradients", true);  // only logits are judged there

    for (int step = 0; step < steps; ++step) {
        const std::string prefix = sd::text("step", step, '.');
        const Tensor<T, Device> x = sd::to_device<Device>(to_nhwc(file.tensor<T>(prefix + "x")));
        const std::vector<Index> labels = to_indices(file.tensor<std::int64_t>(prefix + "labels"));
        set_masks(file, prefix, model);
        optimizer.zero_grad();
        const Tensor<T, Device> logits =
            model.forward(x, train ? sd::Context::train({.step = static_cast<std::uint64_t>(step), .seed = 0})
                                   : sd::Context::eval({.gradients = true}));
        const std::span<const Index> classes(labels);
        our_losses(step) = sd::cross_entropy_forward(logits, classes, smoothing);
        if (step == 0) result.compare("logits", sd::to_host(logits), file.tensor<T>("logits"), tolerance);
        if (eval_only) return;
        const Tensor<T, Device> dx = model.backward(sd::cross_entropy_by_input(logits, classes, smoothing));
        if (step == 0) {
            result.compare("dx", to_nchw(sd::to_host(dx)), file.tensor<T>("dx"), tolerance);
            const auto no_grad = spec.at("no_grad").get<std::set<std::string>>();
            NameCheck gradients(file, "grad.");
            NameCheck buffers(file, "buffer_after.");
            sd::for_each_state(
                model,
                [&](const std::string& name, auto& parameter) {
                    if (no_grad.contains(name)) {
                        result.require(name + " received a gradient", !parameter->has_grad);
                    } else {
                        result.require(name + " received no gradient", parameter->has_grad);
                        if (parameter->has_grad) {
                            result.compare("grad." + name, sd::to_host(parameter->grad),
                                           file.tensor<T>(gradients.take(name)), tolerance);
                        }
                    }
                },
                [&]<class Buffer>(const std::string& name, Buffer& buffer) {
                    const std::string full_name = buffers.take(name);
                    if constexpr (std::is_same_v<Buffer, std::int64_t>) {
                        result.require(full_name, buffer == integer_of(file, full_name));
                    } else {
                        result.compare(full_name, sd::to_host(buffer), file.tensor<T>(full_name), tolerance);
                    }
                });
            gradients.finish(result);
            buffers.finish(result);
        }
        if (spec.contains("max_norm")) {
            sd::GradientClipping(spec.at("max_norm")).apply(sd::Event::after_backward, state, logger);
        }
        optimizer.step();
        ++state.timestamp.batch;
        if (averages) averaging.apply(sd::Event::batch_end, state, logger);
    }
    result.compare("losses", our_losses, losses, steps > 1 ? late_tolerance : tolerance);
    if (steps > 1) {
        NameCheck parameters(file, "param_after.");
        sd::for_each_parameter(model, [&](const std::string& name, auto& parameter) {
            const std::string full_name = parameters.take(name);
            result.compare(full_name, sd::to_host(parameter->value), file.tensor<T>(full_name), late_tolerance);
        });
        parameters.finish(result);
    }
    if (averages) {
        NameCheck expected(file, "ema_after.");
        for (const auto& [key, average] : state.carried) {
            const std::string full_name = expected.take(key.substr(std::string("WeightAveraging.").size()));
            result.compare(full_name, sd::to_host(average), file.tensor<T>(full_name), late_tolerance);
        }
        expected.finish(result);
    }
}

/// Calls use(network) with the network of a case.
template <class T, class Device, class Use>
void with_model(const Json& spec, const Use& use) {
    if (spec.contains("family")) {
        if (with_family<T, Device>(spec, use)) return;
        throw NotInTheLibrary("family " + spec.at("family").get<std::string>());
    }
    const sd::ResNetOptions options{.num_classes = spec.at("classes")};
    use(tools::make_network<T, Device>(architecture_of(spec), spec.at("block") == "bottleneck", options));
}

/// Runs the case of one file on the device. Throws for a file that is not a case.
template <class Device>
Result run_case(const std::string& path) {
    const sd::SafeTensors file = sd::read_safetensors(path);
    const Json spec = Json::parse(file.metadata().at("spec"));
    Result result;
    if (file.metadata().at("kind") == "kernel") {
        run_kernel<Device>(file, spec, result);
        return result;
    }
    const auto run = [&](auto&& model) { run_model(file, spec, result, std::move(model)); };
    const auto with_type = [&]<class T>(std::type_identity<T>) { with_model<T, Device>(spec, run); };
    if (spec.value("dtype", "F64") == "F32") {
        with_type(std::type_identity<float>());
    } else {
        with_type(std::type_identity<double>());
    }
    return result;
}

}  // namespace parity
