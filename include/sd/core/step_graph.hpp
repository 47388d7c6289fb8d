// The work of a training step as one piece.
#pragma once

#include "sd/core/config.hpp"

SD_NAMESPACE_BEGIN

/// Starts on a device all that some work starts there, as one graph: the device goes from kernel to kernel by itself. A
/// device that has graphs has its own; on any other, the work runs as it would without.
///
///     run(work)    calls work(), which must neither read from the device nor wait for it, then starts the graph
template <class Device>
class StepGraph {
public:
    /// Whether the device has graphs.
    static constexpr bool is_available = false;
    /// Calls work().
    template <class Work>
    void run(const Work& work) {
        work();
    }
};

SD_NAMESPACE_END
