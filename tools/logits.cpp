// sd_logits: loads weights, computes the logits of images, and writes them; tools/check_torchvision_weights.py uses it.
#include "layout.hpp"
#include "networks.hpp"

#include "sd/io/state_dict.hpp"

#include <CLI/CLI.hpp>

#include <iostream>

int main(int argc, char** argv) {
    CLI::App app{"Computes the logits of images."};
    std::string model = "resnet50";
    std::string weights;
    std::string images;
    std::string logits;
    std::string save;
    app.add_option("--model", model)->check(CLI::IsMember(tools::network_names()))->capture_default_str();
    app.add_option("--weights", weights, "safetensors with torchvision's names")->required();
    app.add_option("--images", images, "safetensors with `images` (N, 3, H, W)")->required();
    app.add_option("--logits", logits, "safetensors to write `logits` (N, classes) to")->required();
    app.add_option("--save", save, "safetensors to write the weights to");
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp& help) {
        return app.exit(help);
    } catch (const CLI::ParseError& error) {
        std::cerr << "logits: " << error.what() << '\n';
        return 2;
    }
    try {
        const sd::SafeTensors file = sd::read_weights(weights);
        auto network = tools::make_network<float>(model, {.num_classes = 1});
        const std::vector<sd::Index>& bias = file.entry(network.classifier_prefix() + "bias").shape;
        if (!bias.empty()) network.reset_classifier(bias[0]);
        sd::load_weights(network, file);
        const auto x = tools::to_nhwc(sd::read_safetensors(images).tensor<float>("images"));
        sd::SafeTensors output;
        output.add("logits", network.forward(x, sd::Context::eval()));
        sd::write_safetensors(logits, output);
        if (!save.empty()) sd::save_weights(network, save);
    } catch (const std::exception& error) {
        std::cerr << "logits: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
