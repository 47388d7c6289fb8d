// A run that is saved and goes on: interrupt it at any moment and start it again.
//
//     resume [folder]
#include <sd/training.hpp>
#include <sd/train/checkpoint_saver.hpp>

#include <iostream>

int main(int count, char** arguments) {
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(64, 10, 16, 16, 42));
    const sd::DataLoader loader(images, {.batch_size = 16, .seed = 42});
    auto model = sd::cifar_resnet<float>(20, {.num_classes = 10, .seed = 42});
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.03, .momentum = 0.9});
    const sd::StochasticDepth stochastic_depth({.target_layer_name = "ResNetBasicBlock", .drop_rate = 0.5});

    sd::Trainer trainer(model, optimizer, loader, {.max_duration = "4ep", .algorithms = {stochastic_depth}});
    sd::CheckpointSaver saver(trainer, {.directory = count > 1 ? arguments[1] : "first_run", .interval = "3ba"});
    if (const auto found = saver.resume()) std::cout << "resumed from " << found->path.string() << '\n';
    trainer.fit();
    std::cout << "trained " << trainer.state().timestamp.batch << " batches\n";
}
