// The layers, branches and blocks that sd_gradcheck looks at, each as a factory for any scalar type and device. A unit
// includes the kernels of its device first.
#pragma once

#include "sd/training.hpp"
#include "sd/testing/gradcheck.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace gradcheck_cases {

using sd::Context;
using sd::Index;
using sd::Mask;
using sd::named;
using sd::Shape;
using sd::Tensor;
using sd::testing::GradcheckOptions;

/// What a Sequential fuses: each of its groups, behind and before one of another kind, and one within another.
template <class T, class Device>
struct Compositions {
    using Conv = sd::Conv2d<T, Device>;
    using Norm = sd::BatchNorm2d<T, Device>;

    static auto conv_bn_relu() {
        sd::Initializer initializer(2);
        return sd::Sequential{named("conv", Conv(3, 5, 3, {.stride = 2, .padding = 1}, initializer)),
                              named("bn", Norm(5)), named("relu", sd::Relu<T, Device>())};
    }
    static auto biased() {
        sd::Initializer initializer(3);
        return sd::Sequential{named("conv1", Conv(3, 4, 3, {.padding = 1, .bias = true}, initializer)),
                              named("silu", sd::Silu<T, Device>()), named("conv2", Conv(4, 6, 1, {}, initializer)),
                              named("bn2", Norm(6)), named("conv3", Conv(6, 3, 1, {.bias = true}, initializer))};
    }
    // In training the bias has no effect, and its gradient is 0.
    static auto bias_before_norm() {
        sd::Initializer initializer(3);
        return sd::Sequential{named("conv", Conv(3, 4, 3, {.padding = 1, .bias = true}, initializer)),
                              named("bn", Norm(4)), named("relu6", sd::Relu6<T, Device>())};
    }
    static auto norms_first() {
        sd::Initializer initializer(4);
        return sd::Sequential{named("bn1", Norm(3)),
                              named("hardswish", sd::Hardswish<T, Device>()),
                              named("conv1", Conv(3, 4, 1, {}, initializer)),
                              named("gelu", sd::Gelu<T, Device>()),
                              named("conv2", Conv(4, 4, 3, {.padding = 1}, initializer)),
                              named("bn2", Norm(4))};
    }
    static auto scaled() {
        sd::Initializer initializer(6);
        return sd::Sequential{
            named("conv", Conv(3, 4, 3, {.padding = 1}, initializer)),
            named("scale1", sd::LayerScale<T, Device>(4, 0.7)),
            named("linear1", sd::PixelLinear<T, Device>(initializer.normal<sd::accumulate_t<T>>({7, 4}, 0.5))),
            named("gelu", sd::Gelu<T, Device>()),
            named("linear2", sd::PixelLinear<T, Device>(initializer.normal<sd::accumulate_t<T>>({3, 7}, 0.5))),
            named("scale2", sd::LayerScale<T, Device>(3, -1.3))};
    }
    static auto nested() {
        sd::Initializer initializer(5);
        sd::OptionalLayer<sd::MaxPool2d<T, Device>> none;
        sd::OptionalLayer<sd::MaxPool2d<T, Device>> max_pool(
            sd::MaxPool2d<T, Device>({.kernel = 3, .stride = 2, .padding = 1}));
        return sd::Sequential{named("inner", conv_bn_relu()),
                              named("none", std::move(none)),
                              named("conv", Conv(5, 4, 3, {.padding = 1}, initializer)),
                              named("bn", Norm(4)),
                              named("max_pool", std::move(max_pool)),
                              named("sigmoid", sd::Sigmoid<T, Device>()),
                              named("average", sd::GlobalAvgPool<T, Device>()),
                              named("linear", sd::Linear<T, Device>(4, 3, initializer))};
    }
};

/// The loss as a layer of one output, for class labels or for target probabilities.
template <class T, class Device>
class CrossEntropy {
public:
    CrossEntropy(bool soft, double label_smoothing) : soft_(soft), label_smoothing_(label_smoothing) {}

    Tensor<T, Device> forward(const Tensor<T, Device>& logits, const Context&) {
        logits_ = logits;
        return with_target([&](const auto& target) {
            return Tensor<T, Device>::full({1}, sd::cross_entropy_forward(logits_, target, label_smoothing_));
        });
    }
    Tensor<T, Device> backward(const Tensor<T, Device>& dloss) {
        Tensor<T, Device> dlogits = with_target(
            [&](const auto& target) { return sd::cross_entropy_by_input(logits_, target, label_smoothing_); });
        sd::scale_by(dlogits, sd::to_host(dloss).data()[0]);
        return dlogits;
    }
    template <class Visitor>
    void visit(Visitor&&) {}

private:
    // Labels n mod C, or probabilities that do not sum to one.
    template <class Use>
    Tensor<T, Device> with_target(const Use& use) {
        const Index classes = logits_.extent(1);
        if (soft_) {
            Tensor<T> target(logits_.shape());
            for (Index i = 0; i < target.size(); ++i) target.data()[i] = T(0.1 * static_cast<double>(i % 7));
            return use(sd::to_device<Device>(target));
        }
        std::vector<Index> labels;
        for (Index n = 0; n < logits_.extent(0); ++n) labels.push_back(n % classes);
        return use(std::span<const Index>(labels));
    }

    Tensor<T, Device> logits_;
    bool soft_;
    double label_smoothing_;
};

/// Calls check(name, factory, shape of x, options) for every layer.
template <class Check>
void layers(const Check& check) {
    const GradcheckOptions train;
    const GradcheckOptions eval{.context = Context::eval({.gradients = true})};
    const auto conv2d = [&](Index in, Index out, Index kernel, const sd::Conv2dOptions& options) {
        const std::string name =
            sd::text("conv2d ", kernel, "x", kernel, " stride ", options.stride, " padding ", options.padding,
                     " dilation ", options.dilation, " groups ", options.groups, options.bias ? " bias" : "");
        check(
            name,
            [=]<class T, class Device>() {
                sd::Initializer initializer(1);
                return sd::Conv2d<T, Device>(in, out, kernel, options, initializer);
            },
            Shape{2, 7, 6, in}, train);
    };
    conv2d(5, 7, 1, {});
    conv2d(3, 4, 3, {.padding = 1});
    conv2d(4, 6, 3, {.stride = 2, .padding = 1, .groups = 2});
    conv2d(3, 4, 3, {.stride = 3, .padding = 2, .dilation = 2});
    conv2d(3, 17, 5, {.padding = 3});
    conv2d(3, 4, 3, {.padding = 1, .bias = true});
    const auto batch_norm = []<class T, class Device>() { return sd::BatchNorm2d<T, Device>(5); };
    check("batch norm", batch_norm, Shape{3, 4, 3, 5}, train);
    check("batch norm, evaluation", batch_norm, Shape{3, 4, 3, 5}, eval);
    const auto layer_norm = []<class T, class Device>() { return sd::LayerNorm2d<T, Device>(5, {.eps = 1e-3}); };
    check("layer norm", layer_norm, Shape{2, 3, 2, 5}, train);
    check("layer norm of features", layer_norm, Shape{4, 5}, eval);
    const auto composition = [&](const std::string& name, const auto& make) {
        check(name, make, Shape{2, 6, 5, 3}, train);
        check(name + ", evaluation", make, Shape{2, 6, 5, 3}, eval);
    };
    composition("conv-bn-relu", []<class T, class Device>() { return Compositions<T, Device>::conv_bn_relu(); });
    composition("conv-silu-conv-bn-conv with biases",
                []<class T, class Device>() { return Compositions<T, Device>::biased(); });
    check(
        "conv-bn-relu6 with a bias, evaluation",
        []<class T, class Device>() { return Compositions<T, Device>::bias_before_norm(); }, Shape{2, 6, 5, 3}, eval);
    composition("bn-hardswish-conv-gelu-conv-bn",
                []<class T, class Device>() { return Compositions<T, Device>::norms_first(); });
    composition("conv-scale-linear-gelu-linear-scale",
                []<class T, class Device>() { return Compositions<T, Device>::scaled(); });
    check(
        "layer scale", []<class T, class Device>() { return sd::LayerScale<T, Device>(5, 0.7); }, Shape{2, 3, 2, 5},
        train);
    composition("a Sequential in a Sequential",
                []<class T, class Device>() { return Compositions<T, Device>::nested(); });
    const auto activation = [&]<template <class, class> class Layer>(const char* name) {
        check(
            name, []<class T, class Device>() { return Layer<T, Device>(); }, Shape{2, 3, 4, 5}, train);
    };
    activation.template operator()<sd::Relu>("relu");
    activation.template operator()<sd::Relu6>("relu6");
    activation.template operator()<sd::Silu>("silu");
    activation.template operator()<sd::Hardswish>("hardswish");
    activation.template operator()<sd::Gelu>("gelu");
    activation.template operator()<sd::Sigmoid>("sigmoid");
    activation.template operator()<sd::Hardsigmoid>("hardsigmoid");
    const auto excitation = [&]<sd::Activation act, sd::Activation scale>(const char* name) {
        check(
            name,
            []<class T, class Device>() {
                sd::Initializer initializer(1);
                return sd::SqueezeExcitation<T, Device, act, scale>(5, 3, initializer);
            },
            Shape{3, 3, 4, 5}, train);
    };
    using sd::Activation;
    excitation.template operator()<Activation::silu, Activation::sigmoid>("squeeze-and-excitation, SiLU");
    excitation.template operator()<Activation::relu, Activation::hardsigmoid>(
        "squeeze-and-excitation, ReLU and hardsigmoid");
    check(
        "max pool 3x3/2",
        []<class T, class Device>() { return sd::MaxPool2d<T, Device>({.kernel = 3, .stride = 2, .padding = 1}); },
        Shape{2, 7, 6, 3}, train);
    check(
        "average pool 2x2/2",
        []<class T, class Device>() { return sd::AvgPool2d<T, Device>({.kernel = 2, .stride = 2}); }, Shape{2, 6, 7, 3},
        train);
    check(
        "global average pool", []<class T, class Device>() { return sd::GlobalAvgPool<T, Device>(); },
        Shape{3, 4, 5, 6}, train);
    check(
        "linear",
        []<class T, class Device>() {
            sd::Initializer initializer(3);
            return sd::Linear<T, Device>(7, 5, initializer);
        },
        Shape{4, 7}, train);
    const auto cross_entropy = [&](const char* name, bool soft, double label_smoothing) {
        check(
            name, [=]<class T, class Device>() { return CrossEntropy<T, Device>(soft, label_smoothing); }, Shape{5, 4},
            train);
    };
    cross_entropy("cross-entropy", false, 0.0);
    cross_entropy("cross-entropy, smoothing", false, 0.1);
    cross_entropy("cross-entropy, probabilities", true, 0.1);
}

/// A shortcut from 4 to `out` channels at the stride, of the kind.
enum class ShortcutOf { identity, projection, pad };

template <class T, class Device>
sd::Shortcut<T, Device> make_shortcut(ShortcutOf kind, Index out, sd::Initializer& initializer) {
    if (kind == ShortcutOf::projection) return sd::ProjectionShortcut<T, Device>(8, out, 2, initializer);
    if (kind == ShortcutOf::pad) return sd::PadShortcut<T, Device>(8, out);
    return {};
}

/// Checks a branch in a block: every policy, compute and scaling, every shortcut, with samples kept and dropped.
template <template <class, class> class Branch, class Check>
void blocks(const std::string& branch_name, const Check& check) {
    const Shape x_shape{4, 4, 6, 8};
    struct PolicyCase {
        std::string name;
        sd::AnyPolicy policy;
        std::vector<Mask> masks;
    };
    const Mask none{0, 0, 0, 0};
    const Mask all{1, 1, 1, 1};
    const Mask some{1, 0, 0, 1};
    std::vector<PolicyCase> policies{{"keep all", sd::KeepAllPolicy{}, {all}}};
    policies.push_back({"subset", sd::SubsetPolicy{.drop_rate = 0.5}, {all, some}});
    for (const auto scaling : {sd::Scaling::inference, sd::Scaling::train}) {
        policies.push_back({sd::text("block ", sd::to_string(scaling)),
                            sd::BlockPolicy{.drop_rate = 0.3, .scaling = scaling},
                            {all, none}});
        for (const auto compute : {sd::Compute::all, sd::Compute::survivors}) {
            policies.push_back({sd::text("sample ", sd::to_string(compute), ' ', sd::to_string(scaling)),
                                sd::SamplePolicy{.drop_rate = 0.3, .compute = compute, .scaling = scaling},
                                {all, some, none}});
        }
    }
    const std::vector<std::string> shortcut_names{"identity", "projection", "pad"};
    for (const auto shortcut : {ShortcutOf::identity, ShortcutOf::projection, ShortcutOf::pad}) {
        const bool shrinks = shortcut != ShortcutOf::identity;
        const Index out = shrinks ? 12 : 8;
        for (const PolicyCase& one : policies) {
            const auto factory = [&](const std::optional<Mask>& mask) {
                return [&one, shortcut, shrinks, out, mask]<class T, class Device>() {
                    sd::Initializer initializer(4);
                    using BranchType = Branch<T, Device>;
                    BranchType branch(
                        {.in_channels = 8, .planes = out / BranchType::expansion, .stride = shrinks ? 2 : 1},
                        initializer);
                    sd::StochasticResidual<BranchType> block(std::move(branch), one.policy,
                                                             make_shortcut<T, Device>(shortcut, out, initializer));
                    block.set_mask(mask);
                    return block;
                };
            };
            const std::string name =
                sd::text(branch_name, ", ", shortcut_names[static_cast<std::size_t>(shortcut)], ", ", one.name);
            for (const Mask& mask : one.masks) {
                const char* kept = mask == all ? "all kept" : mask == none ? "none kept" : "some kept";
                check(sd::text(name, ", ", kept), factory(mask), x_shape, GradcheckOptions{});
            }
            check(name + ", evaluation", factory({}), x_shape,
                  GradcheckOptions{.context = Context::eval({.gradients = true})});
        }
    }
}

/// Checks ConvNeXt's block: a layer scale that the join gathers the sums of, samples kept, dropped and mixed.
template <class Check>
void convnext_blocks(const Check& check) {
    for (const auto compute : {sd::Compute::all, sd::Compute::survivors}) {
        for (const Mask& mask : {Mask{1, 1, 1}, Mask{1, 0, 1}, Mask{0, 0, 0}}) {
            const auto factory = [compute, mask]<class T, class Device>() {
                sd::Initializer initializer(7);
                using Branch = sd::ConvNeXtBlock<T, Device>;
                sd::StochasticResidual<Branch, sd::SamplePolicy, sd::NoActivation> block(
                    Branch(5, 0.6, initializer), {.compute = compute, .scaling = sd::Scaling::train});
                // Of the network's own start values, those of weights make F nearly 0.
                sd::for_each_parameter(block, [](const std::string&, auto& parameter) {
                    if (parameter->value.shape().rank() % 2 == 0)
                        sd::scale_by(parameter->value, sd::accumulate_t<T>(20.0));
                });
                block.set_mask(mask);
                return block;
            };
            const auto kept = std::count(mask.begin(), mask.end(), 1);
            check(sd::text("convnext, sample ", sd::to_string(compute), ", ", kept, " of 3 kept"), factory,
                  Shape{3, 4, 5, 5}, GradcheckOptions{});
        }
    }
}

/// tanh: an activation of a user's own after the addition, on the CPU.
template <class T, class Device>
class TanhActivation {
public:
    Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context&) {
        using std::tanh;
        const Tensor<T> own = sd::to_host(x);
        y_ = Tensor<T>(x.shape());
        std::transform(own.begin(), own.end(), y_.begin(), [](const T& v) { return T(tanh(v)); });
        return sd::to_device<Device>(y_);
    }
    Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        const Tensor<T> own = sd::to_host(dy);
        Tensor<T> dx(dy.shape());
        std::transform(own.begin(), own.end(), y_.begin(), dx.begin(),
                       [](const T& g, const T& y) { return T(g * (T(1) - y * y)); });
        return sd::to_device<Device>(dx);
    }

private:
    Tensor<T> y_;
};

/// Checks a block with the activation: an identity whose samples are kept, dropped, and mixed.
template <template <class, class> class Activation, class Check>
void activations(const std::string& name, const Check& check) {
    for (const Mask& mask : {Mask{1, 1, 1}, Mask{1, 0, 1}, Mask{0, 0, 0}}) {
        const auto factory = [mask]<class T, class Device>() {
            sd::Initializer initializer(6);
            using Branch = sd::BasicBlock<T, Device>;
            sd::StochasticResidual<Branch, sd::SamplePolicy, Activation<T, Device>> block(
                Branch({.in_channels = 4, .planes = 4}, initializer), {.compute = sd::Compute::survivors});
            block.set_mask(mask);
            return block;
        };
        const auto kept = std::count(mask.begin(), mask.end(), 1);
        check(sd::text("basic, ", name, " after the addition, ", kept, " of 3 kept"), factory, Shape{3, 4, 5, 4},
              GradcheckOptions{});
    }
}
template <class, class>
using NoActivation = sd::NoActivation;

/// Networks of both stems, branches and methods, with masks that are drawn.
template <class Check>
void networks(const Check& check) {
    const auto bottleneck = []<class T, class Device>() {
        sd::BottleneckResNet<T, Device> model(
            {.layers = {1, 2}, .planes = {2, 3}, .stem_channels = 4, .stem = sd::Stem::imagenet},
            {.num_classes = 3, .seed = 5});
        sd::apply_stochastic_depth(model, {.stochastic_method = sd::StochasticMethod::sample, .drop_rate = 0.5});
        return model;
    };
    check("resnet, bottleneck, sample", bottleneck, Shape{4, 19, 17, 3}, GradcheckOptions{});
    const auto basic = []<class T, class Device>() {
        sd::BasicResNet<T, Device> model({.layers = {2, 2},
                                          .planes = {4, 6},
                                          .stem_channels = 4,
                                          .stem = sd::Stem::cifar,
                                          .shortcut = sd::ShortcutKind::pad},
                                         {.num_classes = 3, .seed = 5});
        sd::apply_stochastic_depth(model, {.target_layer_name = "ResNetBasicBlock", .drop_rate = 0.8});
        return model;
    };
    check("resnet, basic, block", basic, Shape{4, 6, 6, 3}, GradcheckOptions{});
    const auto convnext = []<class T, class Device>() {
        sd::ConvNeXt<T, Device> model({.layers = {1, 2}, .channels = {3, 4}, .patch = 2},
                                      {.num_classes = 3, .seed = 5, .layer_scale = 0.5});
        sd::for_each_parameter(model, [](const std::string&, auto& parameter) {
            if (parameter->value.shape().rank() % 2 == 0) sd::scale_by(parameter->value, sd::accumulate_t<T>(20.0));
        });
        sd::apply_stochastic_depth(model, sd::convnext_stochastic_depth(0.5));
        return model;
    };
    check("convnext, sample", convnext, Shape{4, 9, 8, 3}, GradcheckOptions{});
}

/// Blocks of EfficientNet and RegNet, with samples kept and dropped.
template <class Check>
void blocks_of_families(const Check& check) {
    const GradcheckOptions train;
    const GradcheckOptions eval{.context = Context::eval({.gradients = true})};
    const Shape x_shape{4, 5, 4, 8};
    const auto check_both = [&](const std::string& name, const auto& make) {
        check(name, make, x_shape, train);
        check(name + ", evaluation", make, x_shape, eval);
    };
    const auto efficientnet = [&](const std::string& name, const sd::MBConvOptions& options, sd::Compute compute) {
        check_both(name, [=]<class T, class Device>() {
            using Block = typename sd::EfficientNetModel<T, Device>::Block;
            sd::Initializer initializer(4);
            sd::MBConv<T, Device> branch(options, initializer);
            if (options.stride != 1) return Block(std::move(branch), sd::NoShortcut{});
            Block block(std::move(branch),
                        sd::SamplePolicy{.drop_rate = 0.3, .compute = compute, .scaling = sd::Scaling::train});
            block.set_mask(Mask{1, 0, 0, 1});
            return block;
        });
    };
    const auto all = sd::Compute::all;
    const auto survivors = sd::Compute::survivors;
    efficientnet("MBConv", {.expand_ratio = 2, .in_channels = 8, .out_channels = 8}, all);
    efficientnet("MBConv, expand ratio 1", {.expand_ratio = 1, .kernel = 5, .in_channels = 8, .out_channels = 8},
                 survivors);
    efficientnet("MBConv without a shortcut", {.expand_ratio = 2, .stride = 2, .in_channels = 8, .out_channels = 12},
                 all);
    efficientnet("FusedMBConv", {.fused = true, .expand_ratio = 2, .in_channels = 8, .out_channels = 8}, survivors);
    efficientnet("FusedMBConv, expand ratio 1", {.fused = true, .expand_ratio = 1, .in_channels = 8, .out_channels = 8},
                 all);
    const auto regnet = [&](const std::string& name, double se_ratio, Index stride) {
        check_both(name, [=]<class T, class Device>() {
            using Block = typename sd::RegNetModel<T, Device>::Block;
            sd::Initializer initializer(4);
            sd::Shortcut<T, Device> shortcut;
            if (stride != 1) shortcut = {sd::ProjectionShortcut<T, Device>(8, 8, stride, initializer), "proj"};
            sd::RegNetBranch<T, Device> branch(
                {.in_channels = 8, .out_channels = 8, .stride = stride, .group_width = 4, .se_ratio = se_ratio},
                initializer);
            Block block(std::move(branch), sd::SamplePolicy{.drop_rate = 0.3}, std::move(shortcut));
            block.set_mask(Mask{1, 0, 1, 1});
            return block;
        });
    };
    regnet("RegNetX block", 0, 1);
    regnet("RegNetY block with a projection", 0.25, 2);
}

template <class Check>
void all(const Check& check) {
    layers(check);
    blocks<sd::BasicBlock>("basic", check);
    blocks<sd::Bottleneck>("bottleneck", check);
    convnext_blocks(check);
    activations<NoActivation>("nothing", check);
    activations<TanhActivation>("tanh", check);
    blocks_of_families(check);
    networks(check);
}

}  // namespace gradcheck_cases
