// A trainer with a loss that gives no gradient.
#include <sd/training.hpp>

#include <memory>

struct MeanLoss {
#ifdef SD_RIGHT
    sd::LossAndGradient<float> operator()(const sd::Tensor<float>& logits, const sd::LabelledImages<float>&) const {
        return {0, logits};
    }
#else
    float operator()(const sd::Tensor<float>&, const sd::LabelledImages<float>&) const { return 0; }
#endif
};

int main() {
    auto model = sd::cifar_resnet<float>(8, {.num_classes = 3, .seed = 1});
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(8, 3, 8, 8, 1));
    const sd::DataLoader loader(images, {.batch_size = 4});
    sd::Sgd<float> optimizer(model.parameters());
    sd::Trainer trainer(model, optimizer, MeanLoss(), loader, loader, {.max_duration = "1ba"});
    trainer.fit();
}
