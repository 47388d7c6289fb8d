// Makes the blocks of a ResNet-50 stochastic and shows what that means for training.
#include <sd/sd.hpp>

#include <iostream>

int main() {
    auto model = sd::resnet50<float>({.num_classes = 1000, .seed = 42});
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 1e-4});

    // Parameters stay where they are, so an optimizer that exists already goes on; naming it here has it verified.
    sd::apply_stochastic_depth(model,
                               {.target_layer_name = "ResNetBottleneck",
                                .stochastic_method = sd::StochasticMethod::sample,
                                .drop_rate = 0.1,
                                .drop_distribution = sd::DropDistribution::linear,
                                .compute = sd::Compute::survivors},
                               {optimizer});
    std::cout << sd::describe(model, 32);
}
