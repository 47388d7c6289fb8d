// What the library has is what its concepts ask for. Here and not beside each layer, where every program would pay for it.
#include "sd/sd.hpp"

#include <doctest/doctest.h>

namespace test_contracts {

namespace {

/// The layers and branches of a scalar type.
template <class T>
constexpr bool has_layers =
    sd::Layer<sd::BatchNorm2d<T>>&& sd::Layer<sd::Relu<T>>&& sd::Layer<sd::SqueezeExcitation<T>>&&
        sd::Layer<sd::LayerNorm2d<T>>&& sd::Layer<sd::MaxPool2d<T>>&& sd::Layer<sd::AvgPool2d<T>>&&
            sd::Layer<sd::GlobalAvgPool<T>>&& sd::Layer<sd::Linear<T>>&& sd::Layer<sd::LayerScale<T>>&&
                sd::Layer<sd::PixelLinear<T>>&& sd::Layer<sd::Conv2d<T>>&& sd::Layer<sd::IdentityShortcut<T>>&&
                    sd::Layer<sd::ProjectionShortcut<T>>&& sd::Layer<sd::PadShortcut<T>>&& sd::Layer<sd::Shortcut<T>>&&
                        sd::Layer<sd::BasicBlock<T>>&& sd::Layer<sd::Bottleneck<T>>&& sd::Layer<sd::RegNetBranch<T>>&&
                            sd::Layer<sd::MBConv<T>>&& sd::Layer<sd::ConvNeXtBlock<T>>;

struct WithoutBackward {
    using value_type = float;
    sd::Tensor<float> forward(const sd::Tensor<float>& x, const sd::Context&) { return x; }
    template <class Visitor>
    void visit(Visitor&&) {}
};

}  // namespace

TEST_CASE("every layer and branch is a Layer, in every type; the CPU is a device") {
    CHECK(has_layers<float>);
    CHECK(has_layers<double>);
    CHECK(has_layers<sd::bfloat16>);
    CHECK(!sd::Layer<WithoutBackward>);
    CHECK(sd::ComputeDevice<sd::Cpu>);
}

}  // namespace test_contracts
