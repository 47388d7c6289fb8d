// Networks by name, for the command line.
#pragma once

#include "any_network.hpp"

#include "sd/sd.hpp"

#include <string>
#include <utility>
#include <vector>

namespace tools {

/// All names that with_network takes.
inline const std::vector<std::string>& network_names() {
    static const std::vector<std::string> names = {"resnet18",
                                                   "resnet34",
                                                   "resnet50",
                                                   "resnet101",
                                                   "resnet152",
                                                   "resnext50_32x4d",
                                                   "resnext101_32x8d",
                                                   "wide_resnet50_2",
                                                   "wide_resnet101_2",
                                                   "cifar_resnet20",
                                                   "cifar_resnet32",
                                                   "cifar_resnet44",
                                                   "cifar_resnet56",
                                                   "cifar_resnet110",
                                                   "cifar_resnet1202",
                                                   "cifar_bottleneck_resnet29",
                                                   "cifar_bottleneck_resnet56",
                                                   "cifar_bottleneck_resnet110",
                                                   "cifar_bottleneck_resnet164",
                                                   "convnext_tiny",
                                                   "convnext_small",
                                                   "convnext_base",
                                                   "convnext_large",
                                                   "cifar_convnext",
                                                   "efficientnet_b0",
                                                   "efficientnet_b1",
                                                   "efficientnet_b2",
                                                   "efficientnet_b3",
                                                   "efficientnet_b4",
                                                   "efficientnet_b5",
                                                   "efficientnet_b6",
                                                   "efficientnet_b7",
                                                   "efficientnet_v2_s",
                                                   "efficientnet_v2_m",
                                                   "efficientnet_v2_l",
                                                   "cifar_efficientnet",
                                                   "regnet_x_400mf",
                                                   "regnet_x_800mf",
                                                   "regnet_x_1_6gf",
                                                   "regnet_x_3_2gf",
                                                   "regnet_x_8gf",
                                                   "regnet_x_16gf",
                                                   "regnet_x_32gf",
                                                   "regnet_y_400mf",
                                                   "regnet_y_800mf",
                                                   "regnet_y_1_6gf",
                                                   "regnet_y_3_2gf",
                                                   "regnet_y_8gf",
                                                   "regnet_y_16gf",
                                                   "regnet_y_32gf",
                                                   "regnet_y_128gf",
                                                   "cifar_regnet"};
    return names;
}

/// Builds the named network and returns use(network). Throws std::invalid_argument for an unknown name.
template <class T, class Device = sd::Cpu, class Use>
auto with_network(const std::string& name, const sd::ResNetOptions& options, const Use& use) {
    const auto build = [&](auto&& network) { return use(network); };
    const auto depth_after = [&](const std::string& prefix) { return std::stol(name.substr(prefix.size())); };
    if (name == "resnet18") return build(sd::resnet18<T, Device>(options));
    if (name == "resnet34") return build(sd::resnet34<T, Device>(options));
    if (name == "resnet50") return build(sd::resnet50<T, Device>(options));
    if (name == "resnet101") return build(sd::resnet101<T, Device>(options));
    if (name == "resnet152") return build(sd::resnet152<T, Device>(options));
    if (name == "resnext50_32x4d") return build(sd::resnext50_32x4d<T, Device>(options));
    if (name == "resnext101_32x8d") return build(sd::resnext101_32x8d<T, Device>(options));
    if (name == "wide_resnet50_2") return build(sd::wide_resnet50_2<T, Device>(options));
    if (name == "wide_resnet101_2") return build(sd::wide_resnet101_2<T, Device>(options));
    const sd::ConvNeXtOptions of_convnext{.num_classes = options.num_classes, .seed = options.seed};
    if (name == "convnext_tiny") return build(sd::convnext_tiny<T, Device>(of_convnext));
    if (name == "convnext_small") return build(sd::convnext_small<T, Device>(of_convnext));
    if (name == "convnext_base") return build(sd::convnext_base<T, Device>(of_convnext));
    if (name == "convnext_large") return build(sd::convnext_large<T, Device>(of_convnext));
    if (name == "cifar_convnext") return build(sd::cifar_convnext<T, Device>(of_convnext));
    const sd::EfficientNetOptions efficient{options.num_classes, options.seed, options.in_channels};
    if (name == "efficientnet_b0") return build(sd::efficientnet_b0<T, Device>(efficient));
    if (name == "efficientnet_b1") return build(sd::efficientnet_b1<T, Device>(efficient));
    if (name == "efficientnet_b2") return build(sd::efficientnet_b2<T, Device>(efficient));
    if (name == "efficientnet_b3") return build(sd::efficientnet_b3<T, Device>(efficient));
    if (name == "efficientnet_b4") return build(sd::efficientnet_b4<T, Device>(efficient));
    if (name == "efficientnet_b5") return build(sd::efficientnet_b5<T, Device>(efficient));
    if (name == "efficientnet_b6") return build(sd::efficientnet_b6<T, Device>(efficient));
    if (name == "efficientnet_b7") return build(sd::efficientnet_b7<T, Device>(efficient));
    if (name == "efficientnet_v2_s") return build(sd::efficientnet_v2_s<T, Device>(efficient));
    if (name == "efficientnet_v2_m") return build(sd::efficientnet_v2_m<T, Device>(efficient));
    if (name == "efficientnet_v2_l") return build(sd::efficientnet_v2_l<T, Device>(efficient));
    if (name == "cifar_efficientnet") return build(sd::cifar_efficientnet<T, Device>(efficient));
    const sd::RegNetOptions reg{options.num_classes, options.seed, options.in_channels};
    if (name == "regnet_x_400mf") return build(sd::regnet_x_400mf<T, Device>(reg));
    if (name == "regnet_x_800mf") return build(sd::regnet_x_800mf<T, Device>(reg));
    if (name == "regnet_x_1_6gf") return build(sd::regnet_x_1_6gf<T, Device>(reg));
    if (name == "regnet_x_3_2gf") return build(sd::regnet_x_3_2gf<T, Device>(reg));
    if (name == "regnet_x_8gf") return build(sd::regnet_x_8gf<T, Device>(reg));
    if (name == "regnet_x_16gf") return build(sd::regnet_x_16gf<T, Device>(reg));
    if (name == "regnet_x_32gf") return build(sd::regnet_x_32gf<T, Device>(reg));
    if (name == "regnet_y_400mf") return build(sd::regnet_y_400mf<T, Device>(reg));
    if (name == "regnet_y_800mf") return build(sd::regnet_y_800mf<T, Device>(reg));
    if (name == "regnet_y_1_6gf") return build(sd::regnet_y_1_6gf<T, Device>(reg));
    if (name == "regnet_y_3_2gf") return build(sd::regnet_y_3_2gf<T, Device>(reg));
    if (name == "regnet_y_8gf") return build(sd::regnet_y_8gf<T, Device>(reg));
    if (name == "regnet_y_16gf") return build(sd::regnet_y_16gf<T, Device>(reg));
    if (name == "regnet_y_32gf") return build(sd::regnet_y_32gf<T, Device>(reg));
    if (name == "regnet_y_128gf") return build(sd::regnet_y_128gf<T, Device>(reg));
    if (name == "cifar_regnet") return build(sd::cifar_regnet<T, Device>(reg));
    for (const std::string& known : network_names()) {
        if (name != known) continue;
        const std::string basic = "cifar_resnet";
        if (name.starts_with(basic)) return build(sd::cifar_resnet<T, Device>(depth_after(basic), options));
        return build(sd::cifar_bottleneck_resnet<T, Device>(depth_after("cifar_bottleneck_resnet"), options));
    }
    sd::refuse("network", "model", name, "a known name");
}

/// The named network. Throws std::invalid_argument for an unknown name.
template <class T, class Device = sd::Cpu>
AnyNetwork<T, Device> make_network(const std::string& name, const sd::ResNetOptions& options) {
    return with_network<T, Device>(name, options,
                                   [](auto& network) { return AnyNetwork<T, Device>(std::move(network)); });
}

/// A network of this build.
template <class T, class Device = sd::Cpu>
AnyNetwork<T, Device> make_network(const sd::ResNetArchitecture& architecture, bool has_bottlenecks,
                                   const sd::ResNetOptions& options) {
    if (has_bottlenecks) return AnyNetwork<T, Device>(sd::BottleneckResNet<T, Device>(architecture, options));
    return AnyNetwork<T, Device>(sd::BasicResNet<T, Device>(architecture, options));
}
/// A network of this build.
template <class T, class Device = sd::Cpu>
AnyNetwork<T, Device> make_network(const sd::ConvNeXtArchitecture& architecture, const sd::ConvNeXtOptions& options) {
    return AnyNetwork<T, Device>(sd::ConvNeXt<T, Device>(architecture, options));
}
/// A network of this build.
template <class T, class Device = sd::Cpu>
AnyNetwork<T, Device> make_network(const sd::EfficientNetArchitecture& architecture,
                                   const sd::EfficientNetOptions& options) {
    return AnyNetwork<T, Device>(sd::EfficientNetModel<T, Device>(architecture, options));
}
/// A network of this build.
template <class T, class Device = sd::Cpu>
AnyNetwork<T, Device> make_network(const sd::RegNetArchitecture& architecture, const sd::RegNetOptions& options) {
    return AnyNetwork<T, Device>(sd::RegNetModel<T, Device>(architecture, options));
}

}  // namespace tools

#if defined(SD_TOOLS_COMPILED_NETWORKS)
#include "compiled/networks.hpp"
#endif
