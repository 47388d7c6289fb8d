// Residual networks: stem, stages of blocks, global average pooling, classifier.
//
//     x (N, H, W, 3) -> conv1, bn1, ReLU [-> 3x3/2 max pool] -> layer1 ... layerS -> mean over pixels -> fc
//       -> (N, classes)
#pragma once

#include "sd/models/image_classifier.hpp"
#include "sd/models/resnet_branches.hpp"
#include "sd/nn/linear.hpp"
#include "sd/nn/optional_layer.hpp"
#include "sd/nn/pooling.hpp"
#include "sd/nn/shortcut.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

SD_NAMESPACE_BEGIN

/// How a network begins.
enum class Stem {
    imagenet,  ///< 7x7 convolution with stride 2, then 3x3 max pooling with stride 2
    cifar      ///< 3x3 convolution
};

/// What a block's shortcut does where the shape changes.
enum class ShortcutKind {
    projection,  ///< 1x1 convolution and batch norm
    pad  ///< 2x2 average pooling and zero channels where the stride is 2, a projection where only channels change
};

/// The build of a residual network.
struct ResNetArchitecture {
    std::vector<Index> layers = {3, 4, 6, 3};          ///< blocks of each stage
    std::vector<Index> planes = {64, 128, 256, 512};   ///< width of each stage; stages after the first halve the image
    Index stem_channels = 64;                          ///< of conv1
    Stem stem = Stem::imagenet;                        ///< how images become the first stage's input
    ShortcutKind shortcut = ShortcutKind::projection;  ///< where a block's shape changes
    Index groups = 1;                                  ///< of 3x3 convolutions (ResNeXt)
    Index width_per_group = 64;                        ///< 64 is the plain network's width

    /// For each stage, whether dilation takes the place of its stride; empty: nowhere. The first stage has no stride.
    std::vector<bool> replace_stride_with_dilation = {};
};

/// What a user chooses of a network with a given build.
struct ResNetOptions {
    Index num_classes = 1000;         ///< 1 or more
    std::uint64_t seed = 0;           ///< of the start values
    bool zero_init_residual = false;  ///< every block starts as its shortcut (P. Goyal et al., 2017)
    Index in_channels = 3;            ///< of the images
};

/// A residual network of blocks of one type. Block is built from (branch, policy, shortcut) and has Block::Branch.
/// Names of parameters and buffers, their order and start values are torchvision's.
template <class Block>
class ResNet : public ImageClassifier<ResNet<Block>, Block> {
    using Base = ImageClassifier<ResNet, Block>;
    friend Base;

public:
    using typename Base::Branch;
    using typename Base::Device;
    using typename Base::T;

    /// Throws std::invalid_argument if architecture or options do not fit together.
    ResNet(const ResNetArchitecture& architecture, const ResNetOptions& options)
        : ResNet(checked(architecture), options, Initializer(options.seed)) {}

private:
    static constexpr const char* name = "ResNet";

    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        self.stem_.visit(visitor);
        Base::for_each_block(
            self, [&](std::size_t stage, Index i, auto& block) { visitor(text("layer", stage + 1, '.', i), block); });
        self.head_.visit(visitor);
    }

    ResNet(const ResNetArchitecture& architecture, const ResNetOptions& options, Initializer initializer)
        : layers_(architecture.layers),
          stem_(build_stem(architecture.stem, options.in_channels, architecture.stem_channels, initializer)),
          blocks_(build_blocks(architecture, options, initializer)),
          head_{named("avgpool", GlobalAvgPool<T, Device>()),
                named("fc", make_classifier(architecture.planes.back() * Branch::expansion, options.num_classes,
                                            initializer))} {
        this->number_and_name();
    }

    static const ResNetArchitecture& checked(const ResNetArchitecture& a) {
        Base::expect_stages(a.layers);
        if (a.planes.size() != a.layers.size()) {
            refuse("ResNet", "entries of planes", a.planes.size(), text(a.layers.size(), ", one a stage"));
        }
        for (const Index planes : a.planes) {
            if (planes < 1) refuse("ResNet", "planes of a stage", planes, "1 or more");
        }
        const auto& dilate = a.replace_stride_with_dilation;
        if (!dilate.empty() && dilate.size() != a.layers.size()) {
            refuse("ResNet", "entries of replace_stride_with_dilation", dilate.size(), text("0 or ", a.layers.size()));
        }
        return a;
    }

    using StemLayers = Sequential<Conv2d<T, Device>, BatchNorm2d<T, Device>, Relu<T, Device>,  //
                                  OptionalLayer<MaxPool2d<T, Device>>>;

    static StemLayers build_stem(Stem stem, Index in_channels, Index channels, Initializer& initializer) {
        OptionalLayer<MaxPool2d<T, Device>> max_pool;
        if (stem == Stem::imagenet) max_pool = MaxPool2d<T, Device>({.kernel = 3, .stride = 2, .padding = 1});
        const Conv2dOptions window =
            stem == Stem::imagenet ? Conv2dOptions{.stride = 2, .padding = 3} : Conv2dOptions{.padding = 1};
        return StemLayers{named("conv1", Conv2d<T, Device>(in_channels, channels, stem == Stem::imagenet ? 7 : 3,
                                                           window, initializer)),
                          named("bn1", BatchNorm2d<T, Device>(channels)), named("relu", Relu<T, Device>()),
                          named("maxpool", std::move(max_pool))};
    }

    static Linear<T, Device> make_classifier(Index in_features, Index num_classes, Initializer& initializer) {
        return {in_features, num_classes, initializer};
    }

    static std::vector<Block> build_blocks(const ResNetArchitecture& architecture, const ResNetOptions& options,
                                           Initializer& initializer) {
        std::vector<Block> blocks;
        Index channels = architecture.stem_channels;
        Index dilation = 1;
        for (std::size_t stage = 0; stage < architecture.layers.size(); ++stage) {
            const Index stage_stride = stage == 0 ? 1 : 2;
            const auto& dilate = architecture.replace_stride_with_dilation;
            const bool dilated = !dilate.empty() && dilate[stage];
            // A dilated stage keeps the image's size; its first block still has the dilation of the stage before.
            const Index first_dilation = dilation;
            if (dilated) dilation *= stage_stride;
            for (Index i = 0; i < architecture.layers[stage]; ++i) {
                const BranchOptions branch{.in_channels = channels,
                                           .planes = architecture.planes[stage],
                                           .stride = i == 0 && !dilated ? stage_stride : 1,
                                           .dilation = i == 0 ? first_dilation : dilation,
                                           .groups = architecture.groups,
                                           .width_per_group = architecture.width_per_group,
                                           .zero_init_residual = options.zero_init_residual};
                const Index out_channels = branch.planes * Branch::expansion;
                Branch transform(branch, initializer);
                blocks.emplace_back(
                    std::move(transform), typename Block::Policy{},
                    build_shortcut(architecture.shortcut, channels, out_channels, branch.stride, initializer));
                channels = out_channels;
            }
        }
        return blocks;
    }

    static Shortcut<T, Device> build_shortcut(ShortcutKind kind, Index in_channels, Index out_channels, Index stride,
                                              Initializer& initializer) {
        if (stride == 1 && in_channels == out_channels) return {};
        if (kind == ShortcutKind::pad && stride == 2) return PadShortcut<T, Device>(in_channels, out_channels);
        return ProjectionShortcut<T, Device>(in_channels, out_channels, stride, initializer);
    }

    std::vector<Index> layers_;
    StemLayers stem_;
    std::vector<Block> blocks_;
    Sequential<GlobalAvgPool<T, Device>, Linear<T, Device>> head_;
};

SD_NAMESPACE_END
