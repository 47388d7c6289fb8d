// Four threads use one model at once.
//
//     shared_model evaluation    exits with 0 if each gets the logits of a pass alone
//     shared_model training      what may not be done: passes that keep gradients
#include "sd/sd.hpp"

#include <algorithm>
#include <atomic>
#include <iostream>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

namespace {

/// How many of the threads' passes gave other logits than a pass alone.
template <class Model>
int different_passes(Model& model, const sd::Context& context, sd::Index side) {
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(2, 10, side, side, 42));
    const auto x = sd::DataLoader(images, {.batch_size = 2, .shuffle = false}).load(0, 0).images;
    const auto expected = model.forward(x, context);
    std::atomic<int> different = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 20; ++i) {
                const auto y = model.forward(x, context);
                if (!std::equal(y.begin(), y.end(), expected.begin())) ++different;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    return different;
}

}  // namespace

int main(int argc, char** argv) {
    const bool trains = argc > 1 && std::string_view(argv[1]) == "training";
    const auto context = trains ? sd::Context::eval({.gradients = true}) : sd::Context::eval();
    int different = 0;
    for (const auto method : {sd::StochasticMethod::block, sd::StochasticMethod::sample}) {
        auto basic = sd::cifar_resnet<float>(8, {.num_classes = 10, .seed = 1});
        // A stem with max pooling, projections, and bottlenecks.
        sd::BottleneckResNet<float> bottleneck({.layers = {1, 1}, .planes = {4, 8}, .stem_channels = 8},
                                               {.num_classes = 10, .seed = 1});
        sd::set_warning_handler({});
        sd::apply_stochastic_depth(basic, {.stochastic_method = method, .drop_rate = 0.5});
        sd::apply_stochastic_depth(bottleneck, {.stochastic_method = method, .drop_rate = 0.5});
        // a training pass before leaves what an evaluation must neither read nor free
        (void)basic.forward(sd::Tensor<float>::full({2, 8, 8, 3}, 1.0F), sd::Context::train({.step = 0, .seed = 1}));
        different += different_passes(basic, context, 8);
        different += different_passes(bottleneck, context, 16);
    }
    std::cout << "passes with other logits: " << different << '\n';
    return different == 0 ? 0 : 1;
}
