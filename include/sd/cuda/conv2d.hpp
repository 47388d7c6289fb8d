// The GPU's convolutions in float and bfloat16: cuDNN's where it has a plan, else the direct kernel.
#pragma once

#include "sd/core/device.hpp"
#include "sd/core/warning.hpp"
#include "sd/device/conv2d.hpp"
#include "sd/cuda/cudnn_plan.hpp"
#include "sd/cuda/device.hpp"
#include "sd/device/weights.hpp"

#include <map>
#include <optional>
#include <string>
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

    /// cuDNN's version and the device, which decide the plans.
    [[nodiscard]] std::string name() const {
        return text("cuDNN ", cudnnGetVersion(), " on ", Runtime::instance().device_name());
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
            DirectConv2d<T, Cuda>::forward(g, x, weight, y);
        }
    }
    static void by_input(const Conv2dGeometry& g, const Tensor<T, Cuda>& dy, const Tensor<A, Cuda>& weight,
                         Tensor<T, Cuda>& dx) {
        if (const ConvolutionPlan* plan = plan_of(Direction::by_input, g)) {
            const Tensor<T, Cuda> ordered = weights_channels_last<T>(weight);
            plan->run(Cudnn::instance().handle(), dx.data(), ordered.data(), dy.data());
        } else {
            DirectConv2d<T, Cuda>::by_input(g, dy, weight, dx);
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
            DirectConv2d<T, Cuda>::by_weight(g, x, dy, dweight);
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

/// cuDNN chooses its engines, the same ones in every run with the same version on the same device: a checkpoint keeps
/// these two.
template <>
struct DeviceChoices<Cuda> {
    static constexpr bool are_made = true;  ///< there is something to keep
    std::string library;                    ///< cuDNN's version and the device

    /// Those of this process.
    [[nodiscard]] static DeviceChoices so_far() { return {cuda::Cudnn::instance().name()}; }
    /// From the text of a checkpoint. Throws std::runtime_error for an empty one, or one of several lines.
    [[nodiscard]] static DeviceChoices parse(const std::string& text, const std::string& source) {
        if (text.empty() || text.find('\n') != std::string::npos) {
            throw std::runtime_error(source + ": device_choices: got \"" + text +
                                     "\", expected a library and a device");
        }
        return {text};
    }
    /// The text of a checkpoint.
    [[nodiscard]] const std::string& text() const { return library; }
    /// Warns if this process has another version of cuDNN or another device.
    void use() const {
        const std::string own = cuda::Cudnn::instance().name();
        if (library == own) return;
        warn(sd::text("convolutions were run by ", library, ", not by ", own,
                      ": engines are chosen anew, and results may differ in rounding"));
    }
};

SD_NAMESPACE_END
