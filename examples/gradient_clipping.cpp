// Training with clipped gradients: the library's algorithm, and what it logs.
#include <sd/training.hpp>

#include <iostream>

int main() {
    auto model = sd::cifar_resnet<float>(20, {.num_classes = 10, .seed = 42});
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.03, .momentum = 0.9});
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(192, 10, 32, 32, 42));
    const sd::DataLoader loader(images, {.batch_size = 64, .seed = 42});
    sd::Trainer trainer(model, optimizer, loader,
                        {.max_duration = "2ep",
                         .algorithms = {sd::StochasticDepth({.target_layer_name = "ResNetBasicBlock"}, "0.5dur"),
                                        sd::GradientClipping(0.5)},
                         .loggers = {std::make_shared<sd::ConsoleLogger>()}});
    trainer.fit();
    std::cout << "loss " << trainer.state().loss << '\n';
}
