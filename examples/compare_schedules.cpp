// The three ways to spread a drop rate over the depth of a network, side by side.
#include <sd/sd.hpp>

#include <iomanip>
#include <iostream>

int main() {
    const sd::Index blocks = 16;  // as many as ResNet-50 has
    const double drop_rate = 0.5;
    const auto distributions = {sd::DropDistribution::uniform, sd::DropDistribution::linear,
                                sd::DropDistribution::linear_huang};
    std::cout << "block";
    for (const auto distribution : distributions) std::cout << std::setw(14) << sd::to_string(distribution);
    std::cout << std::fixed << std::setprecision(3) << '\n';
    for (sd::Index i = 0; i < blocks; ++i) {
        std::cout << std::setw(5) << i;
        for (const auto distribution : distributions) {
            std::cout << std::setw(14) << sd::drop_rate_of_block(distribution, drop_rate, i, blocks);
        }
        std::cout << '\n';
    }
    std::cout << "depth";  // expected, of 16
    for (const auto distribution : distributions) {
        double depth = 0;
        for (sd::Index i = 0; i < blocks; ++i) depth += 1 - sd::drop_rate_of_block(distribution, drop_rate, i, blocks);
        std::cout << std::setw(14) << depth;
    }
    std::cout << '\n';
}
