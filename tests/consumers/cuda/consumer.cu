// A layer on a GPU, in a program that found the library installed. Without a GPU it says so.
#include <sd/cuda/cuda.hpp>

#include <iostream>

int main() {
    try {
        const sd::Tensor<float> x(sd::Shape{1, 4}, {-1, 2, -3, 4});
        const sd::Tensor<float> y = sd::to_host(sd::activation_forward(sd::to_device<sd::Cuda>(x), sd::Activation::relu));
        std::cout << "relu: " << y(0, 0) << ' ' << y(0, 1) << ' ' << y(0, 2) << ' ' << y(0, 3) << std::endl;
        return 0;
    } catch (const std::exception& error) {
        std::cout << error.what() << std::endl;
        return 1;
    }
}
