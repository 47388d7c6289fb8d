// Training in the steady state takes nothing from the system: every allocation of this program is counted.
#include "random.hpp"

#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <span>
#include <vector>

namespace {

std::atomic<long> allocations{0};

void* counted(std::size_t bytes, std::size_t alignment) {
    allocations.fetch_add(1);
    void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
    return counted(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using sd::Index;

// Allocations of each of four steps. Before them, a step in which every block keeps all samples, and twice four with
// masks, in which the pool finds blocks for tensors of other lifetimes. Of a step with masks every fourth block drops its
// branch, or with survivors, whose tensors have as many samples as a block keeps, every block one of four samples: each
// time others, in turn.
std::vector<long> allocations_of_steps(const sd::StochasticDepthOptions& options) {
    auto model = sd::resnet50<float>({.num_classes = 10, .seed = 3});
    sd::apply_stochastic_depth(model, options);
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 1e-4});
    const auto x = sd_test::random_tensor<float>({4, 64, 64, 3}, 1);
    const std::vector<Index> labels{0, 1, 2, 3};
    const std::span<const Index> classes(labels);
    std::vector<long> counts;
    constexpr int warm_up = 9;
    for (int step = 0; step < warm_up + 4; ++step) {
        for (std::size_t i = 0; i < model.blocks().size(); ++i) {
            const std::size_t turn = (i + static_cast<std::size_t>(step)) % 4;
            sd::Mask mask{1, 1, 1, 1};
            if (step > 0 && options.stochastic_method == sd::StochasticMethod::sample) mask[turn] = 0;
            if (step > 0 && options.stochastic_method == sd::StochasticMethod::block && turn == 0) mask = {0, 0, 0, 0};
            model.blocks()[i].set_mask(mask);
        }
        const long before = allocations.load();
        optimizer.zero_grad();
        const auto logits = model.forward(x, sd::Context::train({.step = step, .seed = 7}));
        const float loss = sd::cross_entropy_forward(logits, classes, 0.0);
        model.backward(sd::cross_entropy_by_input(logits, classes, 0.0));
        optimizer.step();
        const long count = allocations.load() - before;
        CHECK(loss > 0);
        if (step >= warm_up) counts.push_back(count);
    }
    return counts;
}

}  // namespace

TEST_CASE("a training step allocates nothing, whatever is dropped") {
    const long before = allocations.load();
    void* volatile memory = ::operator new(1);  // volatile, so that no compiler leaves it out
    ::operator delete(memory);
    CHECK(allocations.load() == before + 1);  // the counter counts

    using sd::Compute;
    using sd::StochasticMethod;
    sd::StochasticDepthOptions options{
        .target_layer_name = "ResNetBottleneck", .drop_rate = 0.5, .drop_distribution = sd::DropDistribution::uniform};
    SUBCASE("block") { options.stochastic_method = StochasticMethod::block; }
    SUBCASE("sample") { options.stochastic_method = StochasticMethod::sample; }
    SUBCASE("sample, survivors") {
        options.stochastic_method = StochasticMethod::sample;
        options.compute = Compute::survivors;
    }
    for (const long count : allocations_of_steps(options)) CHECK(count == 0);
}
