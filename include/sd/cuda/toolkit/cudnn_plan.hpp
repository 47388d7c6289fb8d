// A convolution as cuDNN's graph interface takes it, and the plan that it makes of it.
//
// Engines are asked of cuDNN's heuristics, best first; the first that is deterministic, and exact if asked for, and that
// makes a plan, is taken. Nothing is timed, so the choice is the same in every run on the same device and library.
#pragma once

#include "sd/core/window.hpp"
#include "sd/cuda/plan_key.hpp"
#include "sd/cuda/toolkit/runtime.hpp"

#include <algorithm>
#include <array>
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
        if (descriptor_ != nullptr) (void)cudnnBackendDestroyDescriptor(descriptor_);
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
    /// False if cuDNN cannot make what is described.
    [[nodiscard]] bool try_finalize() { return cudnnBackendFinalize(descriptor_) == CUDNN_STATUS_SUCCESS; }

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

/// What of its engine keeps it from being used: notes that a plan may not have.
[[nodiscard]] inline bool has_forbidden_note(const std::vector<cudnnBackendNumericalNote_t>& notes,
                                             const ConvolutionTypes& types) {
    const auto has = [&](cudnnBackendNumericalNote_t note) {
        return std::find(notes.begin(), notes.end(), note) != notes.end();
    };
    if (has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) || has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)) {
        return true;
    }
    if (types.allows_tensor_cores) return false;
    return has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE) || has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
}

/// How cuDNN runs one convolution.
class ConvolutionPlan {
public:
    /// The first plan that the types allow, or nothing if cuDNN has none.
    [[nodiscard]] static std::optional<ConvolutionPlan> make(const PlanTarget& target, Direction direction,
                                                             const ConvolutionTypes& types, const Conv2dGeometry& g) {
        const Descriptor graph = ConvolutionGraph(direction, types, g).finalized(target);
        for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
            for (const Descriptor& config : engine_configs(target, graph, mode)) {
                if (has_forbidden_note(numerical_notes(config), types)) continue;
                Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
                plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
                target.set_in(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP);
                if (plan.try_finalize()) return ConvolutionPlan(std::move(plan), numerical_notes(config));
            }
        }
        return std::nullopt;
    }

    /// What cuDNN says of its engine's numbers.
    [[nodiscard]] const std::vector<cudnnBackendNumericalNote_t>& notes() const { return notes_; }
    /// Memory that a run takes beside its tensors.
    [[nodiscard]] std::int64_t workspace_bytes() const { return workspace_bytes_; }

    /// Runs it on the handle's stream.
    void run(cudnnHandle_t handle, const void* x, const void* weight, const void* y) const {
        const Workspace workspace(static_cast<std::size_t>(workspace_bytes_));
        Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
        pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
                 std::array<std::int64_t, 3>{ConvolutionGraph::x_name, ConvolutionGraph::weight_name,
                                             ConvolutionGraph::y_name});
        pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, std::array<const void*, 3>{x, weight, y});
        pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace.data());
        pack.finalize();
        SD_CUDA_CHECK(cudnnBackendExecute(handle, plan_.get(), pack.get()));
    }

private:
    ConvolutionPlan(Descriptor plan, std::vector<cudnnBackendNumericalNote_t> notes)
        : plan_(std::move(plan)), notes_(std::move(notes)) {
        std::int64_t count = 0;
        SD_CUDA_CHECK(cudnnBackendGetAttribute(plan_.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                               1, &count, &workspace_bytes_));
    }

    /// What the heuristics propose, best first; nothing where they have no answer.
    static std::vector<Descriptor> engine_configs(const PlanTarget& target, const Descriptor& graph,
                                                  cudnnBackendHeurMode_t mode) {
        Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
        heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
        heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
        target.set_in(heuristics, std::nullopt, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP);
        if (!heuristics.try_finalize()) return {};
        std::int64_t count = 0;
        SD_CUDA_CHECK(cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                               CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr));
        std::vector<Descriptor> configs;
        std::vector<cudnnBackendDescriptor_t> targets;
        for (std::int64_t i = 0; i < count; ++i) {
            configs.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
            targets.push_back(configs.back().get());
        }
        SD_CUDA_CHECK(cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                               CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &count, targets.data()));
        configs.erase(configs.begin() + count, configs.end());
        return configs;
    }

    static std::vector<cudnnBackendNumericalNote_t> numerical_notes(const Descriptor& config) {
        const Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
        cudnnBackendDescriptor_t target = engine.get();
        std::int64_t count = 0;
        SD_CUDA_CHECK(cudnnBackendGetAttribute(config.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                               1, &count, &target));
        std::vector<cudnnBackendNumericalNote_t> notes(CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
        SD_CUDA_CHECK(cudnnBackendGetAttribute(target, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                               CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes.data()));
        notes.resize(static_cast<std::size_t>(count));
        return notes;
    }

    Descriptor plan_;
    std::vector<cudnnBackendNumericalNote_t> notes_;
    std::int64_t workspace_bytes_ = 0;
};

}  // namespace cuda

SD_NAMESPACE_END
