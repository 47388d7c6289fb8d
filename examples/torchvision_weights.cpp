// Loads the weights of a torchvision ResNet-50 and classifies images.
//
//     tools/pth_to_safetensors.py resnet50.pth resnet50.safetensors
//     torchvision_weights resnet50.safetensors
//
// Without an argument it writes such a file first, with random weights.
#include <sd/io/state_dict.hpp>
#include <sd/sd.hpp>

#include <algorithm>
#include <filesystem>
#include <iostream>

int main(int argc, char** argv) {
    std::filesystem::path weights = argc > 1 ? argv[1] : "random_resnet50.safetensors";
    if (argc == 1) {
        auto random = sd::resnet50<float>({.seed = 1});
        sd::save_weights(random, weights);
    }
    auto model = sd::resnet50<float>();
    sd::load_weights(model, weights);

    // Any data set of (224, 224, 3) images does; these are synthetic.
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(4, 10, 224, 224, 42));
    const auto batch = sd::DataLoader(images, {.batch_size = 4, .shuffle = false}).load(0, 0);
    const sd::Tensor<float> logits = model.forward(batch.images, sd::Context::eval());
    for (sd::Index n = 0; n < logits.extent(0); ++n) {
        const float* row = logits.data() + n * logits.extent(1);
        std::cout << "image " << n << ": class " << std::max_element(row, row + logits.extent(1)) - row << '\n';
    }
    if (argc == 1) std::filesystem::remove(weights);
}
