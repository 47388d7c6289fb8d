// Optimizers, groups and state against PyTorch's numbers.
#include "messages.hpp"
#include "small_network.hpp"

#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_optimizers {

using sd::Index;
using sd::Tensor;
using sd_test::contains;
using sd_test::error_of;
using sd_test::message_of;

namespace {

using Numbers = std::vector<double>;

sd::ParameterPtr<double> parameter(const std::string& name, const Numbers& values) {
    Tensor<double> tensor(sd::Shape{static_cast<Index>(values.size())});
    tensor.write(values.data());
    auto result = std::make_shared<sd::Parameter<double>>(tensor);
    result->name = name;
    return result;
}

void give(const sd::ParameterPtr<double>& to, const Numbers& gradient) {
    Tensor<double> tensor(to->value.shape());
    tensor.write(gradient.data());
    to->add_grad(tensor);
}

void check(const Tensor<double>& ours, const Numbers& expected) {
    REQUIRE(static_cast<std::size_t>(ours.size()) == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        CHECK(ours.data()[i] == doctest::Approx(expected[i]).epsilon(1e-13));
    }
}

/// Four steps of two parameters; b gets no gradient in the second.
template <class Optimizer>
struct Steps {
    using Options = typename Optimizer::Options;

    /// In groups, b has ten times the learning rate and no weight decay.
    Steps(const Options& options, bool in_groups)
        : optimizer(in_groups ? Optimizer(groups(), options) : Optimizer({w, b}, options)) {}

    sd::ParameterGroups<double> groups() {
        return {{.parameters = {w}}, {.parameters = {b}, .learning_rate_factor = 10, .weight_decay = 0}};
    }
    void take(std::size_t step) {
        const std::vector<Numbers> of_w{{0.5, -1, 0.125}, {0.25, 0.5, -0.75}, {-1.5, 0, 2}, {0.375, -0.25, 1}};
        const std::vector<Numbers> of_b{{1, -0.25}, {}, {0.5, 0.75}, {-0.125, 0}};
        optimizer.zero_grad();
        give(w, of_w[step]);
        if (step != 1) give(b, of_b[step]);
        optimizer.step();
    }

    sd::ParameterPtr<double> w = parameter("w", {1, -0.5, 0.25});
    sd::ParameterPtr<double> b = parameter("b", {0.75, -2});
    Optimizer optimizer;
};

/// w is the same with and without groups.
template <class Optimizer>
void check_steps(const typename Optimizer::Options& options, const Numbers& w, const Numbers& b,
                 const Numbers& b_in_group) {
    for (const bool in_groups : {false, true}) {
        CAPTURE(in_groups);
        Steps<Optimizer> steps(options, in_groups);
        for (std::size_t i = 0; i < 4; ++i) steps.take(i);
        check(steps.w->value, w);
        check(steps.b->value, in_groups ? b_in_group : b);
    }
}

}  // namespace

// torch.optim.SGD, AdamW and RMSprop of PyTorch 1.13 in double; for RmspropTf the formula that timm's RMSpropTF has,
// computed with PyTorch. b's second gradient is None, its group {"lr": 10 * lr, "weight_decay": 0}.
TEST_CASE("four steps, one of them skipped by a parameter, plain and in groups, against PyTorch's numbers") {
    check_steps<sd::Sgd<double>>({.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01},
                                 {0.9991610133509998, -0.2627948917505, -0.07196841541225006},
                                 {0.39272599924999996, -2.0635595730000005}, {-2.785, -2.7475});
    check_steps<sd::Sgd<double>>({.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true},
                                 {1.0331451108163372, -0.210408831375576, -0.2780862525021657},
                                 {0.28953328995574995, -2.101191330807}, {-3.8065, -3.17275});
    check_steps<sd::AdamW<double>>(
        {.learning_rate = 0.01, .beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3, .weight_decay = 0.05},
        {0.9846112657944, -0.4825202305160628, 0.23535027586907567}, {0.7236158167938495, -1.9963629206627207},
        {0.4972563122273102, -1.9935413575141177});
    check_steps<sd::Rmsprop<double>>(
        {.learning_rate = 0.01, .alpha = 0.9, .eps = 0.0316, .momentum = 0.9, .weight_decay = 0.01},
        {0.9207348205177135, -0.4296656456931667, 0.19628661671175315}, {0.6495498364738198, -1.9869126917494597},
        {-0.25024308314002247, -1.8960463006279458});
    check_steps<sd::Rmsprop<double>>({.learning_rate = 0.01, .alpha = 0.9, .eps = 0.0316, .weight_decay = 0.01},
                                     {0.9815857372248843, -0.47711072346729877, 0.2179529917561326},
                                     {0.7109513285430074, -2.002587747333439},
                                     {0.36276610211916627, -2.0416022683332034});
    check_steps<sd::RmspropTf<double>>(
        {.learning_rate = 0.01, .alpha = 0.9, .eps = 1e-3, .momentum = 0.9, .weight_decay = 0.01},
        {0.9986480214084836, -0.47638270178188236, 0.2228489014025958}, {0.7140110052401094, -2.0069597923614944},
        {0.39409133072168245, -2.0813953745420695});
}

TEST_CASE("state has PyTorch's names and numbers, and counts the updates of each parameter alone") {
    Steps<sd::AdamW<double>> steps({.learning_rate = 0.01, .beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3}, false);
    for (std::size_t i = 0; i < 4; ++i) steps.take(i);
    const auto state = steps.optimizer.state_dict();
    REQUIRE(state.size() == 6);
    CHECK(state.at("w.step").shape() == sd::Shape{});
    CHECK(state.at("w.step").data()[0] == 4);
    CHECK(state.at("b.step").data()[0] == 3);
    check(state.at("w.exp_avg"), {-0.08179999999999998, -0.08839999999999999, 0.4367999999999999});
    check(state.at("w.exp_avg_sq"), {0.23984999999999998, 0.09939999999999999, 0.5067015624999999});
    check(state.at("b.exp_avg"), {0.18299999999999997, 0.08799999999999998});
    check(state.at("b.exp_avg_sq"), {0.10506249999999998, 0.05568749999999999});

    Steps<sd::Rmsprop<double>> rmsprop(
        {.learning_rate = 0.01, .alpha = 0.9, .eps = 0.0316, .momentum = 0.9, .weight_decay = 0.01}, true);
    for (std::size_t i = 0; i < 4; ++i) rmsprop.take(i);
    const auto other = rmsprop.optimizer.state_dict();
    REQUIRE(other.size() == 4);
    check(other.at("b.square_avg"), {0.10506249999999998, 0.05568749999999999});
    check(other.at("b.momentum_buffer"), {3.1912176618536834, 0.5777515363378737});
}

TEST_CASE_TEMPLATE("an optimizer that loads another's state goes on as the other does", O, sd::Sgd<double>,
                   sd::AdamW<double>, sd::Rmsprop<double>, sd::RmspropTf<double>) {
    typename O::Options options{.learning_rate = 0.01};
    if constexpr (requires { options.momentum; }) options.momentum = 0.9;
    for (const std::size_t before : {0U, 1U, 2U, 3U}) {
        CAPTURE(before);
        Steps<O> one(options, true), other(options, true);
        for (std::size_t i = 0; i < before; ++i) one.take(i);
        other.take(0);  // to be forgotten
        other.optimizer.load_state_dict(one.optimizer.state_dict());
        other.w->value = one.w->value.clone();
        other.b->value = one.b->value.clone();
        for (std::size_t i = before; i < 4; ++i) {
            one.take(i);
            other.take(i);
        }
        for (Index i = 0; i < 3; ++i) CHECK(other.w->value(i) == one.w->value(i));
        for (Index i = 0; i < 2; ++i) CHECK(other.b->value(i) == one.b->value(i));
    }
}

TEST_CASE("state of which a part is missing, or that is none, is refused and changes nothing") {
    Steps<sd::AdamW<double>> steps({}, false);
    steps.take(0);
    const auto whole = steps.optimizer.state_dict();
    const auto refusal = [&](const std::string& name, std::optional<Tensor<double>> other) {
        auto state = whole;
        state.erase(name);
        if (other) state[name] = *other;
        return error_of<std::runtime_error>([&] { steps.optimizer.load_state_dict(state, "file"); });
    };
    CHECK(contains(refusal("b.step", std::nullopt), "file: b.step: got none, expected one beside"));
    CHECK(contains(refusal("b.exp_avg", std::nullopt), "file: b.exp_avg: got none"));
    CHECK(contains(refusal("w.step", Tensor<double>(sd::Shape{}, {1.5})), "file: w.step: got 1.5, expected a whole"));
    CHECK(contains(refusal("w.step", Tensor<double>(sd::Shape{}, {-1})), "w.step: got -1"));
    CHECK(contains(refusal("w.step", Tensor<double>(sd::Shape{1}, {1})), "w.step: shape: got (1), expected ()"));
    CHECK(contains(refusal("w.momentum_buffer", Tensor<double>(sd::Shape{3})), "buffers of the parameters that AdamW"));
    CHECK(steps.optimizer.state_dict().at("w.step").data()[0] == 1);

    // Momentum may come and go: its buffer then starts anew.
    Steps<sd::Rmsprop<double>> without({.momentum = 0}, false), with({.momentum = 0.9}, false);
    without.take(0);
    with.optimizer.load_state_dict(without.optimizer.state_dict());
    with.take(1);
    CHECK(with.optimizer.state_dict().contains("w.momentum_buffer"));
}

TEST_CASE("settings outside their ranges are refused") {
    const auto w = parameter("w", {1});
    const auto adamw = [&](const sd::AdamWOptions& options) {
        return message_of([&] { sd::AdamW<float>({}, options); });
    };
    CHECK(contains(adamw({.beta1 = 1}), "AdamW: beta1: got 1, expected a number from 0 to less than 1"));
    CHECK(contains(adamw({.beta2 = -0.1}), "AdamW: beta2: got -0.1"));
    CHECK(contains(adamw({.beta2 = 1 - 1e-9}), "AdamW: beta2: got 1"));  // which is 1 in float
    CHECK(contains(adamw({.eps = 0}), "AdamW: eps: got 0"));
    CHECK(contains(adamw({.eps = 1e-60}), "AdamW: eps: got 1e-60"));  // which is 0 in float
    CHECK(contains(adamw({.weight_decay = -1}), "AdamW: weight_decay: got -1"));
    CHECK(contains(message_of([&] { sd::Rmsprop<double>({w}, {.alpha = 1.5}); }), "Rmsprop: alpha: got 1.5"));
    CHECK(contains(message_of([&] { sd::RmspropTf<double>({w}, {.momentum = -1}); }), "RmspropTf: momentum: got -1"));
    const double none = std::numeric_limits<double>::quiet_NaN();
    CHECK(contains(message_of([&] { sd::RmspropTf<double>({w}, {.eps = none}); }), "RmspropTf: eps: got nan"));

    using Groups = sd::ParameterGroups<double>;
    const auto groups = [&](const Groups& all) { return message_of([&] { sd::Sgd<double> optimizer(all); }); };
    CHECK(contains(groups({{.parameters = {w}}, {.parameters = {w}}}), "got w twice, expected each parameter in one"));
    CHECK(contains(groups({{.parameters = {w}, .learning_rate_factor = -1}}), "learning_rate_factor: got -1"));
    CHECK(contains(groups({{.parameters = {w}, .weight_decay = -1}}), "weight_decay: got -1"));
    CHECK(contains(groups({{.parameters = {nullptr}}}), "an empty pointer"));
    // What a group makes of a learning rate must be a number too.
    sd::Sgd<double> large(Groups{{.parameters = {w}, .learning_rate_factor = 1e200}}, {.learning_rate = 1});
    CHECK_THROWS_AS(large.set_learning_rate(1e200), std::invalid_argument);
    CHECK(large.learning_rate() == 1);
}

TEST_CASE("rules make groups of a model's parameters: all that match apply, the later ones win") {
    auto model = sd::cifar_resnet<float>(8, {.num_classes = 3, .seed = 1});
    const auto groups = sd::parameter_groups(
        model, {{.match = "fc.", .learning_rate_factor = 10}, {.match_rank_at_most = 1, .weight_decay = 0}});
    const auto group_of = [&](const std::string& name) {
        for (const auto& group : groups) {
            for (const auto& own : group.parameters) {
                if (own->name == name) return std::pair(group.learning_rate_factor, group.weight_decay.value_or(-1));
            }
        }
        return std::pair(-1.0, -1.0);
    };
    CHECK(group_of("conv1.weight") == std::pair(1.0, -1.0));
    CHECK(group_of("bn1.weight") == std::pair(1.0, 0.0));
    CHECK(group_of("fc.weight") == std::pair(10.0, -1.0));
    CHECK(group_of("fc.bias") == std::pair(10.0, 0.0));
    CHECK(groups.size() == 4);
    const sd::AdamW<float> optimizer(groups, {.learning_rate = 1e-4});
    CHECK(optimizer.parameters().size() == model.parameters().size());
    for (const auto& own : model.parameters()) CHECK(optimizer.holds(own.get()));
    CHECK(optimizer.settings().at("group.3") ==
          "1 parameters, learning rate x 10, weight decay 0 (fc.: learning rate x 10; rank <= 1: weight decay 0)");

    const auto later = sd::parameter_groups(model, {{.weight_decay = 1}, {.match = "bn1.", .weight_decay = 2}});
    CHECK(later.size() == 2);
    CHECK(later[0].weight_decay.value() == 1);
    CHECK(later[1].weight_decay.value() == 2);
    CHECK(later[1].parameters.size() == 2);

    const auto refused = [&](const sd::ParameterRule& rule) {
        return message_of([&] { (void)sd::parameter_groups(model, {rule}); });
    };
    CHECK(contains(refused({.match = "classifier."}), "\"classifier.\", which matches no parameter, expected"));
    CHECK(contains(refused({.match_rank_at_most = 0}), "such as conv1.weight"));
    CHECK(contains(refused({.learning_rate_factor = -1}), "learning_rate_factor: got -1"));
    CHECK(contains(refused({.weight_decay = -1}), "weight_decay: got -1"));
}

}  // namespace test_optimizers
