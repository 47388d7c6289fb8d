// Networks by name, for the command line.
#pragma once

#include "sd/sd.hpp"

#include <string>
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
                                                   "cifar_bottleneck_resnet164"};
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
    for (const std::string& known : network_names()) {
        if (name != known) continue;
        const std::string basic = "cifar_resnet";
        if (name.starts_with(basic)) return build(sd::cifar_resnet<T, Device>(depth_after(basic), options));
        return build(sd::cifar_bottleneck_resnet<T, Device>(depth_after("cifar_bottleneck_resnet"), options));
    }
    sd::refuse("network", "model", name, "a known name");
}

}  // namespace tools
