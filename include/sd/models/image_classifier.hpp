// What the families of networks have in common: a stem, a body of blocks, a head that ends in a classifier.
//
//     x (N, H, W, in_channels) ──> stem ──> body ──> features (N, H', W', C) ──> head ──> logits (N, classes)
#pragma once

#include "sd/nn/freeze.hpp"
#include "sd/nn/initializer.hpp"
#include "sd/nn/layer.hpp"
#include "sd/nn/skip_gradients.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

SD_NAMESPACE_BEGIN

/// What a user chooses of a new classifier.
struct ClassifierOptions {
    std::uint64_t seed = 0;  ///< of the start values
};

/// The base of every family of networks. Network, the family, is derived from it, makes it a friend, calls
/// number_and_name() at the end of its constructor and has
///
///     name                     static, what messages call it
///     layers_                  std::vector<Index>, how many blocks each stage has
///     stem_                    a Sequential of the images, a convolution first
///     blocks_                  std::vector<Block>, in forward order
///     head_                    a Sequential that makes logits of the features: pooling, the classifier
///     make_classifier(in_features, num_classes, initializer)    static, a new one
///     visit_members(self, visitor)                              static, names all of it in forward order
///
/// The body is the blocks alone, unless Network has body_size() and with_body_part(i, use), which calls use(part i). The
/// classifier is the second layer of head_, a Linear, unless Network has classifier().
template <class Network, class BlockType>
class ImageClassifier {
public:
    /// The residual block.
    using Block = BlockType;
    /// The residual branch of the blocks.
    using Branch = typename Block::Branch;
    using value_type = typename Block::value_type;
    using device_type = typename Block::device_type;
    using T = value_type;
    using Device = device_type;

    /// Logits (N, num_classes) of images x (N, H, W, in_channels). In a pass without gradients, Context::eval(), several
    /// threads may share the network, as long as none trains it meanwhile.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        return forward_head(forward_features(x, context), context);
    }

    /// What the head is given, (N, H', W', C), of images x (N, H, W, in_channels): as timm's function of that name, but
    /// NHWC.
    [[nodiscard]] Tensor<T, Device> forward_features(const Tensor<T, Device>& x, const Context& context) {
        expect_rank(Network::name, "x", x.shape(), 4);
        expect_shape(Network::name, "channels of x", Shape{x.extent(3)}, {self().in_channels()});
        if (context.gradients()) forget_passes(self());
        const Context own = context.of_network();
        Tensor<T, Device> y = self().stem_.forward(x, own);
        for (std::size_t i = 0; i < self().body_size(); ++i) {
            self().with_body_part(i, [&](auto& part) { y = part.forward(y, own); });
        }
        return y;
    }

    /// Logits (N, num_classes) of features (N, H', W', C).
    [[nodiscard]] Tensor<T, Device> forward_head(const Tensor<T, Device>& features, const Context& context) {
        return self().head_.forward(features, context);
    }

    /// Adds the gradients of all parameters that took part and returns the gradient by x, or an undefined tensor if it
    /// is not asked for.
    Tensor<T, Device> backward(const Tensor<T, Device>& dlogits,
                               InputGradient input_gradient = InputGradient::computed) {
        return backward_features(self().head_.backward(dlogits), input_gradient);
    }

    /// The same after forward_features alone, of the gradient by the features.
    Tensor<T, Device> backward_features(const Tensor<T, Device>& dfeatures,
                                        InputGradient input_gradient = InputGradient::computed) {
        const FrozenStart frozen = input_gradient == InputGradient::computed ? FrozenStart{} : frozen_start();
        Tensor<T, Device> dy = dfeatures;
        for (std::size_t i = self().body_size(); i > frozen.body; --i) {
            self().with_body_part(i - 1, [&](auto& part) { dy = part.backward(dy); });
        }
        if (!frozen.stem) return self().stem_.backward(dy, input_gradient);
        for (std::size_t i = frozen.body; i > 0; --i) {
            self().with_body_part(i - 1, [](auto& part) { skip_gradients(part); });
        }
        skip_gradients(self().stem_);
        return {};
    }

    /// How many classes the logits are of.
    [[nodiscard]] Index num_classes() const { return self().classifier().bias()->value.size(); }

    /// What the names of the classifier's parameters begin with, such as "fc.".
    [[nodiscard]] std::string classifier_prefix() const {
        const std::string& bias = self().classifier().bias()->name;
        return bias.substr(0, bias.rfind('.') + 1);
    }

    /// Replaces the classifier by a new one for this many classes, with fresh start values. Its parameters are new,
    /// with the old names, and not frozen. Make optimizers and trainers afterwards: older ones hold the old parameters.
    /// Throws std::invalid_argument, with nothing changed, for fewer than one class.
    void reset_classifier(Index num_classes, const ClassifierOptions& options = {}) {
        if (num_classes < 1) refuse("reset_classifier", "num_classes", num_classes, "1 or more");
        Initializer initializer(options.seed);
        auto& classifier = self().classifier();
        classifier = Network::make_classifier(classifier.weight()->value.extent(1), num_classes, initializer);
        name_parameters(self());
    }

    /// All blocks in forward order.
    [[nodiscard]] std::vector<Block>& blocks() { return self().blocks_; }
    /// The same, read only.
    [[nodiscard]] const std::vector<Block>& blocks() const { return self().blocks_; }

    /// All parameters, in torchvision's order.
    [[nodiscard]] ParameterList<accumulate_t<T>, Device> parameters() {
        ParameterList<accumulate_t<T>, Device> list;
        for_each_parameter(self(), [&](const std::string&, auto& parameter) { list.push_back(parameter); });
        return list;
    }

    /// How many numbers are trained.
    [[nodiscard]] Index parameter_count() {
        Index count = 0;
        for_each_parameter(self(), [&](const std::string&, auto& parameter) { count += parameter->value.size(); });
        return count;
    }

    /// Names stem, body and head, in forward order and as torchvision does.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        Network::visit_members(self(), visitor);
    }
    /// The same, read only.
    template <class Visitor>
    void visit(Visitor&& visitor) const {
        Network::visit_members(self(), visitor);
    }

protected:
    ImageClassifier() = default;

    /// Gives every block its number and every parameter its name.
    void number_and_name() {
        std::uint32_t index = 0;
        for (Block& block : blocks()) block.set_block_index(index++);
        name_parameters(self());
    }

    /// Refuses an architecture without stages, or with a stage without blocks.
    static void expect_stages(const std::vector<Index>& layers) {
        if (layers.empty()) refuse(Network::name, "number of stages", 0, "1 or more");
        for (const Index blocks : layers) {
            if (blocks < 1) refuse(Network::name, "blocks of a stage", blocks, "1 or more");
        }
    }

    /// Calls use(stage, i, block) for block i of each stage, both counted from 0, in forward order.
    template <class Self, class Use>
    static void for_each_block(Self& self, const Use& use) {
        std::size_t block = 0;
        for (std::size_t stage = 0; stage < self.layers_.size(); ++stage) {
            for (Index i = 0; i < self.layers_[stage]; ++i) use(stage, i, self.blocks_[block++]);
        }
    }

    /// Of the images.
    [[nodiscard]] Index in_channels() const { return self().stem_.template layer<0>().weight()->value.extent(1); }
    /// The layer that makes logits.
    [[nodiscard]] auto& classifier() { return self().head_.template layer<1>(); }
    /// The same, read only.
    [[nodiscard]] const auto& classifier() const { return self().head_.template layer<1>(); }

    /// How many parts the body has.
    [[nodiscard]] std::size_t body_size() const { return blocks().size(); }
    /// Calls use(part i of the body), in forward order from 0.
    template <class Use>
    void with_body_part(std::size_t i, const Use& use) {
        use(blocks()[i]);
    }

private:
    Network& self() { return static_cast<Network&>(*this); }
    const Network& self() const { return static_cast<const Network&>(*this); }

    /// What from the input on has nothing to train: the stem, and so many parts of the body behind it. Backward ends
    /// there.
    struct FrozenStart {
        bool stem = false;
        std::size_t body = 0;
    };
    FrozenStart frozen_start() {
        if (has_trainable_parameters(self().stem_)) return {};
        FrozenStart frozen{.stem = true};
        for (bool trains = false; frozen.body < self().body_size(); ++frozen.body) {
            self().with_body_part(frozen.body, [&](auto& part) { trains = has_trainable_parameters(part); });
            if (trains) break;
        }
        return frozen;
    }
};

SD_NAMESPACE_END
