// A model of floats with an optimizer of doubles.
#include "sd/training.hpp"

#include <memory>

int main() {
    auto model = sd::cifar_resnet<float>(8, {.num_classes = 3, .seed = 1});
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(8, 3, 8, 8, 1));
    const sd::DataLoader loader(images, {.batch_size = 4});
#if defined(SD_RIGHT)
    sd::Sgd<float> optimizer(model.parameters());
#else
    sd::Sgd<double> optimizer(sd::ParameterList<double>{});
#endif
    sd::Trainer trainer(model, optimizer, loader);
}
