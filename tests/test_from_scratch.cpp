// The method in one file, examples/stochastic_depth_from_scratch.cpp, against the library.

#define FROM_SCRATCH_WITHOUT_MAIN
#include "../examples/stochastic_depth_from_scratch.cpp"

#include "random.hpp"

#include "sd/cpu/residual_join.hpp"
#include "sd/nn/linear.hpp"
#include "sd/nn/activation.hpp"
#include "sd/stochastic_depth/block_policy.hpp"
#include "sd/stochastic_depth/sample_policy.hpp"
#include "sd/stochastic_depth/schedule.hpp"
#include "sd/stochastic_depth/stochastic_residual.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace {

using Values = std::vector<double>;

constexpr sd::Index samples = 8;
constexpr sd::Index width = 5;

Values values_of(const sd::Tensor<double>& tensor) { return {tensor.begin(), tensor.end()}; }

bool same(const sd::Tensor<double>& tensor, const Values& values) {
    return std::equal(tensor.begin(), tensor.end(), values.begin(), values.end());
}

double error(const Values& got, const sd::Tensor<double>& expected) {
    auto tensor = sd::Tensor<double>::empty(expected.shape());
    REQUIRE(static_cast<sd::Index>(got.size()) == tensor.size());
    tensor.write(got.data());
    return sd_test::relative_error(tensor, expected);
}

// The same branch of the library's layers: F(x) = W2 relu(W1 x + b1) + b2.
template <class T>
struct TwoLinearBranch {
    sd::Linear<T> first, second;
    sd::Relu<T> relu = {};

    explicit TwoLinearBranch(sd::Initializer init = sd::Initializer(sd_test::seed))
        : first(width, width, init), second(width, width, init) {}
    sd::Tensor<T> forward(const sd::Tensor<T>& x, const sd::Context& context) {
        return second.forward(relu.forward(first.forward(x, context), context), context);
    }
    sd::Tensor<T> backward(const sd::Tensor<T>& dy) { return first.backward(relu.backward(second.backward(dy))); }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("first", first);
        visitor("second", second);
    }
};

// A block of the program with the library's weights.
from_scratch::Block block_of(TwoLinearBranch<double>& branch, double drop_rate, std::uint32_t number) {
    from_scratch::Block block{{{width, width, 0, 0}, {width, width, 0, 0}}, drop_rate, number};
    for (auto [layer, own] :
         {std::pair{&branch.first, &block.branch.first}, std::pair{&branch.second, &block.branch.second}}) {
        own->weight.value = values_of(layer->weight()->value);
        own->bias.value = values_of(layer->bias()->value);
    }
    return block;
}

struct Count {
    int untouched = 0, mixed = 0;
};

// One pass forward and backward through both blocks. Outputs, gradients and what has none must agree.
template <class Policy>
Count compare_blocks(from_scratch::Method method, bool training, std::uint64_t seed, std::uint64_t step) {
    constexpr double drop_rate = 0.4;
    constexpr std::uint32_t number = 3;
    sd::StochasticResidual<TwoLinearBranch<double>, Policy> block(TwoLinearBranch<double>(), {.drop_rate = drop_rate});
    block.set_block_index(number);
    from_scratch::Block own = block_of(block.branch(), drop_rate, number);

    const auto x = sd_test::random_tensor<double>({samples, width}, 2 * step);
    const auto dy = sd_test::random_tensor<double>({samples, width}, 2 * step + 1);
    const sd::Context context =
        training ? sd::Context::train({.step = step, .seed = seed}) : sd::Context::eval({.gradients = true});
    const auto y = block.forward(x, context);
    const auto dx = block.backward(dy);

    CHECK(error(own.forward(values_of(x), {training, method, seed, step}), y) < 1e-14);
    CHECK(error(own.backward(values_of(dy)), dx) < 1e-14);
    if (training) CHECK(std::equal(own.mask.begin(), own.mask.end(), block.mask().begin(), block.mask().end()));
    for (auto [layer, got] :
         {std::pair{&block.branch().first, &own.branch.first}, std::pair{&block.branch().second, &own.branch.second}}) {
        for (auto [parameter, mine] :
             {std::pair{layer->weight(), &got->weight}, std::pair{layer->bias(), &got->bias}}) {
            REQUIRE(mine->has_grad == parameter->has_grad);
            if (mine->has_grad) CHECK(error(mine->grad, parameter->grad) < 1e-14);
        }
    }
    const auto kept = std::count(own.mask.begin(), own.mask.end(), 1);
    return {own.runs ? 0 : 1, kept > 0 && kept < samples ? 1 : 0};
}

}  // namespace

TEST_CASE("from scratch: masks are the library's, bit for bit") {
    const std::uint64_t large = (std::uint64_t{1} << 55) + 12345;
    int kept = 0;
    int dropped = 0;
    for (const double rate : {0.0, 1e-7, 0.2, 0.5, 1.0 / 3, 1.0}) {
        for (const std::uint64_t seed : {std::uint64_t{0}, sd_test::seed, ~std::uint64_t{0}}) {
            for (const std::uint64_t step : {std::uint64_t{0}, std::uint64_t{7}, large}) {
                for (const std::uint32_t block : {0U, 15U}) {
                    for (std::uint32_t index = 0; index < 64; ++index) {
                        const bool keeps = from_scratch::keeps_branch(rate, seed, step, block, index);
                        REQUIRE(keeps == sd::keeps_branch(rate, seed, step, block, index));
                        ++(keeps ? kept : dropped);
                    }
                }
            }
        }
    }
    CHECK(kept > 1000);
    CHECK(dropped > 1000);
}

TEST_CASE("from scratch: masks are the library's at the rates where a random word begins to drop") {
    for (std::uint32_t index = 0; index < 64; ++index) {
        const std::uint32_t word = sd::random_words(sd_test::seed, sd::Stream::mask, 5, 2, index)[0] >> 8;
        for (const double above : {0.0, 0.5, 1.0}) {
            const double rate = (word + above) * 0x1p-24;
            CHECK(from_scratch::keeps_branch(rate, sd_test::seed, 5, 2, index) == (above == 0));
            CHECK(sd::keeps_branch(rate, sd_test::seed, 5, 2, index) == (above == 0));
        }
    }
}

TEST_CASE("from scratch: rates over depth are the library's linear ones") {
    for (const std::uint32_t blocks : {1U, 2U, 8U, 54U}) {
        for (std::uint32_t i = 0; i < blocks; ++i) {
            CHECK(from_scratch::drop_rate_of_block(0.3, i, blocks) ==
                  sd::drop_rate_of_block(sd::DropDistribution::linear, 0.3, i, blocks));
        }
    }
}

TEST_CASE("from scratch: the join is the library's, bit for bit") {
    auto f = sd_test::random_tensor<double>({samples, width}, 102);
    std::fill(f.begin() + width, f.begin() + 2 * width, std::numeric_limits<double>::quiet_NaN());
    const auto x = sd_test::random_tensor<double>({samples, width}, 101);
    const from_scratch::Mask mask{1, 0, 0, 1, 1, 0, 1, 1};  // what is not a number is dropped
    const std::vector<sd::Index> branch_sample{0, -1, -1, 3, 4, -1, 6, 7};
    for (const double scale : {1.0, 0.5}) {  // the product is exact, whether it is rounded before the sum or not
        const Values y = from_scratch::join_forward(values_of(x), values_of(f), mask, scale);
        CHECK(same(sd::residual_join_forward<double>(x, f, branch_sample, scale, true), y));
        CHECK(same(sd::reference::residual_join_forward<double>(x, f, branch_sample, scale, true), y));
    }
}

TEST_CASE("from scratch: a block's outputs and gradients are the library's, to rounding") {
    using from_scratch::Method;
    Count by_block;
    Count by_sample;
    for (std::uint64_t step = 0; step < 12; ++step) {
        by_block.untouched += compare_blocks<sd::BlockPolicy>(Method::block, true, sd_test::seed, step).untouched;
        by_sample.mixed += compare_blocks<sd::SamplePolicy>(Method::sample, true, sd_test::seed, step).mixed;
    }
    CHECK(by_block.untouched > 0);
    CHECK(by_block.untouched < 12);
    CHECK(by_sample.mixed > 0);
    compare_blocks<sd::BlockPolicy>(Method::block, false, sd_test::seed, 20);
    compare_blocks<sd::SamplePolicy>(Method::sample, false, sd_test::seed, 21);
}

TEST_CASE("from scratch: the network's gradients are the slopes of its loss") {
    using from_scratch::Method;
    const from_scratch::Tensor points = from_scratch::spirals(sd_test::seed, 0, samples);
    for (const Method method : {Method::block, Method::sample}) {
        from_scratch::Network network(width, 3, 0.5, sd_test::seed);
        const from_scratch::Context context{true, method, sd_test::seed, 1};
        const auto loss = [&] { return from_scratch::Score(network.forward(points, context)).loss; };
        network.backward(from_scratch::Score(network.forward(points, context)).dz);
        for (from_scratch::Linear* layer : {&network.stem, &network.blocks[0].branch.first, &network.head}) {
            for (from_scratch::Parameter* parameter : {&layer->weight, &layer->bias}) {
                for (std::size_t i = 0; i < parameter->value.size(); ++i) {
                    constexpr double h = 1e-6;
                    const double before = parameter->value[i];
                    parameter->value[i] = before + h;
                    const double above = loss();
                    parameter->value[i] = before - h;
                    const double below = loss();
                    parameter->value[i] = before;
                    CHECK(parameter->grad[i] == doctest::Approx((above - below) / (2 * h)).epsilon(1e-6));
                }
            }
        }
    }
}

TEST_CASE("from scratch: a step leaves the parameters of a dropped branch alone") {
    from_scratch::Network network(width, 2, 1.0, sd_test::seed);  // rates 0 and 1
    const from_scratch::Tensor points = from_scratch::spirals(sd_test::seed, 0, samples);
    for (from_scratch::Block& block : network.blocks) block.branch.first.weight.velocity.assign(width * width, 1);
    const auto weight_of = [&](int i) { return network.blocks[static_cast<std::size_t>(i)].branch.first.weight; };
    const Values kept = weight_of(0).value;
    const Values dropped = weight_of(1).value;
    const from_scratch::Context context{true, from_scratch::Method::block, sd_test::seed, 0};
    network.backward(from_scratch::Score(network.forward(points, context)).dz);
    network.step(0.1);
    CHECK(weight_of(0).value != kept);
    CHECK(weight_of(1).value == dropped);
    CHECK(weight_of(1).velocity == Values(width * width, 1));
}
