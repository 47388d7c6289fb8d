// A training step as one CUDA graph.
#pragma once

#include "sd/core/device.hpp"
#include "sd/cuda/device.hpp"

#include <memory>
#include <type_traits>

SD_NAMESPACE_BEGIN

/// The GPU's graphs. The work is recorded in every step by stream capture, and the last step's graph is updated to it:
/// what changes from step to step, such as masks, learning rate and batch, are arguments of the same kernels in the
/// same order. Only if the kernels are others, such as for another size of batch, the graph is made anew.
template <>
class StepGraph<Cuda> {
public:
    StepGraph() = default;
    StepGraph(const StepGraph&) = delete;
    StepGraph& operator=(const StepGraph&) = delete;

    /// Records what work() starts on the runtime's stream, and starts it. If work() throws, nothing is started. Throws
    /// std::runtime_error if it does what cannot be recorded: waiting for the device, or reading from it; or if it
    /// needs memory that the device has not left, since none goes back to it meanwhile.
    template <class Work>
    void run(const Work& work) {
        const cuda::Recording recording;
        const Graph graph = recorded(work);
        if (!updates_to(graph.get())) {
            cudaGraphExec_t made = nullptr;
            SD_CUDA_CHECK(cudaGraphInstantiate(&made, graph.get(), 0));
            instance_.reset(made);
        }
        SD_CUDA_CHECK(cudaGraphLaunch(instance_.get(), cuda::Runtime::instance().stream()));
    }

private:
    struct Destroy {
        void operator()(cudaGraph_t graph) const noexcept { SD_CUDA_REPORT(cudaGraphDestroy(graph)); }
        void operator()(cudaGraphExec_t instance) const noexcept {  // one that runs goes when it has ended
            SD_CUDA_REPORT(cudaGraphExecDestroy(instance));
        }
    };
    using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, Destroy>;
    using Instance = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Destroy>;

    template <class Work>
    static Graph recorded(const Work& work) {
        const cudaStream_t stream = cuda::Runtime::instance().stream();
        cudaGraph_t graph = nullptr;
        // Relaxed: a step that needs memory which no step before it needed may take it from the system.
        SD_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
        try {
            work();
        } catch (...) {
            (void)cudaStreamEndCapture(stream, &graph);  // what was recorded is of no use, broken or not
            (void)cudaGetLastError();                    // or the next launch would tell of it
            Graph(graph).reset();
            throw;
        }
        SD_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
        return Graph(graph);
    }

    [[nodiscard]] bool updates_to(cudaGraph_t graph) {
        if (instance_ == nullptr) return false;
        cudaGraphExecUpdateResultInfo result{};
        const cudaError_t status = cudaGraphExecUpdate(instance_.get(), graph, &result);
        if (status == cudaErrorGraphExecUpdateFailure) {
            (void)cudaGetLastError();  // or the next launch would tell of it
            return false;
        }
        SD_CUDA_CHECK(status);
        return true;
    }

    Instance instance_;
};

SD_NAMESPACE_END
