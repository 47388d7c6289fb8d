// A training step of every family on a GPU, compiled for the oldest architecture that is supported: that all of it can
// be said there.
#include "sd/cuda/cuda.hpp"

#include <cstdint>
#include <span>

namespace {

using Images = sd::Tensor<sd::bfloat16, sd::Cuda>;

template <class Model>
void train(Model model, const Images& images, std::span<const sd::Index> labels, std::uint64_t step) {
    sd::Sgd<float, sd::Cuda> optimizer(model.parameters());
    const auto logits = model.forward(images, sd::Context::train({.step = step, .seed = 42}));
    model.backward(sd::cross_entropy_by_input(logits, labels, 0.1), sd::InputGradient::skipped);
    optimizer.step();
}

}  // namespace

void train_all(const Images& images, std::span<const sd::Index> labels, std::uint64_t step) {
    train(sd::resnet18<sd::bfloat16, sd::Cuda>(), images, labels, step);
    train(sd::efficientnet_b0<sd::bfloat16, sd::Cuda>(), images, labels, step);
    train(sd::convnext_tiny<sd::bfloat16, sd::Cuda>(), images, labels, step);
    train(sd::regnet_y_400mf<sd::bfloat16, sd::Cuda>(), images, labels, step);
}
