// A Sequential of something that is no layer.
#include <sd/sd.hpp>

#ifdef SD_RIGHT
using Last = sd::Relu<float>;
#else
struct Last {};
#endif

int main() {
    sd::Sequential layers{sd::named("first", sd::Relu<float>()), sd::named("last", Last())};
    const auto y = layers.forward(sd::Tensor<float>({1, 2, 2, 3}), sd::Context::train({.step = 0, .seed = 1}));
    (void)layers.backward(y);
}
