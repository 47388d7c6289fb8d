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
        if (found == plans_.end()) found = plans_.emplace(key, make_plan(key, direction, types, geometry)).first;
        return found->second ? &*found->second : nullptr;
    }

    /// How the convolutions are run that were asked for so far, and those that an earlier process was asked for.
    [[nodiscard]] PlanChoices choices() const {
        PlanChoices choices = given_;
        for (const auto& [key, plan] : plans_) {
            choices.plans[key] = plan ? std::optional(plan->choice()) : std::nullopt;
        }
        return choices;
    }

    /// Runs convolutions that have not been asked for yet as an earlier process did. Another version of cuDNN or
    /// another device has engines of other numbers: it warns, and goes on choosing by itself.
    void use(const PlanChoices& choices) {
        if (choices.library != given_.library) {
            warn(text("convolutions were run by ", choices.library, ", not by ", given_.library,
                      ": engines are chosen anew, and results may differ in rounding"));
            return;
        }
        given_.plans = choices.plans;
    }

private:
    [[nodiscard]] std::optional<ConvolutionPlan> make_plan(const PlanKey& key, Direction direction,
                                                           const ConvolutionTypes& types,
                                                           const Conv2dGeometry& geometry) {
        const PlanTarget target(handle_);
        const auto given = given_.plans.find(key);
        if (given == given_.plans.end()) return ConvolutionPlan::make(target, direction, types, geometry);
        if (!given->second) return std::nullopt;
        auto plan = ConvolutionPlan::make(target, direction, types, geometry, *given->second);
        if (plan) return plan;
        warn(text("cuDNN's engine ", given->second->engine, ", which ran a convolution of ", geometry.input_shape(),
                  " before, cannot be had: another is chosen, and results may differ in rounding"));
        return ConvolutionPlan::make(target, direction, types, geometry);
    }

    Cudnn() {
        const cudaStream_t stream = Runtime::instance().stream();  // first, for its word on missing devices
        SD_CUDA_CHECK(cudnnCreate(&handle_));
        SD_CUDA_CHECK(cudnnSetStream(handle_, stream));
        int device = 0;
        cudaDeviceProp properties{};
        SD_CUDA_CHECK(cudaGetDevice(&device));
        SD_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
        given_.library = text("cuDNN ", cudnnGetVersion(), " on ", properties.name);
    }

    cudnnHandle_t handle_ = nullptr;
    std::map<PlanKey, std::optional<ConvolutionPlan>> plans_;
    PlanChoices given_;  ///< of an earlier process
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

/// The GPU chooses cuDNN's engines.
template <>
struct DeviceChoices<Cuda> {
    static constexpr bool are_made = true;  ///< there is something to keep
    cuda::PlanChoices plans;                ///< engines by convolution

    /// Those made so far.
    [[nodiscard]] static DeviceChoices so_far() { return {cuda::Cudnn::instance().choices()}; }
    /// From the text of a checkpoint. Throws std::runtime_error for any other text.
    [[nodiscard]] static DeviceChoices parse(const std::string& text, const std::string& source) {
        return {cuda::parse_plan_choices(text, source)};
    }
    /// The text of a checkpoint.
    [[nodiscard]] std::string text() const { return to_string(plans); }
    /// Runs convolutions that were not run yet so; warns where that cannot be.
    void use() const { cuda::Cudnn::instance().use(plans); }
};

SD_NAMESPACE_END
