#include <sd/sd.hpp>

#include <iostream>

int main() {
    auto model = sd::cifar_resnet<float>(8, {.num_classes = 10, .seed = 42});
    sd::apply_stochastic_depth(model, {.target_layer_name = "ResNetBasicBlock", .drop_rate = 0.2});
    const auto logits = model.forward(sd::Tensor<float>({2, 32, 32, 3}), sd::Context::eval());
    std::cout << "logits " << logits.shape() << '\n';
}
