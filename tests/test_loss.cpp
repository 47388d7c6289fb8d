// Losses and optimizers of a user's own in a loop and in the trainer, against loops written out here.
#include "messages.hpp"
#include "small_network.hpp"

#include "sd/training.hpp"
#include "sd/train/run_settings.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace test_loss {

using sd::Index;
using sd::Tensor;
using sd_test::contains;
using sd_test::message_of;
using sd_test::small_loader;
using sd_test::SmallNetwork;

namespace {

/// The mean over the samples of the squared distance of the logits from the one-hot labels.
struct SquaredError {
    double weight = 1;

    template <class T>
    [[nodiscard]] sd::LossAndGradient<T> operator()(const Tensor<T>& logits, const sd::LabelledImages<T>& batch) const {
        sd::LossAndGradient<T> result{0, Tensor<T>(logits.shape())};
        const T samples = static_cast<T>(logits.extent(0));
        for (Index n = 0; n < logits.extent(0); ++n) {
            for (Index c = 0; c < logits.extent(1); ++c) {
                const T target = batch.labels[static_cast<std::size_t>(n)] == c ? T(1) : T(0);
                const T error = logits(n, c) - target;
                result.loss += T(weight) * error * error / samples;
                result.dlogits(n, c) = 2 * T(weight) * error / samples;
            }
        }
        return result;
    }
    [[nodiscard]] sd::SettingTexts settings() const { return {{"weight", sd::text(weight)}}; }
};

/// w -= learning_rate sign(dw), with what the trainer asks of an optimizer and nothing else.
class SignDescent {
public:
    SignDescent(sd::ParameterList<double> parameters, double learning_rate)
        : parameters_(std::move(parameters)), learning_rate_(learning_rate) {}

    void step() {
        for (const auto& parameter : parameters_) {
            if (!parameter->has_grad) continue;
            for (Index i = 0; i < parameter->value.size(); ++i) {
                parameter->value.data()[i] -= std::copysign(learning_rate_, parameter->grad.data()[i]);
            }
        }
        rates.push_back(learning_rate_);
    }
    void zero_grad() {
        for (const auto& parameter : parameters_) parameter->zero_grad();
    }
    [[nodiscard]] double learning_rate() const { return learning_rate_; }
    void set_learning_rate(double learning_rate) { learning_rate_ = learning_rate; }
    [[nodiscard]] const sd::ParameterList<double>& parameters() const { return parameters_; }
    [[nodiscard]] bool holds(const void* address) const {
        for (const auto& parameter : parameters_) {
            if (parameter.get() == address) return true;
        }
        return false;
    }
    [[nodiscard]] sd::SettingTexts settings() const { return {{"name", "SignDescent"}}; }
    [[nodiscard]] sd::OptimizerState<double> state_dict() const { return {}; }
    void load_state_dict(const sd::OptimizerState<double>&, const std::string&) {}

    std::vector<double> rates;

private:
    sd::ParameterList<double> parameters_;
    double learning_rate_;
};

/// One epoch of three batches by hand.
template <class Optimizer, class L>
std::vector<double> trained_by_hand(SmallNetwork<double>& model, Optimizer& optimizer, const L& loss_of) {
    std::uint64_t step = 0;
    sd::number_blocks(model);
    for (const auto& batch : small_loader<double>(12).epoch(0, 0)) {
        optimizer.zero_grad();
        const auto logits = model.forward(batch.images, sd::Context::train({.step = step++, .seed = 0}));
        const auto [loss, dlogits] = loss_of(logits, batch.labels);
        CHECK(loss > 0);
        model.backward(dlogits);
        optimizer.step();
    }
    return model.numbers();
}

}  // namespace

TEST_CASE("cross_entropy gives in one call what its two halves give, on labels and on probabilities") {
    const Tensor<double> logits({2, 3}, {0.5, -1.0, 2.0, 1.5, 0.25, -0.75});
    const std::vector<Index> labels{2, 0};
    const auto check = [&](const auto& target, double smoothing) {
        const auto [loss, dlogits] = sd::cross_entropy(logits, target, smoothing);
        CHECK(loss == sd::cross_entropy_forward(logits, target, smoothing));
        const auto expected = sd::cross_entropy_by_input(logits, target, smoothing);
        for (Index i = 0; i < 6; ++i) CHECK(dlogits.data()[i] == expected.data()[i]);
    };
    check(std::span<const Index>(labels), 0.1);
    check(Tensor<double>({2, 3}, {0.2, 0.3, 0.5, 1, 0, 0}), 0.1);
    const auto [loss, dlogits] = sd::cross_entropy(logits, labels);
    CHECK(loss == sd::cross_entropy_forward(logits, std::span<const Index>(labels), 0.0));
    CHECK(dlogits.shape() == logits.shape());
    CHECK(contains(message_of([&] {
                       (void)sd::cross_entropy(Tensor<double>(sd::Shape{0, 3}), std::vector<Index>{});
                   }),
                   "cross_entropy: shape of logits: got (0, 3), expected at least one sample"));
}

TEST_CASE("the trainer trains and evaluates with a user's loss") {
    const sd_test::Warnings fewer_than_8_blocks;
    const SquaredError squared{.weight = 0.5};
    const auto by_hand = [&] {
        SmallNetwork<double> model;
        sd::AdamW<double> optimizer(model.parameters());
        return trained_by_hand(model, optimizer, [&](const auto& logits, const auto& labels) {
            return squared(logits, sd::LabelledImages<double>{{}, labels});
        });
    };
    SmallNetwork<double> model;
    sd::AdamW<double> optimizer(model.parameters());
    const auto loader = small_loader<double>(12), eval_loader = small_loader<double>(4);
    sd::Trainer trainer(model, optimizer, squared, loader, eval_loader, {});
    trainer.fit();
    CHECK(model.numbers() == by_hand());
    const auto batch = eval_loader.load(0, 0);
    const auto logits = model.forward(batch.images, sd::Context::eval());
    const double expected = squared(logits, sd::LabelledImages<double>{{}, batch.labels}).loss;
    CHECK(trainer.evaluate().loss() == doctest::Approx(expected).epsilon(1e-15));

    const auto settings = sd::detail::settings_of_run(trainer);
    CHECK(contains(settings.at("loss"), "SquaredError"));
    CHECK(settings.at("loss.weight") == "0.5");
    CHECK(settings.at("optimizer.name") == "AdamW");
    CHECK(settings.at("optimizer.beta2") == "0.999");

    // Nothing that an algorithm asks of the loss may be lost in silence.
    sd::Trainer smoothed(model, optimizer, squared, loader, {.algorithms = {sd::LabelSmoothing(0.1)}});
    CHECK(message_of([&] { smoothed.fit(); }) ==
          "Trainer: label_smoothing: got 0.1, expected 0: the loss takes no LossOptions");
}

TEST_CASE("a loss sees the targets that mixup made, and options if it takes them") {
    struct Observer {
        std::vector<double>* seen;
        sd::LossAndGradient<double> operator()(const Tensor<double>& logits, const sd::LabelledImages<double>& batch,
                                               const sd::LossOptions& options = {}) const {
            seen->push_back(batch.targets ? options.label_smoothing : -1);
            return sd::CrossEntropy()(logits, batch, options);
        }
    };
    std::vector<double> seen;
    SmallNetwork<double> model;
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.01});
    const sd_test::Warnings warnings;
    sd::Trainer trainer(model, optimizer, Observer{&seen}, small_loader<double>(8), small_loader<double>(4),
                        {.algorithms = {sd::LabelSmoothing(0.25), sd::Mixup(0.5)}});
    trainer.fit();
    CHECK(seen == std::vector<double>{0.25, 0.25, -1});  // two batches, one of evaluation
}

TEST_CASE("the trainer trains with a user's optimizer, at the learning rates of the schedule") {
    const sd_test::Warnings fewer_than_8_blocks;
    const auto by_hand = [&] {
        SmallNetwork<double> model;
        SignDescent optimizer(model.parameters(), 0.01);
        return trained_by_hand(
            model, optimizer, [](const auto& logits, const auto& labels) { return sd::cross_entropy(logits, labels); });
    };
    SmallNetwork<double> model;
    SignDescent optimizer(model.parameters(), 0.01);
    sd::Trainer trainer(model, optimizer, small_loader<double>(12));
    trainer.fit();
    CHECK(model.numbers() == by_hand());
    CHECK(sd::detail::settings_of_run(trainer).at("optimizer.name") == "SignDescent");
    CHECK(sd::detail::settings_of_run(trainer).at("learning_rate") == "0.01");

    optimizer.rates.clear();
    sd::Trainer scheduled(model, optimizer, small_loader<double>(12), {.learning_rate = "multistep:1ba:0.5"});
    scheduled.fit();
    CHECK(optimizer.rates == std::vector<double>{0.01, 0.005, 0.005});
    CHECK(optimizer.learning_rate() == 0.01);
}

}  // namespace test_loss
