// A residual block of a branch that has no backward.
#include <sd/sd.hpp>

template <class T>
struct Branch {
    sd::Tensor<T> forward(const sd::Tensor<T>& x, const sd::Context&) { return x; }
#ifdef SD_RIGHT
    sd::Tensor<T> backward(const sd::Tensor<T>& dy) { return dy; }
#endif
    template <class Visitor>
    void visit(Visitor&&) {}
};

int main() {
    sd::StochasticResidual<Branch<double>> block{Branch<double>()};
    const auto y = block.forward(sd::Tensor<double>({1, 2, 2, 3}), sd::Context::train({.step = 0, .seed = 1}));
    (void)block.backward(y);
}
