// Trains one network on several processes.
//
//     mpirun -n 2 data_parallel
#include <sd/mpi/session.hpp>
#include <sd/training.hpp>

#include <iostream>

int train(sd::Communicator& ranks) {
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(256, 10, 16, 16, 42));
    const sd::DataLoader loader(images, {.batch_size = 32, .seed = 42, .rank = ranks.rank(), .ranks = ranks.size()});
    auto model = sd::cifar_resnet<float>(20, {.num_classes = 10, .seed = 42});
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.03, .momentum = 0.9});
    const sd::StochasticDepth stochastic_depth({.target_layer_name = "ResNetBasicBlock", .drop_rate = 0.5});

    sd::Trainer trainer(model, optimizer, loader,
                        {.max_duration = "1ep",
                         .algorithms = {stochastic_depth},
                         .seed = 42,
                         .loggers = {std::make_shared<sd::ConsoleLogger>()},
                         .communicator = &ranks,
                         .data_parallel = {.synchronised_batch_norm = true}});
    trainer.fit();
    return 0;
}

int main(int argc, char** argv) { return sd::run_ranks(argc, argv, train); }
