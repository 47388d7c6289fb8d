// The shortcut that is its input.
#pragma once

#include "sd/nn/layer.hpp"

SD_NAMESPACE_BEGIN

/// S(x) = x.
template <class T, class Device = Cpu>
class IdentityShortcut {
public:
    using value_type = T;
    using device_type = Device;

    /// x itself.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context&) { return x; }
    /// dy itself.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) { return dy; }
    /// There is nothing to name.
    template <class Visitor>
    void visit(Visitor&&) const {}
};

SD_NAMESPACE_END
