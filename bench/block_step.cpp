// One residual block, forward and backward: the library's bottleneck, and the same composed by a user.
#include "benchmarks.hpp"
#include "measure.hpp"

#include <sd/sd.hpp>

#include <utility>

namespace bench {

namespace {

using sd::Index;
using sd::Initializer;
using sd::named;

/// What a user writes in the place of sd::Bottleneck.
auto composed_bottleneck(const sd::BranchOptions& options, Initializer& initializer) {
    using Conv = sd::Conv2d<float>;
    using Norm = sd::BatchNorm2d<float>;
    const Index width = options.planes;
    return sd::Sequential{named("reduce", Conv(options.in_channels, width, 1, {}, initializer)),
                          named("reduce_norm", Norm(width)),
                          named("reduce_relu", sd::Relu<float>()),
                          named("spatial", Conv(width, width, 3, {.padding = 1}, initializer)),
                          named("spatial_norm", Norm(width)),
                          named("spatial_relu", sd::Relu<float>()),
                          named("expand", Conv(width, 4 * width, 1, {}, initializer)),
                          named("expand_norm", Norm(4 * width))};
}

template <class Branch>
class BlockStep final : public Workload {
public:
    BlockStep(Branch branch, const sd::Shape& shape)
        : block_(std::move(branch)), x_(filled(shape)), dy_(filled(shape)) {}

    void run() override {
        (void)block_.forward(x_, sd::Context::train({.step = 0, .seed = 0}));
        (void)block_.backward(dy_);
        sd::for_each_unnamed_parameter(block_, [](auto& parameter) { parameter->zero_grad(); });
    }
    [[nodiscard]] Index images() const override { return x_.extent(0); }

private:
    sd::StochasticResidual<Branch> block_;
    sd::Tensor<float> x_, dy_;
};

template <class Branch>
std::unique_ptr<Workload> block_step(Branch branch, const sd::Shape& shape) {
    return std::make_unique<BlockStep<Branch>>(std::move(branch), shape);
}

}  // namespace

std::vector<NamedWorkload> block_steps() {
    std::vector<NamedWorkload> all;
    for (const auto& [size, channels] : {std::pair<Index, Index>{56, 256}, {14, 1024}}) {
        const sd::Shape shape{16, size, size, channels};
        const sd::BranchOptions options{.in_channels = channels, .planes = channels / 4};
        const std::string extents = sd::text("16x", size, 'x', size, 'x', channels);
        all.push_back({"block_step/bottleneck/" + extents, [=] {
                           Initializer initializer(1);
                           return block_step(sd::Bottleneck<float>(options, initializer), shape);
                       }});
        all.push_back({"block_step/composed/" + extents, [=] {
                           Initializer initializer(1);
                           return block_step(composed_bottleneck(options, initializer), shape);
                       }});
    }
    return all;
}

}  // namespace bench
