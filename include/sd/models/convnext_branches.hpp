// The residual branch F of ConvNeXt, up to and including its layer scale.
// Z. Liu et al., "A ConvNet for the 2020s", CVPR 2022; all names and start values as in torchvision.
#pragma once

#include "sd/nn/activation.hpp"
#include "sd/nn/conv2d.hpp"
#include "sd/nn/layer_norm2d.hpp"
#include "sd/nn/layer_scale.hpp"
#include "sd/nn/pixel_linear.hpp"
#include "sd/nn/sequential.hpp"

#include <string_view>

SD_NAMESPACE_BEGIN

namespace detail {
/// Deviation of the start values of ConvNeXt's weights. torchvision cuts them off at 2, a hundred deviations away, where
/// no draw comes: those of 32 bits end at 6.7 deviations.
inline constexpr double convnext_deviation = 0.02;
}  // namespace detail

/// F(x) = gamma (W2 gelu(W1 norm(d(x)) + b1) + b2): d a depthwise 7x7 convolution with a bias, norm a layer norm over
/// channels, W1 from C to 4 C and W2 from 4 C to C at every pixel. x and F(x) (N, H, W, C).
template <class T, class Device = Cpu>
class ConvNeXtBlock : public Sequential<Conv2d<T, Device>, LayerNorm2d<T, Device>, PixelLinear<T, Device>,
                                        Gelu<T, Device>, PixelLinear<T, Device>, LayerScale<T, Device>> {
    using Conv = Conv2d<T, Device>;
    using Norm = LayerNorm2d<T, Device>;
    using Pixels = PixelLinear<T, Device>;
    using Act = Gelu<T, Device>;
    using Scale = LayerScale<T, Device>;
    using A = accumulate_t<T>;

public:
    /// The name that surgery knows it by.
    static constexpr std::string_view layer_name = "ConvNeXtBlock";

    /// Weights from N(0, 0.02^2), biases 0, gamma layer_scale. Throws std::invalid_argument for fewer than one channel.
    ConvNeXtBlock(Index channels, double layer_scale, Initializer& initializer)
        : Sequential<Conv, Norm, Pixels, Act, Pixels, Scale>{
              named("0", Conv(initializer.normal<A>({channels, 1, 7, 7}, detail::convnext_deviation),
                              {.padding = 3, .groups = channels, .bias = true})),
              named("2", Norm(channels)),
              named("3", Pixels(initializer.normal<A>({4 * channels, channels}, detail::convnext_deviation))),
              named("4", Act()),
              named("5", Pixels(initializer.normal<A>({channels, 4 * channels}, detail::convnext_deviation))),
              named("layer_scale", Scale(channels, layer_scale))} {}

    /// Names layer_scale, and the layers as torchvision's `block`, where two of its places only turn the tensor.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visit_members(*this, visitor);
    }
    /// The same, read only.
    template <class Visitor>
    void visit(Visitor&& visitor) const {
        visit_members(*this, visitor);
    }
    /// Names what F is proportional to.
    template <class Visitor>
    void visit_output(Visitor&& visitor) {
        visit_scale(*this, visitor);
    }

private:
    template <class Self, class Visitor>
    static void visit_scale(Self& self, Visitor& visitor) {
        self.template layer<5>().visit([&](std::string_view, auto& gamma) { visitor("layer_scale", gamma); });
    }
    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        visit_scale(self, visitor);
        visitor("block.0", self.template layer<0>());
        visitor("block.2", self.template layer<1>());
        visitor("block.3", self.template layer<2>());
        visitor("block.5", self.template layer<4>());
    }
};

SD_NAMESPACE_END
