// Fine-tunes a ResNet-18 on images of other classes, FOLDER/train/CLASS/* and FOLDER/val/CLASS/*: the classifier is
// new, stem and first stage stay as they are, the rest is trained with stochastic depth.
//
//     tools/pth_to_safetensors.py resnet18.pth resnet18.safetensors
//     fine_tune FOLDER resnet18.safetensors
//
// Without weights it starts from random ones.
#include <sd/data/image_folder.hpp>
#include <sd/io/state_dict.hpp>
#include <sd/training.hpp>

#include <exception>
#include <filesystem>
#include <iostream>

int main(int argc, char** argv) {
    if (argc < 2) {
        std::cerr << "usage: fine_tune FOLDER [WEIGHTS]\n";
        return 2;
    }
    try {
        const std::filesystem::path folder = argv[1];
        const auto train_images = std::make_shared<sd::ImageFolder>(folder / "train");
        const auto eval_images = std::make_shared<sd::ImageFolder>(folder / "val");

        auto model = sd::resnet18<float>({.seed = 42});
        if (argc > 2) std::cout << sd::load_weights(model, argv[2], {.skip = {"fc."}});
        model.reset_classifier(train_images->num_classes(), {.seed = 1});
        for (const char* const prefix : {"conv1.", "bn1.", "layer1."}) sd::freeze(model, prefix);

        // Made last: an optimizer holds the parameters that there are then.
        sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.001, .momentum = 0.9});
        sd::Trainer trainer(
            model, optimizer, sd::DataLoader(train_images, {.batch_size = 32, .augmentation = sd::Augmentation{}}),
            sd::DataLoader(eval_images, {.batch_size = 32, .shuffle = false}),
            {.max_duration = "2ep",
             .algorithms = {sd::StochasticDepth({.target_layer_name = "ResNetBasicBlock", .drop_rate = 0.1})},
             .loggers = {std::make_shared<sd::ConsoleLogger>()}});
        trainer.fit();
        sd::save_weights(model, "fine_tuned.safetensors");  // for a plain network, here or in PyTorch
    } catch (const std::exception& error) {
        std::cerr << "fine_tune: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
