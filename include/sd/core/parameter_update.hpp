// A tensor's part in an optimizer's step: what optimizers give to the kernel that updates.
#pragma once

#include "sd/core/tensor.hpp"

#include <array>

SD_NAMESPACE_BEGIN

/// A trained tensor, its gradient, and what the optimizer keeps for it, all of one size. `Update` is a formula:
///
///     static constexpr std::size_t buffers = 2;
///     template <class V> SD_HOST_DEVICE void operator()(V& w, const V& dw, V& m, V& v) const;
///
/// changes an element and its places in the buffers by its gradient. V is T, or an Eigen::Array of several neighbours;
/// both have the operators and sqrt (found by `using std::sqrt`). An Update is copied to the device byte by byte.
template <class Update, class T, class Device = Cpu>
struct ParameterUpdate {
    Update update;                                           ///< the formula with its factors
    Tensor<T, Device> value;                                 ///< w
    Tensor<T, Device> grad;                                  ///< dw
    std::array<Tensor<T, Device>, Update::buffers> buffers;  ///< m, v; 0 is given for an undefined one
};

SD_NAMESPACE_END
