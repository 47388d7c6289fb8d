// A network of any family as one type, so that what trains or judges networks is compiled once, not for every family.
#pragma once

#include "sd/nn/branch_scale.hpp"
#include "sd/sd.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tools {

/// What surgery calls the blocks of a model: empty, that is all, where they have several names.
template <class Model>
std::string layer_name_of() {
    if constexpr (requires { Model::Branch::layer_name; }) {
        return std::string(Model::Branch::layer_name);
    } else {
        return {};
    }
}

/// Any of the library's networks. Has what they have in common, and can be trained, saved and made stochastic as they can.
template <class T, class Device = sd::Cpu>
class AnyNetwork {
    using Tensor = sd::Tensor<T, Device>;
    using Parameter = sd::ParameterPtr<sd::accumulate_t<T>, Device>;
    using Buffer = sd::Tensor<sd::accumulate_t<T>, Device>;

public:
    using value_type = T;
    using device_type = Device;

    /// This network.
    template <class Network>
    explicit AnyNetwork(Network network) : network_(std::make_unique<Held<Network>>(std::move(network))) {}

    /// As of the networks.
    [[nodiscard]] Tensor forward(const Tensor& x, const sd::Context& context) { return network_->forward(x, context); }
    /// As of the networks.
    Tensor backward(const Tensor& dlogits, sd::InputGradient input_gradient = sd::InputGradient::computed) {
        return network_->backward(dlogits, input_gradient);
    }
    /// As of the networks, for the walks of which there are types below.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        network_->visit(visitor);
    }
    /// As of the networks.
    [[nodiscard]] std::string classifier_prefix() const { return network_->classifier_prefix(); }
    /// As of the networks.
    void reset_classifier(sd::Index num_classes) { network_->reset_classifier(num_classes); }
    /// layer_name_of() the network.
    [[nodiscard]] std::string layer_name() const { return network_->layer_name(); }
    /// All blocks in forward order.
    [[nodiscard]] std::vector<sd::detail::NamedBlock> blocks() { return sd::detail::blocks_of(*this); }
    /// How many numbers are trained.
    [[nodiscard]] sd::Index parameter_count() {
        sd::Index count = 0;
        sd::for_each_parameter(*this, [&](const std::string&, auto& parameter) { count += parameter->value.size(); });
        return count;
    }

private:
    using StateWalk = sd::detail::MemberWalk<sd::detail::StateVisitor<Parameter, Buffer, std::int64_t>>;
    using ParameterWalk = sd::detail::UnnamedWalk<sd::detail::ParameterVisitor<Parameter>>;
    using ForgetWalk = sd::detail::UnnamedWalk<const sd::detail::Forget>;
    using BlockWalk = sd::detail::MemberWalk<sd::detail::BlockCollector>;
    using ScaleWalk = sd::detail::MemberWalk<sd::detail::ScaledBranches>;

    struct Interface {
        Interface() = default;
        Interface(const Interface&) = delete;
        Interface& operator=(const Interface&) = delete;
        virtual ~Interface() = default;
        virtual Tensor forward(const Tensor& x, const sd::Context& context) = 0;
        virtual Tensor backward(const Tensor& dlogits, sd::InputGradient input_gradient) = 0;
        virtual void visit(StateWalk& walk) = 0;
        virtual void visit(ParameterWalk& walk) = 0;
        virtual void visit(ForgetWalk& walk) = 0;
        virtual void visit(BlockWalk& walk) = 0;
        virtual void visit(ScaleWalk& walk) = 0;
        [[nodiscard]] virtual std::string classifier_prefix() const = 0;
        virtual void reset_classifier(sd::Index num_classes) = 0;
        [[nodiscard]] virtual std::string layer_name() const = 0;
    };
    template <class Network>
    struct Held final : Interface {
        explicit Held(Network given) : network(std::move(given)) {}
        Tensor forward(const Tensor& x, const sd::Context& context) override { return network.forward(x, context); }
        Tensor backward(const Tensor& dlogits, sd::InputGradient input_gradient) override {
            return network.backward(dlogits, input_gradient);
        }
        void visit(StateWalk& walk) override { network.visit(walk); }
        void visit(ParameterWalk& walk) override { network.visit(walk); }
        void visit(ForgetWalk& walk) override { network.visit(walk); }
        void visit(BlockWalk& walk) override { network.visit(walk); }
        void visit(ScaleWalk& walk) override { network.visit(walk); }
        [[nodiscard]] std::string classifier_prefix() const override { return network.classifier_prefix(); }
        void reset_classifier(sd::Index num_classes) override { network.reset_classifier(num_classes); }
        [[nodiscard]] std::string layer_name() const override { return layer_name_of<Network>(); }

        Network network;
    };

    std::unique_ptr<Interface> network_;
};

}  // namespace tools
