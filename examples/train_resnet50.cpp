// Trains a ResNet-50 with sample-wise stochastic depth.
//
//     train_resnet50 [steps] [batch size] [image size]
#include <sd/training.hpp>

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
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 1e-4});
    const auto images =
        std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(steps * batch_size, 10, size, size, seed));
    const auto others = std::make_shared<sd::InMemoryDataset>(
        sd::synthetic_images(batch_size, 10, size, size, seed, steps * batch_size));
    const sd::DataLoader train_loader(images, {.batch_size = batch_size, .seed = seed});
    const sd::DataLoader eval_loader(others, {.batch_size = batch_size, .shuffle = false});
    const sd::StochasticDepthOptions options{
        .target_layer_name = "ResNetBottleneck", .stochastic_method = sd::StochasticMethod::sample, .drop_rate = 0.1};
    sd::Trainer trainer(model, optimizer, train_loader, eval_loader,
                        {.max_duration = "1ep",
                         .algorithms = {sd::StochasticDepth(options)},
                         .seed = seed,
                         .loggers = {std::make_shared<sd::ConsoleLogger>()}});
    trainer.fit();
}
