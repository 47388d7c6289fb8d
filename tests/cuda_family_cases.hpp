// A training step of each family of networks on a device, in the types that its libraries have a part in, against the
// same step in double. KernelDevice is the device that the including unit tests.
#pragma once

#include "kernel_inputs.hpp"

#include "sd/sd.hpp"

#include "sd/device/kernels.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace cuda_families {

using sd::Index;

/// Logits and the gradients of all parameters, one after the other.
struct Step {
    std::vector<double> logits, gradients;
};

/// One step of a network with dropped samples.
template <class T, class Model>
Step one_step(Model model) {
    sd::set_warning_handler({});  // the batch is small on purpose
    sd::apply_stochastic_depth(model, {.stochastic_method = sd::StochasticMethod::sample, .drop_rate = 0.5});
    const auto images = sd_test::random_tensor<float>({32, 8, 8, 3}, 1);
    const auto x = sd::converted<T>(sd::to_device<KernelDevice>(images));
    std::vector<Index> labels;
    for (Index n = 0; n < x.extent(0); ++n) labels.push_back(n % 10);
    const auto logits = model.forward(x, sd::Context::train({.step = 3, .seed = 42}));
    model.backward(sd::cross_entropy_by_input(logits, std::span<const Index>(labels), 0.1), sd::InputGradient::skipped);
    const auto append = [](std::vector<double>& all, const sd::Tensor<double>& some) {
        all.insert(all.end(), some.begin(), some.end());
    };
    Step step;
    append(step.logits, sd_test::in_double(logits));
    for (const auto& parameter : model.parameters()) append(step.gradients, sd_test::in_double(parameter->grad));
    return step;
}

/// |a - b| / |b|.
inline double distance(const std::vector<double>& a, const std::vector<double>& b) {
    REQUIRE(a.size() == b.size());
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return std::sqrt(difference / size);
}

/// How far a step in T is from one in double.
template <class T, class Make>
std::pair<double, double> error_of(const Make& make) {
    const Step step = one_step<T>(make(std::type_identity<T>()));
    const Step exact = one_step<double>(make(std::type_identity<double>()));
    return {distance(step.logits, exact.logits), distance(step.gradients, exact.gradients)};
}

}  // namespace cuda_families

TEST_CASE_TEMPLATE("device: a step of every family is near one in double", T, float, sd::bfloat16) {
    const auto check = [](const std::string& name, std::pair<double, double> errors) {
        const bool is_float = std::is_same_v<T, float>;
        CAPTURE(name);
        CHECK(errors.first < (is_float ? 1e-4 : 0.1));
        // Batch norms magnify the rounding of bfloat16: RegNet's are off by half, and by as much on the CPU.
        CHECK(errors.second < (is_float ? 1e-3 : 0.8));
    };
    using cuda_families::error_of;
    check("resnet", error_of<T>([]<class U>(std::type_identity<U>) {
              return sd::cifar_resnet<U, KernelDevice>(20, {.num_classes = 10});
          }));
    check("efficientnet",
          error_of<T>([]<class U>(std::type_identity<U>) { return sd::cifar_efficientnet<U, KernelDevice>(); }));
    check("convnext",
          error_of<T>([]<class U>(std::type_identity<U>) { return sd::cifar_convnext<U, KernelDevice>(); }));
    check("regnet", error_of<T>([]<class U>(std::type_identity<U>) { return sd::cifar_regnet<U, KernelDevice>(); }));
}
