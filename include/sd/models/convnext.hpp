// ConvNeXt: patches, stages of blocks with downsampling between them, global average pooling, classifier.
//
//     x (N, H, W, 3) -> patches, layer norm -> stage 1 -> layer norm, 2x2/2 convolution -> stage 2 ... stage S
//       -> mean over pixels -> layer norm -> linear -> (N, classes)
#pragma once

#include "sd/models/convnext_branches.hpp"
#include "sd/models/image_classifier.hpp"
#include "sd/nn/linear.hpp"
#include "sd/nn/pooling.hpp"
#include "sd/stochastic_depth/stochastic_residual.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

SD_NAMESPACE_BEGIN

/// The build of a ConvNeXt.
struct ConvNeXtArchitecture {
    std::vector<Index> layers = {3, 3, 9, 3};           ///< blocks of each stage
    std::vector<Index> channels = {96, 192, 384, 768};  ///< of each stage; stages after the first halve the image
    Index patch = 4;                                    ///< side of the stem's patches, which do not overlap
};

/// What a user chooses of a network with a given build.
struct ConvNeXtOptions {
    Index num_classes = 1000;   ///< 1 or more
    std::uint64_t seed = 0;     ///< of the start values
    double layer_scale = 1e-6;  ///< start value of every block's layer scale
    Index in_channels = 3;      ///< of the images
};

/// A ConvNeXt, of blocks whose branches can be dropped. Nothing follows a block's addition. Names of parameters, their
/// order and start values are torchvision's. Z. Liu et al., "A ConvNet for the 2020s", CVPR 2022.
template <class T, class Device = Cpu>
class ConvNeXt : public ImageClassifier<ConvNeXt<T, Device>,
                                        StochasticResidual<ConvNeXtBlock<T, Device>, AnyPolicy, NoActivation>> {
    using Base = ImageClassifier<ConvNeXt, StochasticResidual<ConvNeXtBlock<T, Device>, AnyPolicy, NoActivation>>;
    friend Base;
    using A = accumulate_t<T>;
    using Conv = Conv2d<T, Device>;
    using Norm = LayerNorm2d<T, Device>;

public:
    using typename Base::Block;

    /// Throws std::invalid_argument if architecture or options do not fit together.
    ConvNeXt(const ConvNeXtArchitecture& architecture, const ConvNeXtOptions& options)
        : ConvNeXt(checked(architecture), options, Initializer(options.seed)) {}

private:
    using Classifier = Sequential<Norm, Linear<T, Device>>;

    static constexpr const char* name = "ConvNeXt";

    ConvNeXt(const ConvNeXtArchitecture& architecture, const ConvNeXtOptions& options, Initializer initializer)
        : layers_(architecture.layers),
          stem_{named("0", patches(options.in_channels, architecture.channels[0], architecture.patch, initializer)),
                named("1", Norm(architecture.channels[0]))},
          blocks_(build_blocks(architecture, options, initializer)),
          downsampling_(build_downsampling(architecture, initializer)),
          head_{named("avgpool", GlobalAvgPool<T, Device>()),
                named("classifier", Classifier{named("0", Norm(architecture.channels.back())),
                                               named("2", make_classifier(architecture.channels.back(),
                                                                          options.num_classes, initializer))})} {
        this->number_and_name();
    }

    static const ConvNeXtArchitecture& checked(const ConvNeXtArchitecture& a) {
        Base::expect_stages(a.layers);
        if (a.channels.size() != a.layers.size()) {
            refuse(name, "entries of channels", a.channels.size(), text(a.layers.size(), ", one a stage"));
        }
        for (const Index channels : a.channels) {
            if (channels < 1) refuse(name, "channels of a stage", channels, "1 or more");
        }
        if (a.patch < 1) refuse(name, "patch", a.patch, "1 or more");
        return a;
    }

    static Conv patches(Index in_channels, Index out_channels, Index size, Initializer& initializer) {
        if (in_channels < 1) refuse(name, "in_channels", in_channels, "1 or more");
        return Conv(initializer.normal<A>({out_channels, in_channels, size, size}, detail::convnext_deviation),
                    {.stride = size, .bias = true});
    }
    static std::vector<Block> build_blocks(const ConvNeXtArchitecture& architecture, const ConvNeXtOptions& options,
                                           Initializer& initializer) {
        std::vector<Block> blocks;
        for (std::size_t stage = 0; stage < architecture.layers.size(); ++stage) {
            for (Index i = 0; i < architecture.layers[stage]; ++i) {
                blocks.emplace_back(
                    typename Block::Branch(architecture.channels[stage], options.layer_scale, initializer));
            }
        }
        return blocks;
    }
    /// What leads from each stage to the next.
    static std::vector<Sequential<Norm, Conv>> build_downsampling(const ConvNeXtArchitecture& architecture,
                                                                  Initializer& initializer) {
        std::vector<Sequential<Norm, Conv>> layers;
        for (std::size_t stage = 1; stage < architecture.layers.size(); ++stage) {
            const Index channels = architecture.channels[stage - 1];
            layers.emplace_back(
                Sequential{named("0", Norm(channels)),
                           named("1", patches(channels, architecture.channels[stage], 2, initializer))});
        }
        return layers;
    }

    [[nodiscard]] std::size_t body_size() const { return blocks_.size() + downsampling_.size(); }
    /// The blocks of a stage, and what leads to the next one.
    template <class Use>
    void with_body_part(std::size_t i, const Use& use) {
        std::size_t block = 0;
        for (std::size_t stage = 0;; ++stage) {
            const auto blocks = static_cast<std::size_t>(layers_[stage]);
            if (i < blocks) return use(blocks_[block + i]);
            if (i == blocks) return use(downsampling_[stage]);
            i -= blocks + 1;
            block += blocks;
        }
    }

    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        visitor("features.0", self.stem_);
        Base::for_each_block(self, [&](std::size_t stage, Index i, auto& block) {
            if (stage > 0 && i == 0) visitor(text("features.", 2 * stage), self.downsampling_[stage - 1]);
            visitor(text("features.", 2 * stage + 1, '.', i), block);
        });
        self.head_.visit(visitor);
    }

    static Linear<T, Device> make_classifier(Index in_features, Index num_classes, Initializer& initializer) {
        return {initializer.normal<A>({num_classes, in_features}, detail::convnext_deviation),
                Tensor<A>(Shape{num_classes})};
    }
    Linear<T, Device>& classifier() { return head_.template layer<1>().template layer<1>(); }
    [[nodiscard]] const Linear<T, Device>& classifier() const { return head_.template layer<1>().template layer<1>(); }

    std::vector<Index> layers_;
    Sequential<Conv, Norm> stem_;
    std::vector<Block> blocks_;
    std::vector<Sequential<Norm, Conv>> downsampling_;
    Sequential<GlobalAvgPool<T, Device>, Classifier> head_;
};

SD_NAMESPACE_END
