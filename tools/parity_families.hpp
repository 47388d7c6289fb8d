// What parity cases of EfficientNet, ConvNeXt and RegNet are run through: blocks alone, and networks as their stages say.
#pragma once

#include "networks.hpp"

#include "sd/sd.hpp"

#include <nlohmann/json.hpp>

#include <string>
#include <type_traits>
#include <utility>

namespace parity {

using Json = nlohmann::json;

inline sd::BatchNormOptions norm_of(const Json& spec) {
    return {.eps = spec.at("bn_eps"), .momentum = spec.at("bn_momentum")};
}

/// The block of a case of op mbconv or fused_mbconv.
template <class T, class Device>
auto efficientnet_block(const Json& spec) {
    using Block = typename sd::EfficientNetModel<T, Device>::Block;
    const sd::MBConvOptions options{.fused = spec.at("op") == "fused_mbconv",
                                    .expand_ratio = spec.at("expand_ratio"),
                                    .kernel = spec.at("kernel"),
                                    .stride = spec.at("stride"),
                                    .in_channels = spec.at("input_channels"),
                                    .out_channels = spec.at("out_channels"),
                                    .norm = norm_of(spec)};
    sd::Initializer initializer(1);
    sd::MBConv<T, Device> branch(options, initializer);
    const bool adds = options.stride == 1 && options.in_channels == options.out_channels;
    return adds ? Block(std::move(branch)) : Block(std::move(branch), sd::NoShortcut{});
}

/// The block of a case of op cn_block.
template <class T, class Device>
auto convnext_block(const Json& spec) {
    sd::Initializer initializer(1);
    return typename sd::ConvNeXt<T, Device>::Block(sd::ConvNeXtBlock<T, Device>(spec.at("channels"), 1.0, initializer));
}

/// The block of a case of op reg_block.
template <class T, class Device>
auto regnet_block(const Json& spec) {
    const sd::RegNetBranchOptions options{
        .in_channels = spec.at("width_in"),
        .out_channels = spec.at("width_out"),
        .stride = spec.at("stride"),
        .group_width = spec.at("group_width"),
        .bottleneck_multiplier = spec.at("bottleneck_multiplier"),
        .se_ratio = spec.at("se_ratio").is_null() ? 0.0 : spec["se_ratio"].get<double>(),
        .norm = norm_of(spec)};
    sd::Initializer initializer(1);
    sd::Shortcut<T, Device> shortcut;
    if (options.stride != 1 || options.in_channels != options.out_channels) {
        shortcut = {sd::ProjectionShortcut<T, Device>(options.in_channels, options.out_channels, options.stride,
                                                      initializer, options.norm),
                    "proj"};
    }
    using Block = typename sd::RegNetModel<T, Device>::Block;
    return Block(sd::RegNetBranch<T, Device>(options, initializer), {}, std::move(shortcut));
}

/// Calls use(layer) with the squeeze-and-excitation of a case.
template <class T, class Device, class Use>
void with_squeeze_excitation(const Json& spec, sd::Index channels, const Use& use) {
    using sd::Activation;
    const auto with = [&]<Activation activation, Activation scale>() {
        sd::Initializer initializer(1);
        use(sd::SqueezeExcitation<T, Device, activation, scale>(channels, spec.at("squeeze_channels"), initializer));
    };
    const bool relu = spec.at("activation") == "relu";
    if (spec.at("scale_activation") == "hardsigmoid") {
        with.template operator()<Activation::relu, Activation::hardsigmoid>();
    } else if (relu) {
        with.template operator()<Activation::relu, Activation::sigmoid>();
    } else {
        with.template operator()<Activation::silu, Activation::sigmoid>();
    }
}

inline sd::EfficientNetArchitecture efficientnet_of(const Json& spec) {
    sd::EfficientNetArchitecture a{.stem_channels = spec.at("stages")[0].at("input_channels"), .norm = norm_of(spec)};
    if (!spec.at("last_channel").is_null()) a.head_channels = spec["last_channel"];
    for (const Json& stage : spec.at("stages")) {
        a.stages.push_back({.fused = stage.at("block") == "fused_mbconv",
                            .expand_ratio = stage.at("expand_ratio"),
                            .kernel = stage.at("kernel"),
                            .stride = stage.at("stride"),
                            .out_channels = stage.at("out_channels"),
                            .layers = stage.at("num_layers")});
    }
    return a;
}

inline sd::ConvNeXtArchitecture convnext_of(const Json& spec) {
    sd::ConvNeXtArchitecture a{.layers = {}, .channels = {}};
    for (const Json& stage : spec.at("stages")) {
        a.layers.push_back(stage.at("num_layers"));
        a.channels.push_back(stage.at("channels"));
    }
    return a;
}

inline sd::RegNetArchitecture regnet_of(const Json& spec) {
    sd::RegNetArchitecture a{.stem_channels = spec.at("stem_width"), .norm = norm_of(spec)};
    if (!spec.at("se_ratio").is_null()) a.se_ratio = spec["se_ratio"];
    for (const Json& stage : spec.at("stages")) {
        a.stages.push_back({.layers = stage.at("depth"),
                            .width = stage.at("width"),
                            .group_width = stage.at("group_width"),
                            .stride = stage.at("stride"),
                            .bottleneck_multiplier = stage.at("bottleneck_multiplier")});
    }
    return a;
}

/// Calls use(network) with the network of a case of a family that the library has, by its name or its stages; false if it
/// has no such family.
template <class T, class Device, class Use>
bool with_family(const Json& spec, const Use& use) {
    const std::string family = spec.at("family");
    if (family != "efficientnet" && family != "convnext" && family != "regnet") return false;
    const sd::Index classes = spec.at("classes");
    if (spec.contains("name")) {
        use(tools::make_network<T, Device>(spec["name"].get<std::string>(), {.num_classes = classes}));
    } else if (family == "efficientnet") {
        use(tools::make_network<T, Device>(efficientnet_of(spec), {.num_classes = classes}));
    } else if (family == "convnext") {
        use(tools::make_network<T, Device>(convnext_of(spec), {.num_classes = classes}));
    } else {
        use(tools::make_network<T, Device>(regnet_of(spec), {.num_classes = classes}));
    }
    return true;
}

}  // namespace parity
