// RegNet: a stem, four stages of bottleneck blocks of grouped convolutions, global average pooling, classifier.
//
//     x (N, H, W, 3) -> stem (3x3 convolution) -> trunk_output.block1 ... blockS -> mean over pixels -> fc -> (N, classes)
#pragma once

#include "sd/models/image_classifier.hpp"
#include "sd/models/regnet_branches.hpp"
#include "sd/nn/linear.hpp"
#include "sd/nn/pooling.hpp"
#include "sd/nn/shortcut.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

SD_NAMESPACE_BEGIN

/// A stage of a RegNet. Its first block has the stride.
struct RegNetStage {
    Index layers = 1;                  ///< blocks
    Index width = 32;                  ///< their output channels
    Index group_width = 16;            ///< channels of a group of their 3x3 convolutions
    Index stride = 2;                  ///< of the first block
    double bottleneck_multiplier = 1;  ///< width of 3x3 convolutions over the stage's width
};

/// The build of a RegNet.
struct RegNetArchitecture {
    std::vector<RegNetStage> stages = {};  ///< in forward order
    double se_ratio = 0;         ///< of squeeze-and-excitation, over a block's input channels; 0: none (RegNetX)
    Index stem_channels = 32;    ///< of the first convolution
    Index stem_stride = 2;       ///< of the same
    BatchNormOptions norm = {};  ///< of all batch norms
};

/// What a user chooses of a network with a given build.
struct RegNetOptions {
    Index num_classes = 1000;  ///< 1 or more
    std::uint64_t seed = 0;    ///< of the start values
    Index in_channels = 3;     ///< of the images
};

/// The stages of the design space's network with D blocks, of widths that grow linearly by wa from w0 and are quantised to
/// powers of wm times w0:
///
///     u_j = w0 + wa j,    s_j = round(log(u_j / w0) / log wm),    w_j = 8 round(w0 wm^s_j / 8),    0 <= j < D
///
/// Equal neighbours make a stage. Groups are as wide as group_width or the stage, and the stage's width is made a multiple
/// of them.
[[nodiscard]] inline std::vector<RegNetStage> regnet_stages(Index blocks, double w0, double wa, double wm,
                                                            Index group_width) {
    std::vector<RegNetStage> stages;
    for (Index j = 0; j < blocks; ++j) {
        const double exponent = std::nearbyint(std::log((w0 + wa * static_cast<double>(j)) / w0) / std::log(wm));
        const auto width = static_cast<Index>(8 * std::nearbyint(w0 * std::pow(wm, exponent) / 8));
        if (stages.empty() || stages.back().width != width) {
            stages.push_back({.layers = 0, .width = width, .group_width = std::min(group_width, width)});
        }
        ++stages.back().layers;
    }
    for (RegNetStage& stage : stages) {
        stage.width = make_divisible(static_cast<double>(stage.width), stage.group_width);
    }
    return stages;
}

/// A RegNet of blocks of one type, which is built from (branch, policy, shortcut). Where the shape changes the shortcut is a
/// projection; ReLU follows the addition. Names of parameters and buffers and start values are torchvision's.
template <class Block>
class RegNet : public ImageClassifier<RegNet<Block>, Block> {
    using Base = ImageClassifier<RegNet, Block>;
    friend Base;

public:
    using typename Base::Branch;
    using typename Base::Device;
    using typename Base::T;

    /// Throws std::invalid_argument if architecture or options do not fit together.
    RegNet(const RegNetArchitecture& architecture, const RegNetOptions& options)
        : RegNet(checked(architecture), options, Initializer(options.seed)) {}

private:
    static constexpr const char* name = "RegNet";

    using ConvRelu = ConvNormActivation<Activation::relu, T, Device>;

    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        visitor("stem", self.stem_);
        Base::for_each_block(self, [&](std::size_t stage, Index i, auto& block) {
            visitor(text("trunk_output.block", stage + 1, ".block", stage + 1, '-', i), block);
        });
        self.head_.visit(visitor);
    }

    RegNet(const RegNetArchitecture& a, const RegNetOptions& options, Initializer initializer)
        : layers_(detail::layers_of(a.stages)),
          stem_(conv_norm_activation<Activation::relu, T, Device>({.in_channels = options.in_channels,
                                                                   .out_channels = a.stem_channels,
                                                                   .kernel = 3,
                                                                   .stride = a.stem_stride,
                                                                   .norm = a.norm},
                                                                  initializer)),
          blocks_(build_blocks(a, initializer)),
          head_{named("avgpool", GlobalAvgPool<T, Device>()),
                named("fc", make_classifier(a.stages.back().width, options.num_classes, initializer))} {
        this->number_and_name();
    }

    static const RegNetArchitecture& checked(const RegNetArchitecture& a) {
        Base::expect_stages(detail::layers_of(a.stages));
        return a;
    }

    static std::vector<Block> build_blocks(const RegNetArchitecture& a, Initializer& initializer) {
        std::vector<Block> blocks;
        Index channels = a.stem_channels;
        for (const RegNetStage& stage : a.stages) {
            for (Index i = 0; i < stage.layers; ++i) {
                const Index stride = i == 0 ? stage.stride : 1;
                Shortcut<T, Device> shortcut;
                if (stride != 1 || channels != stage.width) {
                    shortcut = {ProjectionShortcut<T, Device>(channels, stage.width, stride, initializer, a.norm),
                                "proj"};
                }
                Branch branch({.in_channels = channels,
                               .out_channels = stage.width,
                               .stride = stride,
                               .group_width = stage.group_width,
                               .bottleneck_multiplier = stage.bottleneck_multiplier,
                               .se_ratio = a.se_ratio,
                               .norm = a.norm},
                              initializer);
                blocks.emplace_back(std::move(branch), typename Block::Policy{}, std::move(shortcut));
                channels = stage.width;
            }
        }
        return blocks;
    }

    // Weights from N(0, 0.01^2), biases 0.
    static Linear<T, Device> make_classifier(Index in_features, Index num_classes, Initializer& initializer) {
        using A = accumulate_t<T>;
        Linear<T, Device> linear(in_features, num_classes, initializer);
        linear.weight()->value = to_device<Device>(initializer.normal<A>({num_classes, in_features}, 0.01));
        linear.bias()->value.fill(A(0));
        return linear;
    }

    std::vector<Index> layers_;
    ConvRelu stem_;
    std::vector<Block> blocks_;
    Sequential<GlobalAvgPool<T, Device>, Linear<T, Device>> head_;
};

SD_NAMESPACE_END
