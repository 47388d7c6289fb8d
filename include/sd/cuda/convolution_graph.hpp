// A convolution as cuDNN's graph interface takes it.
#pragma once

#include "sd/core/window.hpp"
#include "sd/device/plan_key.hpp"
#include "sd/cuda/runtime.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace cuda {

/// A descriptor of cuDNN's graph interface.
class Descriptor {
public:
    explicit Descriptor(cudnnBackendDescriptorType_t type) {
        SD_CUDA_CHECK(cudnnBackendCreateDescriptor(type, &descriptor_));
    }
    ~Descriptor() {
        if (descriptor_ != nullptr) SD_CUDA_REPORT(cudnnBackendDestroyDescriptor(descriptor_));
    }
    Descriptor(Descriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, nullptr)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        std::swap(descriptor_, other.descriptor_);
        return *this;
    }

    [[nodiscard]] cudnnBackendDescriptor_t get() const { return descriptor_; }

    /// Sets an attribute to one value or several.
    template <class Value>
    Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const Value& value) {
        SD_CUDA_CHECK(cudnnBackendSetAttribute(descriptor_, name, type, 1, &value));
        return *this;
    }
    template <class Value, std::size_t count>
    Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                    const std::array<Value, count>& values) {
        SD_CUDA_CHECK(
            cudnnBackendSetAttribute(descriptor_, name, type, static_cast<std::int64_t>(count), values.data()));
        return *this;
    }
    Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& other) {
        return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, other.descriptor_);
    }
    Descriptor& finalize() {
        SD_CUDA_CHECK(cudnnBackendFinalize(descriptor_));
        return *this;
    }
    /// The numbers or kinds that an attribute has, `most` at most.
    template <class Value>
    [[nodiscard]] std::vector<Value> values(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                            std::int64_t most) const {
        std::vector<Value> values(static_cast<std::size_t>(most));
        std::int64_t count = 0;
        SD_CUDA_CHECK(cudnnBackendGetAttribute(descriptor_, name, type, most, &count, values.data()));
        values.resize(static_cast<std::size_t>(count));
        return values;
    }
    /// The one number that an attribute has.
    template <class Value>
    [[nodiscard]] Value value(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type) const {
        return values<Value>(name, type, 1).at(0);
    }
    /// The descriptors of some kind that an attribute has, `most` at most.
    [[nodiscard]] std::vector<Descriptor> descriptors(cudnnBackendAttributeName_t name,
                                                      cudnnBackendDescriptorType_t kind, std::int64_t most) const {
        std::vector<Descriptor> results;
        std::vector<cudnnBackendDescriptor_t> targets;
        for (std::int64_t i = 0; i < most; ++i) targets.push_back(results.emplace_back(kind).get());
        std::int64_t count = 0;
        SD_CUDA_CHECK(
            cudnnBackendGetAttribute(descriptor_, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, most, &count, targets.data()));
        results.erase(results.begin() + std::min(count, most), results.end());
        return results;
    }
    /// How many descriptors an attribute has; some attributes do not tell before they are asked for them.
    [[nodiscard]] std::int64_t descriptor_count(cudnnBackendAttributeName_t name) const {
        std::int64_t count = 0;
        SD_CUDA_CHECK(cudnnBackendGetAttribute(descriptor_, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr));
        return count;
    }
    /// False if cuDNN cannot make what is described. Throws std::runtime_error if memory or the device failed it: that
    /// says nothing of the engine, and another one in its place would be another result.
    [[nodiscard]] bool try_finalize() {
        const cudnnStatus_t status = cudnnBackendFinalize(descriptor_);
        if (status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
            status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ||
            CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_EXECUTION_FAILED) {
            fail("cudnnBackendFinalize", __FILE__, __LINE__, cudnnGetErrorString(status));
        }
        return status == CUDNN_STATUS_SUCCESS;
    }

private:
    cudnnBackendDescriptor_t descriptor_ = nullptr;
};

/// What a convolution's tensors hold, and how it multiplies.
struct ConvolutionTypes {
    cudnnDataType_t elements;  ///< of images, weights and gradients; sums are float
    bool allows_tensor_cores;  ///< false: every product is in float

    /// A number for plan_key().
    [[nodiscard]] Index number() const { return static_cast<Index>(elements) * 2 + (allows_tensor_cores ? 1 : 0); }
};

/// What plans are made for: the device of a handle, or one that is described, which need not be there.
class PlanTarget {
public:
    /// The handle's device.
    explicit PlanTarget(cudnnHandle_t handle) : handle_(handle) {}
    /// The device of these properties, as cuDNN writes them to JSON: to see its plans on a machine without it.
    explicit PlanTarget(const std::string& properties)
        : properties_(std::in_place, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) {
        SD_CUDA_CHECK(cudnnBackendSetAttribute(properties_->get(), CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                               CUDNN_TYPE_CHAR, static_cast<std::int64_t>(properties.size()),
                                               properties.data()));
        properties_->finalize();
    }

    /// Tells a descriptor of the device; each of the two has its own name for it.
    void set_in(Descriptor& descriptor, std::optional<cudnnBackendAttributeName_t> by_handle,
                std::optional<cudnnBackendAttributeName_t> by_properties) const {
        if (properties_ && by_properties) descriptor.set(*by_properties, *properties_);
        if (!properties_ && by_handle) descriptor.set(*by_handle, CUDNN_TYPE_HANDLE, handle_);
    }

private:
    cudnnHandle_t handle_ = nullptr;
    std::optional<Descriptor> properties_;
};

/// The graph of one convolution: x (N, H, W, C), y (N, OH, OW, O), weights (O, KH, KW, C / groups), all with channels
/// last. cuDNN names dimensions (N, C, H, W) and learns the order in memory by strides.
class ConvolutionGraph {
public:
    /// Names of the tensors in a variant pack.
    enum Name : std::int64_t { x_name = 1, weight_name = 2, y_name = 3 };

    ConvolutionGraph(Direction direction, const ConvolutionTypes& types, const Conv2dGeometry& g)
        : x_(images(x_name, types.elements, g.batch, g.in_channels, g.in_height, g.in_width)),
          weight_(images(weight_name, types.elements, g.out_channels, g.group_in, g.kernel_height, g.kernel_width)),
          y_(images(y_name, types.elements, g.batch, g.out_channels, g.out_height, g.out_width)),
          convolution_(convolution(g.options)),
          operation_(operation(direction)) {}

    /// The graph for a device.
    [[nodiscard]] Descriptor finalized(const PlanTarget& target) const {
        Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
        graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operation_);
        target.set_in(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, std::nullopt);
        graph.finalize();
        return graph;
    }

private:
    static Descriptor images(std::int64_t name, cudnnDataType_t type, Index n, Index c, Index h, Index w) {
        using Extents = std::array<std::int64_t, 4>;
        Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
        tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
        tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, Extents{n, c, h, w});
        tensor.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, Extents{h * w * c, 1, w * c, c});
        tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, name);
        tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, std::int64_t{16});
        tensor.finalize();
        return tensor;
    }

    static Descriptor convolution(const Conv2dOptions& options) {
        using Pair = std::array<std::int64_t, 2>;
        const auto both = [](Index value) { return Pair{value, value}; };
        Descriptor convolution(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
        convolution.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
        convolution.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION);
        convolution.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, std::int64_t{2});
        convolution.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, both(options.dilation));
        convolution.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, both(options.stride));
        convolution.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, both(options.padding));
        convolution.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, both(options.padding));
        convolution.finalize();
        return convolution;
    }

    struct Names {
        cudnnBackendDescriptorType_t type;
        cudnnBackendAttributeName_t convolution, x, weight, y, alpha, beta;
    };
    static Names names(Direction direction) {
        switch (direction) {
            case Direction::forward:
                return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
            case Direction::by_input:
                return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
            case Direction::by_weight:
                return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
        }
        refuse("ConvolutionGraph", "direction", static_cast<int>(direction), "one of the three");
    }

    [[nodiscard]] Descriptor operation(Direction direction) const {
        const Names name = names(direction);
        Descriptor operation(name.type);
        operation.set(name.convolution, convolution_);
        operation.set(name.x, x_);
        operation.set(name.weight, weight_);
        operation.set(name.y, y_);
        operation.set(name.alpha, CUDNN_TYPE_FLOAT, 1.0F);
        operation.set(name.beta, CUDNN_TYPE_FLOAT, 0.0F);
        operation.finalize();
        return operation;
    }

    Descriptor x_, weight_, y_, convolution_, operation_;
};

}  // namespace cuda

SD_NAMESPACE_END
