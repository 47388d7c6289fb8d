// The residual joins of ResNet-50 at batch 16: every sample keeps its branch, whose batch norm is still pending.
#include "benchmarks.hpp"
#include "measure.hpp"

#include "sd/cpu/residual_join.hpp"

#include <array>
#include <string>

namespace bench {

namespace {

double bytes_of(const sd::Tensor<float>& tensor) { return static_cast<double>(tensor.size()) * sizeof(float); }

// Reads shortcut and branch, writes y.
void forward(benchmark::State& state, const sd::Shape& shape) {
    const sd::Shape channels{shape[3]};
    const sd::Tensor<float> shortcut = filled(shape);
    const sd::Pending<float> branch(filled(shape), filled(channels), filled(channels), sd::Activation::none);
    const auto call = [&] {
        benchmark::DoNotOptimize(sd::residual_join_forward<float>(shortcut, branch, {}, 1.0F, true).data());
    };
    call();
    state.counters["bytes_per_second"] = 3 * bytes_of(shortcut) / seconds_per_call(state, 1, call);
}

// Reads dy and y, writes dshortcut, and dbranch where that is not the same tensor.
void backward(benchmark::State& state, const sd::Shape& shape) {
    const sd::Tensor<float> dy = filled(shape);
    const sd::Tensor<float> y = filled(shape);
    const auto call = [&] { return sd::residual_join_backward<float>(dy, y, {}, shape[0], 1.0F, true); };
    const bool one_result = [&] {
        const auto gradient = call();
        return gradient.dshortcut.shares_storage_with(gradient.dbranch);
    }();
    const double seconds = seconds_per_call(state, 1, [&] { benchmark::DoNotOptimize(call().dbranch.data()); });
    state.counters["bytes_per_second"] = (one_result ? 3 : 4) * bytes_of(y) / seconds;
}

}  // namespace

void register_residual_join() {
    static const std::array<sd::Shape, 4> shapes{
        {{16, 56, 56, 256}, {16, 28, 28, 512}, {16, 14, 14, 1024}, {16, 7, 7, 2048}}};
    for (const sd::Shape& shape : shapes) {
        const std::string extents = sd::text(shape[0], 'x', shape[1], 'x', shape[2], 'x', shape[3]);
        const auto add = [&](const std::string& direction, auto run) {
            benchmark::RegisterBenchmark(("residual_join/" + direction + '/' + extents).c_str(),
                                         [shape, run](benchmark::State& state) { run(state, shape); })
                ->Unit(benchmark::kMillisecond);
        };
        add("forward", forward);
        add("backward", backward);
    }
}

}  // namespace bench
