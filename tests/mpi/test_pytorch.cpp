// One step against PyTorch's DistributedDataParallel, computed by tools/make_ddp_case.py: two processes, each of which
// drops blocks of its own.
#include <doctest/doctest.h>

#include "layout.hpp"
#include "random.hpp"
#include "ranks.hpp"

#include "sd/io/safetensors.hpp"
#include "sd/training.hpp"

#include <nlohmann/json.hpp>

#include <set>
#include <vector>

namespace test_pytorch {

namespace {

using sd::Index;
using sd::Tensor;
using Model = sd::BasicResNet<double>;

std::string of_rank(Index rank, const std::string& name) { return sd::text("rank", rank, '.', name); }

Model read_model(const sd::SafeTensors& file, const nlohmann::json& spec) {
    Model model({.layers = spec.at("layers").get<std::vector<Index>>(),
                 .planes = spec.at("planes").get<std::vector<Index>>(),
                 .stem_channels = spec.at("planes").at(0).get<Index>(),
                 .stem = sd::Stem::cifar},
                {.num_classes = spec.at("classes").get<Index>()});
    sd::for_each_state(
        model,
        [&](const std::string& name, auto& parameter) { parameter->value = file.tensor<double>("param." + name); },
        [&]<class Buffer>(const std::string& name, Buffer& buffer) {
            if constexpr (std::is_same_v<Buffer, Tensor<double>>) buffer = file.tensor<double>("buffer." + name);
        });
    return model;
}

/// The first step at which both ranks draw the masks of the case.
std::uint64_t find_step(const sd::SafeTensors& file, std::size_t blocks, std::uint64_t seed) {
    for (std::uint64_t step = 0; step < 100'000; ++step) {
        bool same = true;
        for (std::size_t i = 0; i < blocks; ++i) {
            for (std::uint32_t rank = 0; rank < 2; ++rank) {
                const auto mask = file.tensor<std::int64_t>(of_rank(rank, sd::text("mask.", i)));
                same = same && sd::keeps_branch(0.5, seed, step, static_cast<std::uint32_t>(i), rank) == (mask(0) == 1);
            }
        }
        if (same) return step;
    }
    FAIL("no step draws these masks");
    return 0;
}

TEST_CASE("gradients, losses and running statistics are those of DistributedDataParallel") {
    sd::Communicator& ranks = sd_test::ranks();
    if (ranks.size() != 2) return;  // the case's
    const sd::SafeTensors file = sd::read_safetensors(SD_TEST_DATA_DIR "/distributed_data_parallel.safetensors");
    const auto spec = nlohmann::json::parse(file.metadata().at("spec"));
    Model model = read_model(file, spec);
    const sd::WarningHandler printed = sd::set_warning_handler({});  // of the few blocks
    sd::apply_stochastic_depth(model, {.target_layer_name = "ResNetBasicBlock",
                                       .drop_rate = spec.at("drop_rate"),
                                       .drop_distribution = sd::DropDistribution::uniform,
                                       .use_same_gpu_seed = false});
    sd::set_warning_handler(printed);
    const std::uint64_t step = find_step(file, model.blocks().size(), sd_test::seed);

    const auto own = [&](const std::string& name) { return file.tensor<double>(of_rank(ranks.rank(), name)); };
    const auto labels_of_file = file.tensor<std::int64_t>(of_rank(ranks.rank(), "labels"));
    const std::vector<Index> labels(labels_of_file.begin(), labels_of_file.end());
    const Tensor<double> x = tools::to_nhwc(own("x"));
    sd::DataParallel parallel(model, ranks);
    const Tensor<double> logits =
        model.forward(x, parallel.context({.step = step, .seed = sd_test::seed}, 2 * x.extent(0)));
    CHECK(sd::cross_entropy_forward(logits, std::span<const Index>(labels), 0.0) ==
          doctest::Approx(own("loss")(0)).epsilon(1e-12));
    const Tensor<double> dlogits = sd::cross_entropy_by_input(logits, std::span<const Index>(labels), 0.0);
    parallel.backward([&] { model.backward(parallel.share(dlogits), sd::InputGradient::skipped); });

    const auto no_grad = spec.at("no_grad").get<std::set<std::string>>();
    CHECK(no_grad.size() == 6);  // of the block that both dropped
    int dropped_here = 0;
    for (const auto& block : model.blocks()) dropped_here += block.mask().front() == 0 ? 1 : 0;
    CHECK(dropped_here == 2);
    sd::for_each_state(
        model,
        [&](const std::string& name, const auto& parameter) {
            CAPTURE(name);
            CHECK(parameter->has_grad == !no_grad.contains(name));
            if (!parameter->has_grad) return;
            CHECK(sd_test::relative_error(parameter->grad, file.tensor<double>("grad." + name)) < 1e-10);
        },
        [&]<class Buffer>(const std::string& name, const Buffer& buffer) {
            CAPTURE(name);
            if constexpr (std::is_same_v<Buffer, Tensor<double>>) {
                CHECK(sd_test::relative_error(buffer, own("buffer_after." + name)) < 1e-10);
            } else {
                CHECK(buffer == file.tensor<std::int64_t>(of_rank(ranks.rank(), "buffer_after." + name)).data()[0]);
            }
        });
}

}  // namespace

}  // namespace test_pytorch
