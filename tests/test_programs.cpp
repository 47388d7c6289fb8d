// The programs that the documents promise, as written there.
#include <sd/sd.hpp>

#include <doctest/doctest.h>

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
