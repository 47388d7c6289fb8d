// sd_bench_cuda: on a GPU, the kernels that memory bounds against a copy, and training steps of networks.
#include "sd/cuda/cuda.hpp"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

namespace {

using sd::Cuda;
using sd::Index;

/// The median of some runs in milliseconds, by the device's clock.
template <class Run>
double milliseconds(int runs, const Run& run) {
    const cudaStream_t stream = sd::cuda::Runtime::instance().stream();
    cudaEvent_t begin, end;
    SD_CUDA_CHECK(cudaEventCreate(&begin));
    SD_CUDA_CHECK(cudaEventCreate(&end));
    for (int i = 0; i < 3; ++i) run();
    std::vector<float> times(static_cast<std::size_t>(runs));
    for (float& time : times) {
        SD_CUDA_CHECK(cudaEventRecord(begin, stream));
        run();
        SD_CUDA_CHECK(cudaEventRecord(end, stream));
        SD_CUDA_CHECK(cudaEventSynchronize(end));
        SD_CUDA_CHECK(cudaEventElapsedTime(&time, begin, end));
    }
    SD_CUDA_CHECK(cudaEventDestroy(begin));
    SD_CUDA_CHECK(cudaEventDestroy(end));
    std::sort(times.begin(), times.end());
    return static_cast<double>(times[times.size() / 2]);
}

void row(const std::string& name, double value, const std::string& unit, const std::string& note = "") {
    std::cout << std::left << std::setw(52) << name << std::right << std::setw(12) << std::fixed << std::setprecision(1)
              << value << ' ' << unit << "  " << note << std::endl;
}

/// Bandwidths in GB/s; bytes are those of each operand once. Returns that of a copy.
void measure_join() {
    using T = sd::bfloat16;
    const sd::Shape shape{256, 56, 56, 256};  // 411 MB, far beyond the L2
    const double bytes = static_cast<double>(shape.size()) * sizeof(T);
    const auto rate = [](double moved, double ms) { return moved / ms * 1e-6; };
    sd::Tensor<T, Cuda> x(shape), z(shape);
    const double copy = rate(2 * bytes, milliseconds(20, [&] { (void)x.clone(); }));
    row("copy", copy, "GB/s");
    const auto percent = [&](double value) { return std::to_string(std::lround(100 * value / copy)) + " % of copy"; };

    const sd::Shape channels{shape[3]};
    const auto ones = sd::Tensor<float, Cuda>::full(channels, 1.0F);
    const sd::Pending<T, Cuda> branch(z, ones, ones, sd::Activation::none);
    sd::join_output_t<T, Cuda> y;
    const double bits = bytes / 16;  // a bit an element
    const auto join = [&](sd::BranchSamples selection) {
        (void)sd::residual_join_forward<T>(sd::Pending<T, Cuda>(x), branch, selection, 1.0F, true, &y);
    };
    const double forward = rate(3 * bytes + bits, milliseconds(20, [&] { join({}); }));
    row("residual join, forward", forward, "GB/s", percent(forward));
    std::vector<Index> half(256);
    for (Index n = 0; n < 256; ++n) half[static_cast<std::size_t>(n)] = n % 2 == 0 ? n : -1;
    const double dropped = rate(2.5 * bytes + bits, milliseconds(20, [&] { join(half); }));
    row("residual join, forward, half dropped", dropped, "GB/s", percent(dropped));
    const sd::BatchNormPass<T, Cuda> pass{branch, ones, ones, true};
    sd::BatchNormSums<float, Cuda> sums;
    sd::ResidualJoinGradient<T, Cuda> gradient;
    const double backward = rate(3 * bytes + bits, milliseconds(20, [&] {
                                     gradient = sd::residual_join_backward<T>(x, y, {}, 256, 1.0F, true, &pass, &sums);
                                 }));
    row("residual join, backward with sums", backward, "GB/s", percent(backward));
    const auto pending = sd::batch_norm_by_input(gradient.dbranch, pass, sums);
    const double dz = milliseconds(20, [&] { (void)sd::materialize(pending); });
    row("batch norm, gradient by its input", rate(3 * bytes, dz), "GB/s", percent(rate(3 * bytes, dz)));
    const double moments = milliseconds(20, [&] { (void)sd::batch_moments(z); });
    row("batch norm, statistics", rate(bytes, moments), "GB/s", percent(rate(bytes, moments)));
}

/// Products of tensor cores, of matrices that are far larger than a layer's.
void measure_product() {
    constexpr Index size = 8192;
    const auto a = sd::Tensor<sd::bfloat16, Cuda>::full({size, size}, sd::bfloat16(1.0F));
    auto product = sd::Tensor<sd::bfloat16, Cuda>::empty({size, size});
    const double time = milliseconds(20, [&] {
        sd::cuda::Cublas::instance().multiply({a.data(), CUDA_R_16BF, size, size, true},
                                              {a.data(), CUDA_R_16BF, size, size, false}, product.data(), CUDA_R_16BF,
                                              size, size);
    });
    row("product, bf16", 2.0 * size * size * size / time * 1e-9, "TFLOP/s");
}

/// A network, what it is trained with, and how.
struct Row {
    std::string network, precision;
    Index batch;
    std::string variant;  ///< none, sample, survivors or block; or graph: none, with each step as one CUDA graph

    [[nodiscard]] std::string name() const { return network + ", " + precision + ", " + variant; }
};

/// How blocks or samples are dropped for a row, at rates up to 0.2.
sd::StochasticDepthOptions dropping(const std::string& variant) {
    if (variant == "sample") return {.stochastic_method = sd::StochasticMethod::sample};
    if (variant == "survivors") {
        return {.stochastic_method = sd::StochasticMethod::sample, .compute = sd::Compute::survivors};
    }
    if (variant == "block") return {.stochastic_method = sd::StochasticMethod::block};
    sd::refuse("bench", "variant", variant, "none, sample, survivors, block or graph");
}

/// Images a second of training steps on images of `pixels` by `pixels`. Steps follow each other without waiting, so
/// that the CPU may be ahead, as it is in a run.
template <class T, class Model>
void measure_training(const Row& of, Model model, Index pixels) {
    using A = sd::accumulate_t<T>;
    const bool graph = of.variant == "graph";
    if (!graph && of.variant != "none") sd::apply_stochastic_depth(model, dropping(of.variant));
    sd::Sgd<A, Cuda> optimizer(model.parameters(), {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 1e-4});
    const sd::Tensor<T, Cuda> x = sd::Tensor<T, Cuda>::full({of.batch, pixels, pixels, 3}, T(0.5F));
    const std::vector<Index> labels(static_cast<std::size_t>(of.batch), 1);
    const std::span<const Index> classes(labels);
    std::uint64_t step = 0;
    sd::Tensor<A, Cuda> loss;
    const auto train = [&] {
        optimizer.zero_grad();
        const auto logits = model.forward(x, sd::Context::train({.step = step++, .seed = 42}));
        auto result = sd::cross_entropy(logits, classes);
        loss = result.loss;
        model.backward(result.dlogits, sd::InputGradient::skipped);
        optimizer.step();
    };
    train();  // plans, and the optimizer's buffers, which no graph has
    sd::StepGraph<Cuda> recorded;
    constexpr int steps = 10;  // three times as many before: plans of the numbers of samples that are kept
    const double time = milliseconds(3, [&] {
        for (int i = 0; i < steps; ++i) {
            if (graph) {
                recorded.run(train);  // recorded anew in every step, as a Trainer does it
            } else {
                train();
            }
        }
    });
    const double last = static_cast<double>(sd::to_host(loss).data()[0]);
    if (!std::isfinite(last)) sd::refuse("bench", of.name() + ", loss after the last step", last, "a finite one");
    row(of.name(), static_cast<double>(of.batch) * steps / time * 1e3, "images/s", "batch " + std::to_string(of.batch));
}

template <class T>
void measure_network(const Row& of) {
    if (of.network == "resnet50") return measure_training<T>(of, sd::resnet50<T, Cuda>({.seed = 42}), 224);
    if (of.network == "efficientnet_b0")
        return measure_training<T>(of, sd::efficientnet_b0<T, Cuda>({.seed = 42}), 224);
    if (of.network == "convnext_tiny") return measure_training<T>(of, sd::convnext_tiny<T, Cuda>({.seed = 42}), 224);
    if (of.network == "regnet_y_400mf") return measure_training<T>(of, sd::regnet_y_400mf<T, Cuda>({.seed = 42}), 224);
    if (of.network == "cifar_resnet110") {
        return measure_training<T>(of, sd::cifar_resnet<T, Cuda>(110, {.num_classes = 10, .seed = 42}), 32);
    }
    sd::refuse("bench", "network", of.network,
               "resnet50, efficientnet_b0, convnext_tiny, regnet_y_400mf or cifar_resnet110");
}

void measure(const Row& of) {
    if (of.precision == "bf16") return measure_network<sd::bfloat16>(of);
    if (of.precision != "float" && of.precision != "tf32") {
        sd::refuse("bench", "precision", of.precision, "bf16, tf32 or float");
    }
    sd::set_float_math(of.precision == "tf32" ? sd::FloatMath::tf32 : sd::FloatMath::exact);
    measure_network<float>(of);
}

}  // namespace

/// sd_bench_cuda kernels, or sd_bench_cuda NETWORK bf16|tf32|float BATCH none|sample|survivors|block|graph...
int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    try {
        if (arguments == std::vector<std::string>{"kernels"}) {
            measure_product();
            measure_join();
            return 0;
        }
        if (arguments.size() < 4) {
            sd::refuse("bench", "arguments", arguments.size(), "kernels; or a network, a precision, a batch, variants");
        }
        for (std::size_t i = 3; i < arguments.size(); ++i) {
            measure({arguments[0], arguments[1], std::stoll(arguments[2]), arguments[i]});
        }
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "bench: " << error.what() << '\n';
        return 1;
    }
}
