// What a benchmark of a whole network runs again and again.
#pragma once

#include "sd/core/bfloat16.hpp"
#include "sd/core/shape.hpp"

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace bench {

using sd::Index;

/// What names of benchmarks begin with: the subject, and what tensors are stored in where that is not float.
template <class T>
std::string name_of(const std::string& subject) {
    return std::is_same_v<T, sd::bfloat16> ? subject + "_bf16" : subject;
}

/// A training step, or a forward pass, on a batch that is in memory already.
class Workload {
public:
    Workload() = default;
    Workload(const Workload&) = delete;
    Workload& operator=(const Workload&) = delete;
    virtual ~Workload() = default;

    /// Runs once.
    virtual void run() = 0;
    /// After this many runs the mean cost is the expected one.
    [[nodiscard]] virtual Index cycle() const { return 1; }
    /// The number of images of a run.
    [[nodiscard]] virtual Index images() const = 0;
};

/// A workload that is built when it is asked for.
struct NamedWorkload {
    std::string name;
    std::function<std::unique_ptr<Workload>()> make;
};

/// A network and the images that it is measured on.
struct NetworkCase {
    std::string model;
    Index batch, size, classes;

    /// "batch:N/size:S"
    [[nodiscard]] std::string extents() const { return sd::text("batch:", batch, "/size:", size); }
    [[nodiscard]] sd::Shape input_shape() const { return {batch, size, size, 3}; }
};

/// The networks that are measured.
inline const std::vector<NetworkCase>& network_cases() {
    static const std::vector<NetworkCase> cases = {
        {"resnet50", 16, 224, 1000},        {"resnext50_32x4d", 16, 224, 1000},   {"resnet18", 16, 224, 1000},
        {"efficientnet_b0", 16, 224, 1000}, {"efficientnet_v2_s", 16, 224, 1000}, {"convnext_tiny", 16, 224, 1000},
        {"regnet_y_400mf", 16, 224, 1000},

        {"cifar_resnet20", 128, 32, 10},    {"cifar_resnet110", 128, 32, 10}};
    return cases;
}

}  // namespace bench
