// Residual networks: stem, stages of blocks, global average pooling, classifier.
//
//     x (N, H, W, 3) -> conv1, bn1, ReLU [-> 3x3/2 max pool] -> layer1 ... layerS -> mean over pixels -> fc
//       -> (N, classes)
#pragma once

#include "sd/models/resnet_branches.hpp"
#include "sd/nn/freeze.hpp"
#include "sd/nn/linear.hpp"
#include "sd/nn/optional_layer.hpp"
#include "sd/nn/pooling.hpp"
#include "sd/nn/shortcut.hpp"
#include "sd/nn/skip_gradients.hpp"

#include <algorithm>
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

/// What a user chooses of a new classifier.
struct ClassifierOptions {
    std::uint64_t seed = 0;  ///< of the start values
};

/// A residual network of blocks of one type. Block is built from (branch, policy, shortcut) and has Block::Branch.
/// Names of parameters and buffers, their order and start values are torchvision's.
template <class Block>
class ResNet {
public:
    /// The residual branch of the blocks.
    using Branch = typename Block::Branch;
    using value_type = typename Block::value_type;
    using device_type = typename Block::device_type;
    using T = value_type;
    using Device = device_type;

    /// Throws std::invalid_argument if architecture or options do not fit together.
    ResNet(const ResNetArchitecture& architecture, const ResNetOptions& options)
        : ResNet(checked(architecture), options, Initializer(options.seed)) {}

    /// Logits (N, num_classes) of images x (N, H, W, in_channels). A pass without gradients, Context::eval(), writes
    /// nothing in the network: several threads may share one, as long as none trains it meanwhile.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return forward_head(forward_features(x, context), context);
    }

    /// The last block's output (N, H', W', C) of images x (N, H, W, in_channels): what the classifier pools, as
    /// timm's function of that name, but NHWC.
    [[nodiscard]] Tensor<T, Device> forward_features(const Tensor<T, Device>& x, const Context& context) {
        expect_rank("ResNet", "x", x.shape(), 4);
        expect_shape("ResNet", "channels of x", Shape{x.extent(3)}, {in_channels()});
        if (context.gradients()) forget_passes(*this);
        const Context own = context.of_network();
        Tensor<T, Device> y = stem_.forward(x, own);
        for (Block& block : blocks_) y = block.forward(y, own);
        return y;
    }

    /// Logits (N, num_classes) of features (N, H', W', C): their mean over the pixels through the classifier.
    [[nodiscard]] Tensor<T, Device> forward_head(const Tensor<T, Device>& features, const Context& context) {
        return fc_.forward(avgpool_.forward(features, context), context);
    }

    /// Adds the gradients of all parameters that took part and returns the gradient by x, or an undefined tensor if it
    /// is not asked for.
    Tensor<T, Device> backward(const Tensor<T, Device>& dlogits,
                               InputGradient input_gradient = InputGradient::computed) {
        return backward_features(avgpool_.backward(fc_.backward(dlogits)), input_gradient);
    }

    /// The same after forward_features alone, of the gradient by the features.
    Tensor<T, Device> backward_features(const Tensor<T, Device>& dfeatures,
                                        InputGradient input_gradient = InputGradient::computed) {
        const std::size_t frozen = input_gradient == InputGradient::computed ? 0 : frozen_parts();
        Tensor<T, Device> dy = dfeatures;
        for (std::size_t part = blocks_.size(); part >= std::max<std::size_t>(frozen, 1); --part) {
            dy = blocks_[part - 1].backward(dy);
        }
        if (frozen > 0) {
            for (std::size_t part = frozen - 1; part > 0; --part) skip_gradients(blocks_[part - 1]);
            skip_gradients(stem_);
            return {};
        }
        return stem_.backward(dy, input_gradient);
    }

    /// How many classes the logits are of.
    [[nodiscard]] Index num_classes() const { return fc_.bias()->value.size(); }

    /// Replaces the classifier by a new one for this many classes, with fresh start values. Its parameters are new,
    /// with the old names, and not frozen. Make optimizers and trainers afterwards: older ones hold the old parameters.
    /// Throws std::invalid_argument, with nothing changed, for fewer than one class.
    void reset_classifier(Index num_classes, const ClassifierOptions& options = {}) {
        if (num_classes < 1) refuse("reset_classifier", "num_classes", num_classes, "1 or more");
        Initializer initializer(options.seed);
        fc_ = Linear<T, Device>(fc_.weight()->value.extent(1), num_classes, initializer);
        name_parameters(*this);
    }

    /// All blocks in forward order.
    [[nodiscard]] std::vector<Block>& blocks() { return blocks_; }
    /// The same, read only.
    [[nodiscard]] const std::vector<Block>& blocks() const { return blocks_; }

    /// All parameters, in torchvision's order.
    [[nodiscard]] ParameterList<accumulate_t<T>, Device> parameters() {
        ParameterList<accumulate_t<T>, Device> list;
        for_each_parameter(*this, [&](const std::string&, auto& parameter) { list.push_back(parameter); });
        return list;
    }

    /// How many numbers are trained.
    [[nodiscard]] Index parameter_count() {
        Index count = 0;
        for_each_parameter(*this, [&](const std::string&, auto& parameter) { count += parameter->value.size(); });
        return count;
    }

    /// Names conv1, bn1, the blocks (layer1.0, ...) and fc, in forward order.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visit_members(*this, visitor);
    }
    /// The same, read only.
    template <class Visitor>
    void visit(Visitor&& visitor) const {
        visit_members(*this, visitor);
    }

private:
    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        self.stem_.visit(visitor);
        std::size_t block = 0;
        for (std::size_t stage = 0; stage < self.layers_.size(); ++stage) {
            for (Index i = 0; i < self.layers_[stage]; ++i)
                visitor(text("layer", stage + 1, '.', i), self.blocks_[block++]);
        }
        visitor("fc", self.fc_);
    }

    ResNet(const ResNetArchitecture& architecture, const ResNetOptions& options, Initializer initializer)
        : layers_(architecture.layers),
          stem_(build_stem(architecture.stem, options.in_channels, architecture.stem_channels, initializer)),
          blocks_(build_blocks(architecture, options, initializer)),
          fc_(architecture.planes.back() * Branch::expansion, options.num_classes, initializer) {
        name_parameters(*this);
    }

    /// How many parts from the input on, the stem and then the blocks, have nothing to train: backward ends there.
    [[nodiscard]] std::size_t frozen_parts() {
        if (has_trainable_parameters(stem_)) return 0;
        std::size_t count = 1;
        while (count <= blocks_.size() && !has_trainable_parameters(blocks_[count - 1])) ++count;
        return count;
    }

    static const ResNetArchitecture& checked(const ResNetArchitecture& a) {
        if (a.layers.empty()) refuse("ResNet", "number of stages", 0, "1 or more");
        if (a.planes.size() != a.layers.size()) {
            refuse("ResNet", "entries of planes", a.planes.size(), text(a.layers.size(), ", one a stage"));
        }
        for (const Index blocks : a.layers) {
            if (blocks < 1) refuse("ResNet", "blocks of a stage", blocks, "1 or more");
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
    [[nodiscard]] Index in_channels() const { return stem_.template layer<0>().weight()->value.extent(1); }

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
                blocks.back().set_block_index(static_cast<std::uint32_t>(blocks.size() - 1));
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
    GlobalAvgPool<T, Device> avgpool_;
    Linear<T, Device> fc_;
};

SD_NAMESPACE_END
