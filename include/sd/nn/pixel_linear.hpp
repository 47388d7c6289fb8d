// The fully connected layer at every pixel.
#pragma once

#include "sd/nn/conv2d.hpp"

SD_NAMESPACE_BEGIN

/// y = weight x + bias at every pixel: a 1x1 convolution whose weight has Linear's shape, as PyTorch's Linear on channels
/// that come last has it. x (N, H, W, I), y (N, H, W, O); weight (O, I), bias (O). All else is Conv2d's.
template <class T, class Device = Cpu>
class PixelLinear : public Conv2d<T, Device> {
    using A = accumulate_t<T>;

public:
    /// The weight's start values (O, I); the bias begins as zeros. Throws std::invalid_argument for another shape.
    explicit PixelLinear(const Tensor<A>& weight)
        : Conv2d<T, Device>(weight, kernel_shape(weight.shape()), {.bias = true}) {}

private:
    static Shape kernel_shape(const Shape& weight) {
        expect_rank("PixelLinear", "weight", weight, 2);
        return {weight[0], weight[1], 1, 1};
    }
};

SD_NAMESPACE_END
