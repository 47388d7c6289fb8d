#include <elements.hpp>

#include <iostream>

int main() { std::cout << count_elements(sd::Tensor<float>({2, 3})) << " elements\n"; }
