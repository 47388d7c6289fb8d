// Every distinct convolution of ResNet-50 at batch 16, in all three directions.
#include "benchmarks.hpp"
#include "measure.hpp"

#include "sd/cpu/conv2d.hpp"

#include <array>
#include <string>

namespace bench {

namespace {

/// One convolution: extent of the square input, channels in and out, kernel, stride.
struct Convolution {
    Index extent, in, out, kernel, stride;

    [[nodiscard]] std::string name() const { return sd::text(extent, 'x', in, 'x', out, 'x', kernel, 'x', stride); }
};

constexpr Index batch = 16;
constexpr std::array<Convolution, 23> convolutions{{
    {224, 3, 64, 7, 2},     {56, 64, 64, 1, 1},   {56, 64, 64, 3, 1},    {56, 64, 256, 1, 1},   {56, 256, 64, 1, 1},
    {56, 256, 128, 1, 1},   {56, 128, 128, 3, 2}, {28, 128, 512, 1, 1},  {56, 256, 512, 1, 2},  {28, 512, 128, 1, 1},
    {28, 128, 128, 3, 1},   {28, 512, 256, 1, 1}, {28, 256, 256, 3, 2},  {14, 256, 1024, 1, 1}, {28, 512, 1024, 1, 2},
    {14, 1024, 256, 1, 1},  {14, 256, 256, 3, 1}, {14, 1024, 512, 1, 1}, {14, 512, 512, 3, 2},  {7, 512, 2048, 1, 1},
    {14, 1024, 2048, 1, 2}, {7, 2048, 512, 1, 1}, {7, 512, 512, 3, 1},
}};

template <class T>
struct Operands {
    using A = sd::accumulate_t<T>;

    explicit Operands(const Convolution& one)
        : options{.stride = one.stride, .padding = one.kernel / 2},
          x(filled<T>({batch, one.extent, one.extent, one.in})),
          weight(filled<A>({one.out, one.in, one.kernel, one.kernel})),
          dy(filled<T>(sd::Conv2dGeometry(x.shape(), weight.shape(), options).output_shape())),
          flop(2.0 * static_cast<double>(dy.size() * one.in * one.kernel * one.kernel)),
          bytes(static_cast<double>(x.size() + dy.size()) * sizeof(T) +
                static_cast<double>(weight.size()) * sizeof(A)) {}

    sd::Conv2dOptions options;
    sd::Tensor<T> x;
    sd::Tensor<A> weight;
    sd::Tensor<T> dy;
    double flop;   ///< nominal: 2 N OH OW Co Ci K K
    double bytes;  ///< input, weight and output, each once
};

template <class T, class Direction>
void add(const std::string& name, const Convolution& one, Direction direction) {
    const auto run = [one, direction](benchmark::State& state) {
        const Operands<T> operands(one);
        const auto call = [&] { benchmark::DoNotOptimize(direction(operands).data()); };
        call();
        state.counters["FLOPS"] = operands.flop / seconds_per_call(state, 1, call);
        state.counters["flop_per_byte"] = operands.flop / operands.bytes;
    };
    benchmark::RegisterBenchmark((name_of<T>("conv2d") + '/' + name + '/' + one.name()).c_str(), run)
        ->Unit(benchmark::kMillisecond);
}

}  // namespace

template <class T>
void register_conv2d() {
    for (const Convolution& one : convolutions) {
        add<T>("forward", one, [](const Operands<T>& o) { return sd::conv2d_forward<T>(o.x, o.weight, o.options); });
        add<T>("by_input", one,
               [](const Operands<T>& o) { return sd::conv2d_by_input<T>(o.dy, o.weight, o.options, o.x.shape()); });
        add<T>("by_weight", one,
               [](const Operands<T>& o) { return sd::conv2d_by_weight<T>(o.x, o.dy, o.options, o.weight.shape()); });
    }
}

template void register_conv2d<float>();
template void register_conv2d<sd::bfloat16>();

}  // namespace bench
