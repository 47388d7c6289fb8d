// Whole networks on a device: masks, logits, gradients, running statistics and parameters after some steps.
// KernelDevice is the device that the including unit tests. nvcc cannot compile the CPU's vector kernels, so what
// is compared with the CPU stands where no nvcc is needed.
#pragma once

#include "kernel_inputs.hpp"

#include "sd/training.hpp"

#include "sd/device/kernels.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace cuda_networks {

using sd::Index;
using sd_test::in_double;

template <class T, class Device>
using Network = sd::BasicResNet<T, Device>;

/// A small network with what the large ones have: stem with pooling or without, projections, zero channels.
template <class T, class Device>
Network<T, Device> network(sd::Stem stem, sd::ShortcutKind shortcut) {
    return {{.layers = {2, 2, 1}, .planes = {8, 16, 16}, .stem_channels = 8, .stem = stem, .shortcut = shortcut},
            {.num_classes = 10, .seed = 7}};
}

/// What a run of some steps leaves, in double: logits of each step, then gradients of the last one, parameters and
/// buffers, and the masks.
struct Trace {
    std::vector<sd::Tensor<double>> tensors;
    std::vector<sd::Mask> masks;
};

template <class T, class Device>
Trace train(Network<T, Device>& model, const sd::StochasticDepthOptions& options, int steps) {
    using A = sd::accumulate_t<T>;
    sd::set_warning_handler({});  // the network is small on purpose
    sd::apply_stochastic_depth(model, options);
    sd::Sgd<A, Device> optimizer(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 1e-3});
    Trace trace;
    for (int step = 0; step < steps; ++step) {
        const auto stream = static_cast<std::uint64_t>(step);
        sd::Tensor<T, Device> x;
        const auto images = sd_test::random_tensor<A>({6, 16, 16, 3}, stream);
        if constexpr (std::is_same_v<Device, sd::Cpu>) {
            x = images;
        } else {
            x = sd::converted<T>(sd::to_device<Device>(images));
        }
        const std::vector<Index> labels{1, 2, 3, 4, 5, 6};
        const std::span<const Index> classes(labels);
        optimizer.zero_grad();
        const auto logits = model.forward(x, sd::Context::train({.step = stream, .seed = 42}));
        trace.tensors.push_back(in_double(logits));
        model.backward(sd::cross_entropy_by_input(logits, classes, 0.1), sd::InputGradient::skipped);
        for (auto& block : model.blocks()) trace.masks.push_back(block.mask());
        optimizer.step();
    }
    sd::for_each_state(
        model,
        [&](const std::string&, const auto& parameter) {
            trace.tensors.push_back(in_double(parameter->value));
            if (parameter->has_grad) trace.tensors.push_back(in_double(parameter->grad));
        },
        [&]<class Buffer>(const std::string&, const Buffer& buffer) {
            if constexpr (!std::is_same_v<Buffer, std::int64_t>) trace.tensors.push_back(in_double(buffer));
        });
    const auto images = sd_test::random_tensor<A>({3, 16, 16, 3}, 99);
    if constexpr (std::is_same_v<Device, sd::Cpu>) {
        trace.tensors.push_back(in_double(model.forward(images, sd::Context::eval())));
    } else {
        const auto x = sd::converted<T>(sd::to_device<Device>(images));
        trace.tensors.push_back(in_double(model.forward(x, sd::Context::eval())));
    }
    return trace;
}

inline const std::vector<sd::StochasticDepthOptions>& methods() {
    using enum sd::StochasticMethod;
    static const std::vector<sd::StochasticDepthOptions> all = {
        {.target_layer_name = "ResNetBasicBlock", .stochastic_method = block, .drop_rate = 0},
        {.target_layer_name = "ResNetBasicBlock", .stochastic_method = block, .drop_rate = 0.7},
        {.target_layer_name = "ResNetBasicBlock", .stochastic_method = sample, .drop_rate = 0.7},
        {.target_layer_name = "ResNetBasicBlock",
         .stochastic_method = sample,
         .drop_rate = 0.7,
         .compute = sd::Compute::survivors,
         .scaling = sd::Scaling::train}};
    return all;
}

template <class T, class Device>
Trace run(std::size_t method, int steps) {
    const bool imagenet = method % 2 == 0;
    auto model = network<T, Device>(imagenet ? sd::Stem::imagenet : sd::Stem::cifar,
                                    imagenet ? sd::ShortcutKind::projection : sd::ShortcutKind::pad);
    return train(model, methods()[method], steps);
}

/// The score of a short run of the trainer.
template <class T, class Device, class Loader>
sd::Score fit(const Loader& loader) {
    auto model = network<T, Device>(sd::Stem::cifar, sd::ShortcutKind::pad);
    sd::apply_stochastic_depth(model, methods()[2]);
    sd::Sgd<sd::accumulate_t<T>, Device> optimizer(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9});
    sd::Trainer trainer(model, optimizer, loader, loader, {.max_duration = "2ba", .microbatches = 2});
    trainer.fit();
    return trainer.evaluate();
}

}  // namespace cuda_networks

TEST_CASE("device: the same run twice gives the same bits") {
    const auto first = cuda_networks::run<float, KernelDevice>(2, 2);
    const auto second = cuda_networks::run<float, KernelDevice>(2, 2);
    for (std::size_t i = 0; i < first.tensors.size(); ++i) {
        const auto& a = first.tensors[i];
        const auto& b = second.tensors[i];
        CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
    }
}
