// Networks on the device's kernels without a device, against the CPU's networks and PyTorch's numbers.
#include "cuda_emulator.hpp"

#include "sd/device/kernels.hpp"

namespace {
using KernelDevice = sd_test::Emulator;
}

#include "../tools/parity_case.hpp"
#include "cuda_network_cases.hpp"

#include <filesystem>

TEST_CASE("kernels do not depend on the order of blocks and threads") {
    const auto bits = [] {
        const auto trace = cuda_networks::run<float, sd_test::Emulator>(2, 1);
        return trace.tensors;
    };
    const auto forwards = bits();
    sd_test::Emulator::backwards = true;
    const auto backwards = bits();
    sd_test::Emulator::backwards = false;
    REQUIRE(forwards.size() == backwards.size());
    for (std::size_t i = 0; i < forwards.size(); ++i) {
        CHECK(std::equal(forwards[i].begin(), forwards[i].end(), backwards[i].begin(), backwards[i].end()));
    }
}

namespace {

using sd_test::Emulator;
using sd_test::in_double;
using Branch = sd::BasicBlock<float, Emulator>;
using Block = sd::StochasticResidual<Branch>;
using Images = sd::Tensor<float, Emulator>;

/// Of images with 16 channels, and a projection to as many if it is asked for.
Block block(sd::AnyPolicy policy, bool projects = false) {
    sd::Initializer initializer(7);
    Branch branch({.in_channels = 16, .planes = 16}, initializer);
    if (!projects) return Block(std::move(branch), policy);
    return Block(std::move(branch), policy, sd::ProjectionShortcut<float, Emulator>(16, 16, 1, initializer));
}

Images images(sd::Index samples) {
    return sd::to_device<Emulator>(sd_test::random_tensor<float>({samples, 6, 6, 16}, 1));
}

/// What the emulator was asked for.
struct Costs {
    sd::Index launches, allocations;
    friend bool operator==(const Costs&, const Costs&) = default;
};
template <class Run>
Costs costs(const Run& run) {
    const Costs before{Emulator::launches, Emulator::allocations};
    run();
    return {Emulator::launches - before.launches, Emulator::allocations - before.allocations};
}

/// The library's branch as a user composes it.
auto composed_branch() {
    using Conv = sd::Conv2d<float, Emulator>;
    using Norm = sd::BatchNorm2d<float, Emulator>;
    sd::Initializer initializer(7);
    return sd::Sequential{sd::named("first", Conv(16, 16, 3, {.padding = 1}, initializer)),
                          sd::named("first_norm", Norm(16)), sd::named("act", sd::Relu<float, Emulator>()),
                          sd::named("second", Conv(16, 16, 3, {.padding = 1}, initializer)),
                          sd::named("second_norm", Norm(16))};
}

}  // namespace

TEST_CASE("device: a user's composition asks of a device what the library's branch asks") {
    const Images x = images(4);
    const auto cost_of_step = [&](auto&& model) {
        return costs([&] {
            const Images y = model.forward(x, sd::Context::train({.step = 0, .seed = 3}));
            (void)model.backward(y);
        });
    };
    const sd::SamplePolicy policy{.drop_rate = 0.5};
    CHECK(cost_of_step(sd::StochasticResidual(composed_branch(), sd::AnyPolicy(policy))) ==
          cost_of_step(block(policy)));
}

TEST_CASE("device: a block keeps a bit an element of its output, and not the output") {
    for (const bool projects : {false, true}) {
        for (const auto compute : {sd::Compute::all, sd::Compute::survivors}) {
            Block model = block(sd::SamplePolicy{.drop_rate = 0.5, .compute = compute}, projects);
            const Images x = images(8);
            Images y = model.forward(x, sd::Context::train({.step = 0, .seed = 42}));
            const std::size_t held = Emulator::live_bytes;
            y = {};
            CHECK(held - Emulator::live_bytes == static_cast<std::size_t>(x.size()) * sizeof(float));
        }
    }
}

TEST_CASE("device: nothing of a dropped block is started or allocated") {
    const sd::Context context = sd::Context::train({.step = 0, .seed = 42});
    const Images x = images(3);
    const Images dy = images(3);

    Block identity = block(sd::BlockPolicy{.drop_rate = 1});
    const Costs nothing = costs([&] {
        CHECK(identity.forward(x, context).shares_storage_with(x));
        CHECK(identity.backward(dy).shares_storage_with(dy));
    });
    CHECK(nothing == Costs{0, 0});

    sd::Initializer initializer(8);
    sd::ProjectionShortcut<float, Emulator> alone(16, 16, 1, initializer);
    const Costs forward = costs([&] { (void)alone.forward(x, context); });
    const Costs backward = costs([&] { (void)alone.backward(dy); });
    Block projection = block(sd::BlockPolicy{.drop_rate = 1}, true);
    projection.set_block_index(1);  // another block of the pass
    // beside the shortcut's: the join in the place of its batch norm's pass, bits and selection
    CHECK(costs([&] { (void)projection.forward(x, context); }) == Costs{forward.launches, forward.allocations + 2});
    // the join, its gradient and selection
    CHECK(costs([&] { (void)projection.backward(dy); }) == Costs{backward.launches + 1, backward.allocations + 2});
    for (const bool projects : {false, true}) {
        Block& dropped = projects ? projection : identity;
        sd::for_each_unnamed_parameter(dropped.branch(), [](auto& parameter) { CHECK_FALSE(parameter->has_grad); });
    }
}

TEST_CASE("device: a branch that computes a rounded number of samples trains as one that computes those kept") {
    const auto run = []<class D>(D) {
        sd::Initializer initializer(7);
        sd::Bottleneck<double, D> branch({.in_channels = 16, .planes = 4}, initializer);
        sd::StochasticResidual<sd::Bottleneck<double, D>> block(
            std::move(branch), sd::SamplePolicy{.drop_rate = 0.4, .compute = sd::Compute::survivors});
        std::vector<sd::Tensor<double>> tensors;
        for (std::uint64_t step = 0; step < 3; ++step) {
            const auto draw = [&](std::uint64_t stream) {
                return sd::to_device<D>(sd_test::random_tensor<double>({70, 5, 5, 16}, 10 * step + stream));
            };
            tensors.push_back(in_double(block.forward(draw(1), sd::Context::train({.step = step, .seed = 42}))));
            tensors.push_back(in_double(block.backward(draw(2))));
        }
        sd::for_each_state(
            block, [&](const std::string&, const auto& parameter) { tensors.push_back(in_double(parameter->grad)); },
            [&]<class Buffer>(const std::string&, const Buffer& buffer) {
                if constexpr (!std::is_same_v<Buffer, std::int64_t>) tensors.push_back(in_double(buffer));
            });
        return tensors;
    };
    const auto ours = run(Emulator());
    const auto theirs = run(sd::Cpu());
    REQUIRE(ours.size() == theirs.size());
    for (std::size_t i = 0; i < ours.size(); ++i) {
        CAPTURE(i);
        CHECK(sd_test::relative_error(ours[i], theirs[i]) < 1e-9);
    }
}

TEST_CASE("PyTorch's numbers, kernels and whole networks") {
    sd::set_warning_handler({});  // the networks here are small on purpose
    int cases = 0;
    for (const auto& file : std::filesystem::directory_iterator(SD_TEST_DATA_DIR "/parity")) {
        CAPTURE(file.path().stem().string());
        const parity::Result result = parity::run_case<sd_test::Emulator>(file.path().string());
        CAPTURE(result.summary());
        CHECK(result.agrees());
        ++cases;
    }
    CHECK(cases == 59);
}

TEST_CASE("device: networks train as on the processor, with the same masks") {
    for (std::size_t method = 0; method < cuda_networks::methods().size(); ++method) {
        CAPTURE(method);
        const auto ours = cuda_networks::run<double, KernelDevice>(method, 3);
        const auto theirs = cuda_networks::run<double, sd::Cpu>(method, 3);
        CHECK(ours.masks == theirs.masks);
        REQUIRE(ours.tensors.size() == theirs.tensors.size());
        for (std::size_t i = 0; i < ours.tensors.size(); ++i) {
            CAPTURE(i);
            CHECK(sd_test::relative_error(ours.tensors[i], theirs.tensors[i]) < 1e-9);
        }
    }
}

TEST_CASE("device: bfloat16 activations give the network's logits to their rounding") {
    const auto ours = cuda_networks::run<sd::bfloat16, KernelDevice>(2, 1);
    const auto theirs = cuda_networks::run<float, sd::Cpu>(2, 1);
    CHECK(ours.masks == theirs.masks);
    CHECK(sd_test::relative_error(ours.tensors.front(), theirs.tensors.front()) < 0.1);
}

TEST_CASE("device: the trainer trains there as on the processor") {
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(24, 10, 16, 16, 42));
    const sd::DataLoader loader(images, {.batch_size = 8, .seed = 42});
    const sd::Score theirs = cuda_networks::fit<float, sd::Cpu>(loader);
    const sd::DeviceLoader<float, KernelDevice, sd::DataLoader<sd::InMemoryDataset>> device_loader(loader);
    const sd::Score ours = cuda_networks::fit<float, KernelDevice>(device_loader);
    CHECK(ours.samples == theirs.samples);
    CHECK(ours.loss() == doctest::Approx(theirs.loss()).epsilon(1e-4));
    const sd::DeviceLoader<sd::bfloat16, KernelDevice, sd::DataLoader<sd::InMemoryDataset>> half_loader(loader);
    CHECK(cuda_networks::fit<sd::bfloat16, KernelDevice>(half_loader).loss() ==
          doctest::Approx(theirs.loss()).epsilon(0.05));
}
