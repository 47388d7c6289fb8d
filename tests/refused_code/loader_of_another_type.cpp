// A model of double is trained with a loader of float.
#include <sd/training.hpp>

#include <memory>

#ifdef SD_RIGHT
using Loader = sd::DataLoader<sd::InMemoryDataset, double>;
#else
using Loader = sd::DataLoader<sd::InMemoryDataset>;
#endif

int main() {
    auto model = sd::cifar_resnet<double>(8);
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.1});
    const Loader loader(std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(4, 10, 32, 32, 1)));
    sd::Trainer trainer(model, optimizer, loader, {.max_duration = "1ba"});
    trainer.fit();
}
