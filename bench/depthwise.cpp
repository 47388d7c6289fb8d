// The depthwise convolutions of EfficientNet-B0 and of ConvNeXt-tiny at batch 16, in all three directions.
#include "benchmarks.hpp"
#include "measure.hpp"

#include "sd/cpu/conv2d.hpp"

#include <array>
#include <string>

namespace bench {

namespace {

/// One convolution: extent of the square input, channels, kernel, stride.
struct Depthwise {
    Index extent, channels, kernel, stride;

    [[nodiscard]] std::string name() const { return sd::text(extent, 'x', channels, 'x', kernel, 'x', stride); }
};

constexpr Index batch = 16;
constexpr std::array<Depthwise, 16> convolutions{{
    {112, 32, 3, 1},
    {112, 96, 3, 2},
    {56, 144, 3, 1},
    {56, 144, 5, 2},
    {28, 240, 5, 1},
    {28, 240, 3, 2},
    {14, 480, 3, 1},
    {14, 480, 5, 1},
    {14, 672, 5, 1},
    {14, 672, 5, 2},
    {7, 1152, 5, 1},
    {7, 1152, 3, 1},
    {56, 96, 7, 1},
    {28, 192, 7, 1},
    {14, 384, 7, 1},
    {7, 768, 7, 1},
}};

struct Operands {
    explicit Operands(const Depthwise& one)
        : options{.stride = one.stride, .padding = one.kernel / 2, .groups = one.channels},
          x(filled({batch, one.extent, one.extent, one.channels})),
          weight(filled({one.channels, 1, one.kernel, one.kernel})),
          dy(filled(sd::Conv2dGeometry(x.shape(), weight.shape(), options).output_shape())),
          flop(2.0 * static_cast<double>(dy.size() * one.kernel * one.kernel)),
          bytes(static_cast<double>(x.size() + weight.size() + dy.size()) * sizeof(float)) {}

    sd::Conv2dOptions options;
    sd::Tensor<float> x, weight, dy;
    double flop;
    double bytes;  ///< input, weight and output, each once
};

template <class Direction>
void add(const std::string& name, const Depthwise& one, Direction direction) {
    const auto run = [one, direction](benchmark::State& state) {
        const Operands operands(one);
        const auto call = [&] { benchmark::DoNotOptimize(direction(operands).data()); };
        call();
        const double seconds = seconds_per_call(state, 1, call);
        state.counters["bytes_per_second"] = operands.bytes / seconds;
        state.counters["FLOPS"] = operands.flop / seconds;
        state.counters["flop_per_byte"] = operands.flop / operands.bytes;
    };
    benchmark::RegisterBenchmark(("depthwise/" + name + '/' + one.name()).c_str(), run)->Unit(benchmark::kMillisecond);
}

}  // namespace

void register_depthwise() {
    for (const Depthwise& one : convolutions) {
        add("forward", one, [](const Operands& o) { return sd::conv2d_forward<float>(o.x, o.weight, o.options); });
        add("by_input", one,
            [](const Operands& o) { return sd::conv2d_by_input<float>(o.dy, o.weight, o.options, o.x.shape()); });
        add("by_weight", one,
            [](const Operands& o) { return sd::conv2d_by_weight<float>(o.x, o.dy, o.options, o.weight.shape()); });
    }
}

}  // namespace bench
