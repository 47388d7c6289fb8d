// Trains a ResNet-50 with sample-wise stochastic depth in a plain loop.
//
//     train_resnet50 [steps] [batch size] [image size]
#include <sd/sd.hpp>

#include <chrono>
#include <iostream>
#include <string>

int main(int count, char** arguments) {
    const auto argument = [&](int i, sd::Index otherwise) {
        return count > i ? static_cast<sd::Index>(std::stol(arguments[i])) : otherwise;
    };
    const sd::Index steps = argument(1, 3);
    const sd::Index batch_size = argument(2, 4);
    const sd::Index size = argument(3, 64);
    constexpr std::uint64_t seed = 42;

    auto model = sd::resnet50<float>({.num_classes = 10, .seed = seed});
    sd::apply_stochastic_depth(model, {.target_layer_name = "ResNetBottleneck",
                                       .stochastic_method = sd::StochasticMethod::sample,
                                       .drop_rate = 0.1});
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 1e-4});
    const auto images =
        std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(steps * batch_size, 10, size, size, seed));
    const sd::DataLoader loader(images, {.batch_size = batch_size, .seed = seed});

    const auto start = std::chrono::steady_clock::now();
    for (sd::Index step = 0; step < steps; ++step) {
        const auto batch = loader.load(step / loader.batches(), step % loader.batches());
        const std::span<const sd::Index> labels(batch.labels);
        optimizer.zero_grad();
        const auto logits = model.forward(batch.images, sd::Context::train({.step = step, .seed = seed}));
        std::cout << "step " << step << "  loss " << sd::cross_entropy_forward(logits, labels, 0.0) << '\n';
        model.backward(sd::cross_entropy_by_input(logits, labels, 0.0), sd::InputGradient::skipped);
        optimizer.step();
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::cout << static_cast<double>(steps * batch_size) / seconds.count() << " images/s\n";
}
