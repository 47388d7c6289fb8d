#include <sd/sd.hpp>

#include <iostream>

int main() {
    auto model = sd::cifar_resnet<float>(20, {.num_classes = 10, .seed = 42});
    sd::apply_stochastic_depth(model, {.target_layer_name = "ResNetBasicBlock",
                                       .stochastic_method = sd::StochasticMethod::sample,
                                       .drop_rate = 0.2});
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.03, .momentum = 0.9, .weight_decay = 1e-4});
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(1280, 10, 32, 32, 42));
    const sd::DataLoader loader(images, {.batch_size = 128, .seed = 42});
    for (sd::Index step = 0; step < loader.batches(); ++step) {
        const auto batch = loader.load(0, step);
        const std::span<const sd::Index> labels(batch.labels);
        optimizer.zero_grad();
        const auto logits = model.forward(batch.images, sd::Context::train({.step = step, .seed = 42}));
        std::cout << sd::cross_entropy_forward(logits, labels, 0.0) << '\n';
        model.backward(sd::cross_entropy_by_input(logits, labels, 0.0), sd::InputGradient::skipped);
        optimizer.step();
    }
}
