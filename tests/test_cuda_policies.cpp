// Every family on the device's kernels in bfloat16, under every policy and optimizer, without a device: masks are those of
// the network in float, and numbers too, to their rounding.
#include "cuda_emulator.hpp"
#include "kernel_inputs.hpp"

#include "sd/device/kernels.hpp"
#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace {

using sd::Index;
using sd_test::Emulator;
using sd_test::in_double;

template <class T>
auto efficientnet() {
    // what both versions have: fused blocks and others, an expansion or none, two kernels, shortcuts or none
    return sd::EfficientNetModel<T, Emulator>(
        {.stages = {{.fused = true, .expand_ratio = 1, .kernel = 3, .out_channels = 8, .layers = 2},
                    {.expand_ratio = 2, .kernel = 5, .stride = 2, .out_channels = 8, .layers = 2}},
         .stem_channels = 8,
         .head_channels = 16},
        {.num_classes = 10, .seed = 7});
}
template <class T>
auto convnext() {
    return sd::ConvNeXt<T, Emulator>({.layers = {2, 1}, .channels = {8, 16}, .patch = 2},
                                     {.num_classes = 10, .seed = 7, .layer_scale = 0.5});
}
template <class T>
auto regnet() {
    return sd::RegNetModel<T, Emulator>(
        {.stages = {{.layers = 2, .width = 16, .group_width = 8}}, .se_ratio = 0.25, .stem_channels = 8},
        {.num_classes = 10, .seed = 7});
}

/// What two steps leave: the logits of each and of evaluation, the masks, and the gradients of the first.
struct Trace {
    std::vector<sd::Tensor<double>> logits;
    std::vector<double> gradients;
    std::vector<sd::Mask> masks;
};

/// Trains by this optimizer, which takes small steps.
template <template <class, class> class Optimizer, class Model>
Trace train(Model model, const sd::StochasticDepthOptions& depth) {
    using T = typename Model::value_type;
    sd::set_warning_handler({});  // the networks are small on purpose
    sd::apply_stochastic_depth(model, depth);
    Optimizer<float, Emulator> optimizer(model.parameters(), {.learning_rate = 1e-3});
    Trace trace;
    const auto images = [](std::uint64_t stream) {
        const auto rounded = sd::converted<sd::bfloat16>(sd_test::random_tensor<float>({8, 16, 16, 3}, stream));
        return sd::converted<T>(sd::to_device<Emulator>(sd::to_host_numbers(rounded)));
    };
    const std::vector<Index> labels{1, 2, 3, 4, 5, 6, 7, 8};
    for (std::uint64_t step = 0; step < 2; ++step) {
        optimizer.zero_grad();
        const auto logits = model.forward(images(step), sd::Context::train({.step = step, .seed = 42}));
        trace.logits.push_back(in_double(logits));
        model.backward(sd::cross_entropy_by_input(logits, std::span<const Index>(labels), 0.1),
                       sd::InputGradient::skipped);
        for (auto& block : model.blocks()) trace.masks.push_back(block.mask());
        for (const auto& parameter : model.parameters()) {
            if (step > 0 || !parameter->has_grad) continue;
            const auto gradient = in_double(parameter->grad);
            trace.gradients.insert(trace.gradients.end(), gradient.begin(), gradient.end());
        }
        optimizer.step();
    }
    trace.logits.push_back(in_double(model.forward(images(9), sd::Context::eval())));
    return trace;
}

/// |a - b| / |b|, as vectors.
double distance(std::span<const double> a, std::span<const double> b) {
    REQUIRE(a.size() == b.size());
    double difference = 0, length = 0;
    for (std::size_t i = 0; i < b.size(); ++i) {
        difference += std::pow(a[i] - b[i], 2);
        length += std::pow(b[i], 2);
    }
    return std::sqrt(difference / length);
}
std::span<const double> numbers(const sd::Tensor<double>& x) { return {x.data(), static_cast<std::size_t>(x.size())}; }

template <template <class, class> class Optimizer, class Make>
void check(const Make& make, const sd::StochasticDepthOptions& depth) {
    const Trace ours = train<Optimizer>(make.template operator()<sd::bfloat16>(), depth);
    const Trace theirs = train<Optimizer>(make.template operator()<float>(), depth);
    CHECK(ours.masks == theirs.masks);
    for (std::size_t i = 0; i < theirs.logits.size(); ++i) {
        CAPTURE(i);
        CHECK(distance(numbers(ours.logits[i]), numbers(theirs.logits[i])) < 0.15);
    }
    CHECK(distance(ours.gradients, theirs.gradients) < 0.15);
}

template <class Make>
void check_all(const Make& make) {
    using enum sd::StochasticMethod;
    SUBCASE("plain, SGD") { check<sd::Sgd>(make, {.stochastic_method = sample, .drop_rate = 0}); }
    SUBCASE("block, AdamW") { check<sd::AdamW>(make, {.stochastic_method = block, .drop_rate = 0.6}); }
    SUBCASE("sample, RMSprop") { check<sd::Rmsprop>(make, {.stochastic_method = sample, .drop_rate = 0.5}); }
    SUBCASE("survivors, TensorFlow's RMSprop") {
        check<sd::RmspropTf>(make, {.stochastic_method = sample,
                                    .drop_rate = 0.5,
                                    .drop_distribution = sd::DropDistribution::uniform,
                                    .compute = sd::Compute::survivors,
                                    .scaling = sd::Scaling::train});
    }
    SUBCASE("subset, AdamW") { check<sd::AdamW>(make, {.policy = "subset", .drop_rate = 0.5}); }
}

}  // namespace

TEST_CASE("device: EfficientNet in bfloat16") {
    check_all([]<class T>() { return efficientnet<T>(); });
}
TEST_CASE("device: ConvNeXt in bfloat16") {
    check_all([]<class T>() { return convnext<T>(); });
}
TEST_CASE("device: RegNet in bfloat16") {
    check_all([]<class T>() { return regnet<T>(); });
}
