// sd_bench_cuda: on a GPU, the residual join against a copy, training steps of resnet50 with every method, and of
// cifar_resnet110 with and without graphs.
#include "sd/cuda/cuda.hpp"

#include <algorithm>
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

/// How samples or blocks are dropped.
struct Method {
    const char* name;
    sd::StochasticMethod method;
    double rate;
    sd::Compute compute;
};

/// What a step starts goes one by one, or as one graph that is recorded anew in every step, as a Trainer does it.
enum class Graph { off, on };

/// Images a second of training steps on images of `pixels` by `pixels`. Steps follow each other without waiting, so
/// that the CPU may be ahead, as it is in a run.
template <class T, class Model>
void measure_training(const std::string& name, Model model, const char* layer, const Method& method, Index batch,
                      Index pixels, Graph graph = Graph::off) {
    using A = sd::accumulate_t<T>;
    if (method.rate > 0) {
        sd::apply_stochastic_depth(model, {.target_layer_name = layer,
                                           .stochastic_method = method.method,
                                           .drop_rate = method.rate,
                                           .compute = method.compute});
    }
    sd::Sgd<A, Cuda> optimizer(model.parameters(), {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 1e-4});
    const sd::Tensor<T, Cuda> x = sd::Tensor<T, Cuda>::full({batch, pixels, pixels, 3}, T(0.5F));
    const std::vector<Index> labels(static_cast<std::size_t>(batch), 1);
    const std::span<const Index> classes(labels);
    std::uint64_t step = 0;
    const auto train = [&] {
        optimizer.zero_grad();
        const auto logits = model.forward(x, sd::Context::train({.step = step++, .seed = 42}));
        model.backward(sd::cross_entropy(logits, classes).dlogits, sd::InputGradient::skipped);
        optimizer.step();
    };
    train();  // plans, and the optimizer's buffers, which no graph has
    sd::StepGraph<Cuda> recorded;
    constexpr int steps = 10;  // three times as many before: plans of the numbers of samples that are kept
    const double time = milliseconds(3, [&] {
        for (int i = 0; i < steps; ++i) {
            if (graph == Graph::on) {
                recorded.run(train);
            } else {
                train();
            }
        }
    });
    row(name + ", " + method.name + ", batch " + std::to_string(batch), static_cast<double>(batch) * steps / time * 1e3,
        "images/s");
}

constexpr Method plain{"plain", sd::StochasticMethod::sample, 0.0, sd::Compute::all};
constexpr Method block{"block", sd::StochasticMethod::block, 0.2, sd::Compute::all};

template <class T>
void measure_resnet50(const std::string& precision) {
    for (const Method& method :
         {plain, Method{"sample", sd::StochasticMethod::sample, 0.2, sd::Compute::all},
          Method{"survivors", sd::StochasticMethod::sample, 0.2, sd::Compute::survivors}, block}) {
        measure_training<T>("resnet50, " + precision, sd::resnet50<T, Cuda>({.num_classes = 1000, .seed = 42}),
                            "ResNetBottleneck", method, 256, 224);
    }
}

template <class T>
void measure_cifar_resnet110(const std::string& precision) {
    const auto measure = [&](const Method& method, Graph graph) {
        measure_training<T>("cifar_resnet110, " + precision + ", graph " + (graph == Graph::on ? "on" : "off"),
                            sd::cifar_resnet<T, Cuda>(110, {.num_classes = 10, .seed = 42}), "ResNetBasicBlock", method,
                            128, 32, graph);
    };
    measure(plain, Graph::off);
    measure(plain, Graph::on);
    measure(block, Graph::off);  // what it starts depends on the mask
}

}  // namespace

int main() {
    try {
        int device = 0;
        SD_CUDA_CHECK((sd::synchronize_device(), cudaGetDevice(&device)));
        cudaDeviceProp properties{};
        SD_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
        std::cout << properties.name << std::endl;
        measure_product();
        measure_join();
        measure_resnet50<sd::bfloat16>("bf16");
        measure_cifar_resnet110<sd::bfloat16>("bf16");
        sd::set_float_math(sd::FloatMath::tf32);
        measure_resnet50<float>("tf32");
        measure_cifar_resnet110<float>("tf32");
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "bench: " << error.what() << '\n';
        return 1;
    }
}
