// A trainer with an optimizer that has no step.
#include <sd/training.hpp>

#include <memory>

struct Optimizer : sd::Sgd<float> {
    using sd::Sgd<float>::Sgd;
#ifndef SD_RIGHT
    void step() = delete;
#endif
};

int main() {
    auto model = sd::cifar_resnet<float>(8, {.num_classes = 3, .seed = 1});
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(8, 3, 8, 8, 1));
    const sd::DataLoader loader(images, {.batch_size = 4});
    Optimizer optimizer(model.parameters());
    sd::Trainer trainer(model, optimizer, loader);
    trainer.fit();
}
