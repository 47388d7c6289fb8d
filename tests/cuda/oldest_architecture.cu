// A training step on a GPU, compiled for the oldest architecture that is supported: that all of it can be said there.
#include "sd/cuda/cuda.hpp"

#include <cstdint>
#include <span>

/// One step of a network of every kind of layer.
void train(sd::BasicResNet<sd::bfloat16, sd::Cuda>& model, sd::Sgd<float, sd::Cuda>& optimizer,
           const sd::Tensor<sd::bfloat16, sd::Cuda>& images, std::span<const sd::Index> labels, std::uint64_t step) {
    optimizer.zero_grad();
    const auto logits = model.forward(images, sd::Context::train({.step = step, .seed = 42}));
    model.backward(sd::cross_entropy_by_input(logits, labels, 0.1), sd::InputGradient::skipped);
    optimizer.step();
}
