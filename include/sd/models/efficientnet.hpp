// EfficientNet: a stem, stages of MBConv and FusedMBConv blocks, a 1x1 convolution, global average pooling, classifier.
//
//     x (N, H, W, 3) -> features.0 (3x3 convolution) -> features.1 ... features.S -> features.S+1 (1x1 convolution)
//       -> mean over pixels -> classifier.1 -> (N, classes)
#pragma once

#include "sd/models/efficientnet_branches.hpp"
#include "sd/models/image_classifier.hpp"
#include "sd/nn/linear.hpp"
#include "sd/nn/pooling.hpp"
#include "sd/stochastic_depth/stochastic_residual.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

SD_NAMESPACE_BEGIN

/// A stage of an EfficientNet. Its first block has the stride and the input's width, the others stride 1 and the output's.
struct EfficientNetStage {
    bool fused = false;       ///< of FusedMBConv blocks, else of MBConv blocks
    Index expand_ratio = 6;   ///< of its blocks
    Index kernel = 3;         ///< of its blocks
    Index stride = 1;         ///< of the first block
    Index out_channels = 16;  ///< of its blocks
    Index layers = 1;         ///< blocks
};

/// The build of an EfficientNet.
struct EfficientNetArchitecture {
    std::vector<EfficientNetStage> stages = {};  ///< in forward order
    Index stem_channels = 32;                    ///< of the first convolution
    Index stem_stride = 2;                       ///< of the same
    Index head_channels = 0;                     ///< of the last convolution; 0: four times the last stage's
    BatchNormOptions norm = {};                  ///< of all batch norms
};

/// What a user chooses of a network with a given build.
struct EfficientNetOptions {
    Index num_classes = 1000;  ///< 1 or more
    std::uint64_t seed = 0;    ///< of the start values
    Index in_channels = 3;     ///< of the images
};

/// An EfficientNet of blocks of one type, which is built from (branch, policy), or of (branch, NoShortcut) where the shape
/// changes. Names of parameters and buffers, their order and start values are torchvision's. It has no dropout of its own.
template <class Block>
class EfficientNet : public ImageClassifier<EfficientNet<Block>, Block> {
    using Base = ImageClassifier<EfficientNet, Block>;
    friend Base;

public:
    using typename Base::Branch;
    using typename Base::Device;
    using typename Base::T;

    /// Throws std::invalid_argument if architecture or options do not fit together.
    EfficientNet(const EfficientNetArchitecture& architecture, const EfficientNetOptions& options)
        : EfficientNet(checked(architecture), options, Initializer(options.seed)) {}

private:
    static constexpr const char* name = "EfficientNet";

    using ConvSilu = ConvNormActivation<Activation::silu, T, Device>;

    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        visitor("features.0", self.stem_);
        Base::for_each_block(self, [&](std::size_t stage, Index i, auto& block) {
            visitor(text("features.", stage + 1, '.', i), block);
        });
        visitor(text("features.", self.layers_.size() + 1), self.last_);
        self.head_.visit(visitor);
    }

    EfficientNet(const EfficientNetArchitecture& a, const EfficientNetOptions& options, Initializer initializer)
        : layers_(detail::layers_of(a.stages)),
          stem_(conv_norm_activation<Activation::silu, T, Device>({.in_channels = options.in_channels,
                                                                   .out_channels = a.stem_channels,
                                                                   .kernel = 3,
                                                                   .stride = a.stem_stride,
                                                                   .norm = a.norm},
                                                                  initializer)),
          blocks_(build_blocks(a, initializer)),
          last_(conv_norm_activation<Activation::silu, T, Device>(
              {.in_channels = a.stages.back().out_channels, .out_channels = head_channels(a), .norm = a.norm},
              initializer)),
          head_{named("avgpool", GlobalAvgPool<T, Device>()),
                named("classifier.1", make_classifier(head_channels(a), options.num_classes, initializer))} {
        this->number_and_name();
    }

    static const EfficientNetArchitecture& checked(const EfficientNetArchitecture& a) {
        Base::expect_stages(detail::layers_of(a.stages));
        return a;
    }
    static Index head_channels(const EfficientNetArchitecture& a) {
        return a.head_channels == 0 ? 4 * a.stages.back().out_channels : a.head_channels;
    }

    static std::vector<Block> build_blocks(const EfficientNetArchitecture& a, Initializer& initializer) {
        std::vector<Block> blocks;
        Index channels = a.stem_channels;
        for (const EfficientNetStage& stage : a.stages) {
            for (Index i = 0; i < stage.layers; ++i) {
                const MBConvOptions options{.fused = stage.fused,
                                            .expand_ratio = stage.expand_ratio,
                                            .kernel = stage.kernel,
                                            .stride = i == 0 ? stage.stride : 1,
                                            .in_channels = channels,
                                            .out_channels = stage.out_channels,
                                            .norm = a.norm};
                Branch branch(options, initializer);
                if (options.stride == 1 && channels == stage.out_channels) {
                    blocks.emplace_back(std::move(branch));
                } else {
                    blocks.emplace_back(std::move(branch), NoShortcut{});
                }
                channels = stage.out_channels;
            }
        }
        return blocks;
    }

    // The last convolution belongs to the features, as in torchvision and timm.
    [[nodiscard]] std::size_t body_size() const { return blocks_.size() + 1; }
    template <class Use>
    void with_body_part(std::size_t i, const Use& use) {
        if (i < blocks_.size()) {
            use(blocks_[i]);
        } else {
            use(last_);
        }
    }

    // Weights from U(-1 / sqrt(classes), 1 / sqrt(classes)), biases 0.
    static Linear<T, Device> make_classifier(Index in_features, Index num_classes, Initializer& initializer) {
        using A = accumulate_t<T>;
        Linear<T, Device> linear(in_features, num_classes, initializer);
        const double bound = 1 / std::sqrt(static_cast<double>(num_classes));
        linear.weight()->value = to_device<Device>(initializer.uniform<A>({num_classes, in_features}, bound));
        linear.bias()->value.fill(A(0));
        return linear;
    }

    std::vector<Index> layers_;
    ConvSilu stem_;
    std::vector<Block> blocks_;
    ConvSilu last_;
    Sequential<GlobalAvgPool<T, Device>, Linear<T, Device>> head_;
};

SD_NAMESPACE_END
