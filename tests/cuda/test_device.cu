// All that the toolkit's headers have, compiled by nvcc, and the kernels and networks on a GPU.
#include "sd/cuda/cuda.hpp"

#include <tuple>

namespace {
using KernelDevice = sd::Cuda;
using ContractDevices = std::tuple<sd::Cuda>;
}  // namespace

#include "../cuda_conv2d_cases.hpp"
#include "../cuda_family_cases.hpp"
#include "../cuda_join_cases.hpp"
#include "../cuda_kernel_cases.hpp"
#include "../cuda_network_cases.hpp"
#include "../device_contract_cases.hpp"

namespace {

/// mask[i] = whether sample i of block `block` keeps its branch.
struct DrawMask {
    double drop_rate;
    std::uint64_t seed, step;
    std::uint32_t block;
    std::uint8_t* mask;
    SD_HOST_DEVICE void operator()(sd::cuda::Thread thread) const {
        const auto i = static_cast<std::uint32_t>(thread.block * sd::cuda::block_threads + thread.index);
        mask[i] = sd::keeps_branch(drop_rate, seed, step, block, i) ? 1 : 0;
    }
};

}  // namespace

TEST_CASE("device: masks are the processor's, bit by bit") {
    constexpr Index blocks = 64;
    auto mask = sd::Tensor<std::uint8_t, sd::Cuda>::empty({blocks * sd::cuda::block_threads});
    for (const double rate : {0.0, 0.1, 0.5, 1.0}) {
        sd::cuda::launch<sd::Cuda>(DrawMask{rate, 42, (std::uint64_t{1} << 40) + 7, 5, mask.data()}, blocks);
        const auto own = sd::to_host(mask);
        for (Index i = 0; i < own.size(); ++i) {
            const bool keeps =
                sd::keeps_branch(rate, 42, (std::uint64_t{1} << 40) + 7, 5, static_cast<std::uint32_t>(i));
            REQUIRE(own.data()[i] == (keeps ? 1 : 0));
        }
    }
}

TEST_CASE("device: after the first steps, none takes memory from the system") {
    const auto bytes_after = [](int steps) {
        (void)cuda_networks::run<float, sd::Cuda>(2, steps);
        return sd::device_pool_bytes();
    };
    const auto before = bytes_after(10);
    CHECK(bytes_after(20) == before);
}

TEST_CASE("device: a step that starts as one graph trains as one that does not") {
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(60, 10, 16, 16, 42));
    using Loader = sd::DataLoader<sd::InMemoryDataset>;
    const sd::DeviceLoader<float, sd::Cuda, Loader> loader(Loader(images, {.batch_size = 8, .seed = 42}));
    const auto score = [&](bool graph) {
        auto model = cuda_networks::network<float, sd::Cuda>(sd::Stem::cifar, sd::ShortcutKind::pad);
        sd::apply_stochastic_depth(model, cuda_networks::methods()[2]);
        sd::Sgd<float, sd::Cuda> optimizer(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9});
        sd::Trainer trainer(model, optimizer, loader, loader,
                            {.max_duration = "3ep", .learning_rate = "cosine", .step_graph = graph});
        trainer.fit();
        return trainer.evaluate();
    };
    CHECK(score(true) == score(false));
}
