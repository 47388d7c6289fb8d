// The plan that cuDNN makes of a convolution.
//
// Engines are asked of cuDNN's heuristics, best first; the first that is deterministic, and exact if asked for, and
// that makes a plan, is taken. Nothing is timed, so the choice is the same in every run on the same device and library.
#pragma once

#include "sd/cuda/convolution_graph.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace cuda {

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
                if (auto plan = make(target, types, config)) return plan;
            }
        }
        return std::nullopt;
    }

    /// What cuDNN says of its engine's numbers.
    [[nodiscard]] const std::vector<cudnnBackendNumericalNote_t>& notes() const { return notes_; }

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
    ConvolutionPlan(Descriptor plan, const Descriptor& config)
        : plan_(std::move(plan)),
          notes_(numerical_notes(config)),
          workspace_bytes_(plan_.value<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64)) {}

    /// The plan of an engine's configuration, if the types allow it and cuDNN can make it.
    static std::optional<ConvolutionPlan> make(const PlanTarget& target, const ConvolutionTypes& types,
                                               const Descriptor& config) {
        if (has_forbidden_note(numerical_notes(config), types)) return std::nullopt;
        Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
        target.set_in(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP);
        if (!plan.try_finalize()) return std::nullopt;
        return ConvolutionPlan(std::move(plan), config);
    }

    /// What the heuristics propose, best first; nothing where they have no answer.
    static std::vector<Descriptor> engine_configs(const PlanTarget& target, const Descriptor& graph,
                                                  cudnnBackendHeurMode_t mode) {
        Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
        heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
        heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
        target.set_in(heuristics, std::nullopt, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP);
        if (!heuristics.try_finalize()) return {};
        return heuristics.descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
                                      heuristics.descriptor_count(CUDNN_ATTR_ENGINEHEUR_RESULTS));
    }

    static std::vector<cudnnBackendNumericalNote_t> numerical_notes(const Descriptor& config) {
        return config.descriptors(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, 1)
            .at(0)
            .values<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
    }

    Descriptor plan_;
    std::vector<cudnnBackendNumericalNote_t> notes_;
    std::int64_t workspace_bytes_;
};

}  // namespace cuda

SD_NAMESPACE_END
