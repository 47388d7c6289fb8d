// A residual branch of one's own: written, checked, made stochastic.
#include <sd/sd.hpp>
#include <sd/testing/gradcheck.hpp>

#include <iostream>

template <class T>
class MyBranch {  // F(x) = bn(conv(relu(x)))
public:
    explicit MyBranch(sd::Index channels, sd::Initializer initializer = sd::Initializer(42))
        : conv_(channels, channels, 3, {.padding = 1}, initializer), bn_(channels) {}
    sd::Tensor<T> forward(const sd::Tensor<T>& x, const sd::Context& context) {
        return bn_.forward(conv_.forward(relu_.forward(x, context), context), context);
    }
    sd::Tensor<T> backward(const sd::Tensor<T>& dy) { return relu_.backward(conv_.backward(bn_.backward(dy))); }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("conv", conv_);
        visitor("bn", bn_);
    }

private:
    sd::Relu<T> relu_;
    sd::Conv2d<T> conv_;
    sd::BatchNorm2d<T> bn_;
};

int main() {
    const auto report = sd::testing::gradcheck([]<class T>() { return MyBranch<T>(8); }, {4, 6, 6, 8});
    std::cout << report;

    sd::StochasticResidual<MyBranch<float>, sd::SamplePolicy> block(MyBranch<float>(8), {.drop_rate = 0.5});
    const auto x = sd::Tensor<float>::full({4, 6, 6, 8}, 1.0F);
    std::cout << block.forward(x, sd::Context::train({.step = 0, .seed = 1})).shape() << '\n';
    return report.passed() ? 0 : 1;
}
