// An algorithm of one's own: gradients clipped by their norm (R. Pascanu, T. Mikolov, Y. Bengio, ICML 2013).
#include <sd/sd.hpp>

#include <cmath>
#include <iostream>

struct GradientClipping {
    double max_norm;

    template <class State>
    bool match(sd::Event event, const State& state) const {
        return event == sd::Event::after_backward && state.is_last_microbatch();
    }
    template <class State>
    void apply(sd::Event, State& state, sd::Logger& logger) const {
        double squares = 0;
        for (const auto& parameter : state.optimizer.parameters()) {
            for (const double d : parameter->grad) squares += d * d;
        }
        const double norm = std::sqrt(squares);
        logger.log("gradient_norm", norm);
        if (norm <= max_norm) return;
        for (const auto& parameter : state.optimizer.parameters()) {
            for (auto& d : parameter->grad) d *= static_cast<std::remove_reference_t<decltype(d)>>(max_norm / norm);
        }
    }
};

int main() {
    auto model = sd::cifar_resnet<float>(20, {.num_classes = 10, .seed = 42});
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.03, .momentum = 0.9});
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(192, 10, 32, 32, 42));
    const sd::DataLoader loader(images, {.batch_size = 64, .seed = 42});
    sd::Trainer trainer(model, optimizer, loader,
                        {.max_duration = "2ep",
                         .algorithms = {sd::StochasticDepth({.target_layer_name = "ResNetBasicBlock"}, "0.5dur"),
                                        GradientClipping{.max_norm = 0.5}},
                         .loggers = {std::make_shared<sd::ConsoleLogger>()}});
    trainer.fit();
    std::cout << "loss " << trainer.state().loss << '\n';
}
