// One epoch of training, one evaluation: the plain loop that the demo and the training tool share.
#pragma once

#include "sd/sd.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <span>

namespace tools {

using sd::Index;

/// Mean loss and accuracy over a number of samples.
struct Score {
    double loss = 0;
    double accuracy = 0;
    Index samples = 0;
    double seconds = 0;

    void add(double batch_loss, Index batch_correct, Index batch_samples) {
        const double total = static_cast<double>(samples + batch_samples);
        const double share = static_cast<double>(batch_samples) / total;
        loss += (batch_loss - loss) * share;
        accuracy += (static_cast<double>(batch_correct) / static_cast<double>(batch_samples) - accuracy) * share;
        samples += batch_samples;
    }
};

/// How many rows have their largest logit at the label.
template <class T>
Index count_correct(const sd::Tensor<T>& logits, std::span<const Index> labels) {
    Index correct = 0;
    const Index classes = logits.extent(1);
    for (Index n = 0; n < logits.extent(0); ++n) {
        const T* row = logits.data() + n * classes;
        if (std::max_element(row, row + classes) - row == labels[static_cast<std::size_t>(n)]) ++correct;
    }
    return correct;
}

/// What a training loop tells after every batch.
struct BatchReport {
    Index epoch, batch, batches;
    std::uint64_t step;
    double loss;
    double accuracy;
};

/// Sum of the survival probabilities 1 - p of all blocks: the mean number of branches that a sample passes in training.
template <class Model>
double expected_depth(const Model& model) {
    double depth = 0;
    for (const auto& block : model.blocks()) depth += 1 - block.policy().drop_rate();
    return depth;
}

inline double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Trains on the batches of one epoch, at most max_batches of them (0: all), and returns the running score of the
/// training passes. `step` counts batches over the whole run. Throws std::runtime_error if the loss is not finite.
template <class Model, class Loader>
Score train_epoch(Model& model, sd::Sgd<float>& optimizer, const Loader& loader, Index epoch, std::uint64_t seed,
                  std::uint64_t& step, Index max_batches, const std::function<void(const BatchReport&)>& report) {
    const auto start = std::chrono::steady_clock::now();
    const Index batches = max_batches > 0 ? std::min(max_batches, loader.batches()) : loader.batches();
    Score score;
    Index i = 0;
    for (const auto& batch : loader.epoch(epoch)) {
        const std::span<const Index> labels(batch.labels);
        optimizer.zero_grad();
        const sd::Tensor<float> logits = model.forward(batch.images, sd::Context::train({.step = step, .seed = seed}));
        const auto loss = static_cast<double>(sd::cross_entropy_forward(logits, labels, 0.0));
        if (!std::isfinite(loss)) {
            throw std::runtime_error(sd::text("training: loss at batch ", step, ": got ", loss,
                                              ", expected a finite number; try a smaller learning rate"));
        }
        model.backward(sd::cross_entropy_by_input(logits, labels, 0.0), sd::InputGradient::skipped);
        optimizer.step();
        const Index correct = count_correct(logits, labels);
        score.add(loss, correct, logits.extent(0));
        report({epoch, i, batches, step, loss, static_cast<double>(correct) / static_cast<double>(logits.extent(0))});
        ++step;
        if (++i == batches) break;
    }
    score.seconds = seconds_since(start);
    return score;
}

/// The score on all batches of the loader, in evaluation.
template <class Model, class Loader>
Score evaluate(Model& model, const Loader& loader) {
    const auto start = std::chrono::steady_clock::now();
    Score score;
    for (const auto& batch : loader.epoch(0)) {
        const std::span<const Index> labels(batch.labels);
        const sd::Tensor<float> logits = model.forward(batch.images, sd::Context::eval());
        score.add(static_cast<double>(sd::cross_entropy_forward(logits, labels, 0.0)), count_correct(logits, labels),
                  logits.extent(0));
    }
    score.seconds = seconds_since(start);
    return score;
}

}  // namespace tools
