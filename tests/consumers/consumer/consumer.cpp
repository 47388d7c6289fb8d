// A program of someone who uses the library: one block, forward and backward.
#include <sd/sd.hpp>

#include <iostream>

int main() {
    sd::Initializer initializer(42);
    sd::StochasticResidual<sd::BasicBlock<float>, sd::SamplePolicy> block(
        sd::BasicBlock<float>({.in_channels = 4, .planes = 4}, initializer), {.drop_rate = 0.5});
    const auto x = sd::Tensor<float>::full({2, 3, 3, 4}, 1.0F);
    const auto y = block.forward(x, sd::Context::train({.step = 0, .seed = 42}));
    const auto dx = block.backward(y);
#if defined(_OPENMP)
    const char* threads = "openmp";
#else
    const char* threads = "serial";
#endif
    std::cout << "block of " << dx.extent(0) << " x " << dx.extent(1) << " x " << dx.extent(2) << " x " << dx.extent(3)
              << ", " << threads << '\n';
}
