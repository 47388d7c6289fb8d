// ReLU as a layer of a user's branch; the library's own branches apply it through pending tensors.
#pragma once

#include "sd/cpu/relu.hpp"
#include "sd/nn/cache.hpp"

SD_NAMESPACE_BEGIN

/// y = max(x, 0).
template <class T, class Device = Cpu>
class Relu {
public:
    using value_type = T;
    using device_type = Device;

    /// y of x's shape, which may be any.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context& context) {
        Tensor<T, Device> y = relu_forward(x);
        output_.keep(context, y);
        return y;
    }
    /// dx = dy where y > 0, else 0. Throws std::logic_error if the last forward pass kept no gradients.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return relu_by_input(dy, output_.get("Relu"));
    }
    /// There is nothing to name.
    template <class Visitor>
    void visit(Visitor&&) const {}

private:
    Cache<Tensor<T, Device>> output_;
};

SD_NAMESPACE_END
