// The programs that the documents promise, as written there.
#include "temporary_directory.hpp"

#include <sd/io/state_dict.hpp>
#include <sd/training.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace test_programs {

namespace {

// A branch of a user's own: forward, backward, and a way to visit its parameters and buffers.
template <class T>
class MyBranch {
public:
    explicit MyBranch(sd::Index channels, std::uint64_t seed = 0) : MyBranch(channels, sd::Initializer(seed)) {}

    sd::Tensor<T> forward(const sd::Tensor<T>& x, const sd::Context& context) {
        return bn_.forward(conv_.forward(x, context), context);
    }
    sd::Tensor<T> backward(const sd::Tensor<T>& dy) { return conv_.backward(bn_.backward(dy)); }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("conv", conv_);
        visitor("bn", bn_);
    }

private:
    MyBranch(sd::Index channels, sd::Initializer initializer)
        : conv_(channels, channels, 3, {.padding = 1}, initializer), bn_(channels) {}

    sd::Conv2d<T> conv_;
    sd::BatchNorm2d<T> bn_;
};

// A branch from layers: fused like the library's own.
template <class T>
auto my_branch(sd::Index width, sd::Initializer& init) {
    return sd::Sequential(sd::named("conv", sd::Conv2d<T>(width, width, 3, {.padding = 1}, init)),
                          sd::named("bn", sd::BatchNorm2d<T>(width)), sd::named("act", sd::Silu<T>()),
                          sd::named("project", sd::Conv2d<T>(width, width, 1, {}, init)),
                          sd::named("bn2", sd::BatchNorm2d<T>(width)));
}

// Half the squared distance of the logits from 1 at the label and 0 elsewhere, a mean over samples.
struct MyLoss {
    sd::LossAndGradient<float> operator()(const sd::Tensor<float>& logits,
                                          const sd::LabelledImages<float>& batch) const {
        sd::Tensor<float> dlogits = logits.clone();
        const auto samples = static_cast<float>(logits.extent(0));
        float loss = 0;
        for (sd::Index n = 0; n < logits.extent(0); ++n) {
            dlogits(n, batch.labels[static_cast<std::size_t>(n)]) -= 1;
        }
        for (float& d : dlogits) {
            loss += d * d / 2 / samples;
            d /= samples;
        }
        return {loss, dlogits};
    }
};

double my_rate(std::uint32_t block) { return 0.05 * block; }

}  // namespace

TEST_CASE("the functional interface") {
    auto model = sd::resnet50<float>({.num_classes = 1000, .seed = 42});
    sd::apply_stochastic_depth(model, {.target_layer_name = "ResNetBottleneck",
                                       .stochastic_method = sd::StochasticMethod::sample,
                                       .drop_rate = 0.1,
                                       .drop_distribution = sd::DropDistribution::linear});
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 1e-4});
    CHECK(model.blocks().back().policy().drop_rate() == 0.1);
    CHECK(optimizer.holds(model.parameters().front().get()));
}

TEST_CASE("the algorithm in a training loop") {
    auto model = sd::cifar_bottleneck_resnet<float>(29, {.num_classes = 4, .seed = 42});
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 1e-4});
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(8, 4, 8, 8, 42));
    const sd::DataLoader train_loader(images, {.batch_size = 4});
    const sd::PrefetchLoader eval_loader(sd::DataLoader(images, {.batch_size = 8, .shuffle = false}));
    const sd::StochasticDepthOptions options{.target_layer_name = "ResNetBottleneck", .drop_rate = 0.5};
    sd::Trainer trainer(model, optimizer, train_loader, eval_loader,
                        {.max_duration = "90ep", .algorithms = {sd::StochasticDepth(options)}});
    CHECK(model.blocks().back().policy().drop_rate() == 0.5);
    CHECK(trainer.state().run.total_batches == 180);
    trainer.request_stop();
    trainer.fit();
    CHECK(trainer.state().timestamp.batch == 1);
}

TEST_CASE("a block of one's own") {
    const sd::Tensor<float> x = sd::Tensor<float>::full({4, 8, 8, 64}, 0.5F);
    const sd::Tensor<float> dy = sd::Tensor<float>::full({4, 8, 8, 64}, 0.25F);
    sd::StochasticResidual<MyBranch<float>, sd::SamplePolicy> block(MyBranch<float>(64), {.drop_rate = 0.2});
    auto y = block.forward(x, sd::Context::train({.step = 0, .seed = 42}));
    auto dx = block.backward(dy);
    CHECK(y.shape() == x.shape());
    CHECK(dx.shape() == x.shape());
    CHECK(block.branch().forward(x, sd::Context::eval()).shape() == x.shape());
}

TEST_CASE("a branch from layers") {
    sd::Initializer init(7);
    sd::StochasticResidual block(my_branch<float>(16, init), sd::SamplePolicy{.drop_rate = 0.2});
    const auto x = sd::Tensor<float>::full({4, 8, 8, 16}, 0.5F);
    const auto y = block.forward(x, sd::Context::train({.step = 0, .seed = 42}));
    CHECK(y.shape() == x.shape());
    CHECK(block.backward(y).shape() == x.shape());
    std::vector<std::string> names;
    sd::for_each_parameter(block, [&](const std::string& name, auto&) { names.push_back(name); });
    CHECK(names ==
          std::vector<std::string>{"conv.weight", "bn.weight", "bn.bias", "project.weight", "bn2.weight", "bn2.bias"});
}

TEST_CASE("fine-tuning") {
    const sd_test::TemporaryDirectory directory;
    const std::string file = (directory.path() / "resnet18.safetensors").string();
    auto pretrained = sd::resnet18<float>({.num_classes = 10, .seed = 3});
    sd::save_weights(pretrained, file);

    auto model = sd::resnet18<float>({.num_classes = 5, .seed = 4});
    sd::load_weights(model, file, {.skip = {"fc."}});
    model.reset_classifier(37, {.seed = 1});
    sd::freeze(model, "layer1.");
    sd::AdamW<float> head_and_rest(sd::parameter_groups(model, {{.match = "fc.", .learning_rate_factor = 10},
                                                                {.match_rank_at_most = 1, .weight_decay = 0}}),
                                   {.learning_rate = 1e-4});
    const auto x = sd::Tensor<float>::full({2, 32, 32, 3}, 0.5F);
    auto features = model.forward_features(x, sd::Context::eval());
    CHECK(features.shape() == sd::Shape{2, 1, 1, 512});
    CHECK(model.forward_head(features, sd::Context::eval()).shape() == sd::Shape{2, 37});
    CHECK(features.data()[5] == pretrained.forward_features(x, sd::Context::eval()).data()[5]);
    CHECK_FALSE(model.blocks()[0].branch().layer<0>().weight()->requires_grad);
}

TEST_CASE("a schedule of one's own") {
    auto model = sd::cifar_resnet<float>(20);
    for (auto& block : model.blocks()) block.set_policy(sd::SamplePolicy{.drop_rate = my_rate(block.block_index())});
    CHECK(model.blocks()[3].policy().drop_rate() == my_rate(3));
    CHECK(model.blocks()[8].policy().method() == "sample");
}

TEST_CASE("a loop of one's own, or the trainer with a loss of one's own") {
    auto model = sd::cifar_resnet<float>(8, {.num_classes = 4, .seed = 42});
    sd::Sgd<float> optimizer(model.parameters(), {.learning_rate = 0.01});
    const auto images = std::make_shared<sd::InMemoryDataset>(sd::synthetic_images(8, 4, 8, 8, 42));
    const std::vector<sd::Index> labels{0, 1, 2, 3};
    const auto logits =
        model.forward(sd::Tensor<float>::full({4, 8, 8, 3}, 0.5F), sd::Context::train({.step = 0, .seed = 42}));
    auto [loss, dlogits] = sd::cross_entropy(logits, labels);
    CHECK(loss > 0);
    model.backward(dlogits);
    optimizer.step();

    const sd::DataLoader train_loader(images, {.batch_size = 4});
    const sd::DataLoader eval_loader(images, {.batch_size = 8, .shuffle = false});
    sd::Trainer own(model, optimizer, MyLoss{}, train_loader, eval_loader, {});
    own.request_stop();
    own.fit();
    CHECK(own.state().timestamp.batch == 1);
}

}  // namespace test_programs
