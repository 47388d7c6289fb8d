// The GPU's convolutions in float and bfloat16: cuDNN's where it has a plan, else the direct kernel.
#pragma once

#include "sd/cuda/conv2d.hpp"
#include "sd/cuda/toolkit/cudnn_plan.hpp"
#include "sd/cuda/toolkit/device.hpp"
#include "sd/cuda/weights.hpp"

#include <map>
#include <optional>
#include <type_traits>

SD_NAMESPACE_BEGIN

namespace cuda {

/// cuDNN on the runtime's stream, and every plan that was made so far.
class Cudnn {
public:
    /// Throws std::runtime_error if cuDNN does not start.
    static Cudnn& instance() {
        static Cudnn* cudnn = new Cudnn;
        return *cudnn;
    }
    [[nodiscard]] cudnnHandle_t handle() const { return handle_; }

    /// The plan of a convolution, made at the first call for it; nullptr if cuDNN has none.
    [[nodiscard]] const ConvolutionPlan* plan(Direction direction, const ConvolutionTypes& types,
                                              const Conv2dGeometry& geometry) {
        const PlanKey key = plan_key(direction, types.number(), geometry);
        auto found = plans_.find(key);
        if (found == plans_.end()) {
            found = plans_.emplace(key, ConvolutionPlan::make(PlanTarget(handle_), direction, types, geometry)).first;
        }
        return found->second ? &*found->second : nullptr;
    }

private:
    Cudnn() {
        const cudaStream_t stream = Runtime::instance().stream();  // first, for its word on missing devices
        SD_CUDA_CHECK(cudnnCreate(&handle_));
        SD_CUDA_CHECK(cudnnSetStream(handle_, stream));
    }

    cudnnHandle_t handle_ = nullptr;
    std::map<PlanKey, std::optional<ConvolutionPlan>> plans_;
};

/// Convolutions by cuDNN. Weights are reordered on the way, which moves a thousandth of what a layer does.
template <class T>
struct CudnnConv2d {
    using A = accumulate_t<T>;

    static void forward(const Conv2dGeometry& g, const Tensor<T, Cuda>& x, const Tensor<A, Cuda>& weight,
                        Tensor<T, Cuda>& y) {
        if (const ConvolutionPlan* plan = plan_of(Direction::forward, g)) {
            const Tensor<T, Cuda> ordered = weights_channels_last<T>(weight);
            plan->run(Cudnn::instance().handle(), x.data(), ordered.data(), y.data());
        } else {
            launch_each<Cuda>(y.size(), DirectForward<T>{g, x.data(), weight.data(), y.data()});
        }
    }
    static void by_input(const Conv2dGeometry& g, const Tensor<T, Cuda>& dy, const Tensor<A, Cuda>& weight,
                         Tensor<T, Cuda>& dx) {
        if (const ConvolutionPlan* plan = plan_of(Direction::by_input, g)) {
            const Tensor<T, Cuda> ordered = weights_channels_last<T>(weight);
            plan->run(Cudnn::instance().handle(), dx.data(), ordered.data(), dy.data());
        } else {
            launch_each<Cuda>(dx.size(), DirectByInput<T>{g, dy.data(), weight.data(), dx.data()});
        }
    }
    /// Sums are float; cuDNN writes those of bfloat16 rounded to it.
    static void by_weight(const Conv2dGeometry& g, const Tensor<T, Cuda>& x, const Tensor<T, Cuda>& dy,
                          Tensor<A, Cuda>& dweight) {
        if (const ConvolutionPlan* plan = plan_of(Direction::by_weight, g)) {
            auto ordered = Tensor<T, Cuda>::empty(dweight.shape());
            plan->run(Cudnn::instance().handle(), x.data(), ordered.data(), dy.data());
            weights_channels_first(ordered, dweight);
        } else {
            launch<Cuda>(DirectByWeight<T>{g, x.data(), dy.data(), dweight.data()}, dweight.size());
        }
    }

private:
    static const ConvolutionPlan* plan_of(Direction direction, const Conv2dGeometry& g) {
        constexpr bool is_half = !std::is_same_v<T, A>;
        const bool tensor_cores = is_half || Runtime::instance().float_math == FloatMath::tf32;
        return Cudnn::instance().plan(direction, {is_half ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT, tensor_cores}, g);
    }
};

template <>
struct Conv2dEngine<float, Cuda> : CudnnConv2d<float> {};
template <>
struct Conv2dEngine<bfloat16, Cuda> : CudnnConv2d<bfloat16> {};

}  // namespace cuda

SD_NAMESPACE_END
